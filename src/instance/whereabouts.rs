//! Whether every payment that was accepted is somewhere, and in one sentence how things stand.
//!
//! Decides, and does nothing: it is shown what each instance says of itself, and says what an
//! operator should know first.

use crate::base::money::grouped;
use crate::instance::status::{InstanceStatus, ProcessorStatus};
use crate::payments::names::ByName;
use serde::{Deserialize, Serialize};

/// Where the payments of an instance are, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WhereaboutsMessage", into = "WhereaboutsMessage")]
pub struct Whereabouts {
    /// Counted where they were taken on, less what has been given to another instance since or turned
    /// out to be somebody else's.
    pub accepted: i64,
    /// Of each processor, so many are settled there.
    pub settled: ByName<i64>,
    /// Accepted and not over.
    pub on_their_way: i64,
    pub rejected: i64,
    /// By hand, and not paid.
    pub cancelled: i64,
}

/// As it is written. The contest's two are told as they always were, and all others in `settled`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct WhereaboutsMessage {
    accepted: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settled: Option<ByName<i64>>,
    on_their_way: i64,
    rejected: i64,
    cancelled: i64,
}

impl From<WhereaboutsMessage> for Whereabouts {
    fn from(message: WhereaboutsMessage) -> Whereabouts {
        let WhereaboutsMessage { accepted, default, fallback, settled, .. } = message;
        let of_contest = [("default", default), ("fallback", fallback)];
        let mut settled = settled.unwrap_or_default();
        for (name, count) in of_contest.into_iter().filter_map(|(name, it)| Some((name, it?))) {
            *settled.entry(name) = count;
        }
        let WhereaboutsMessage { on_their_way, rejected, cancelled, .. } = message;
        Whereabouts { accepted, settled, on_their_way, rejected, cancelled }
    }
}

impl From<Whereabouts> for WhereaboutsMessage {
    fn from(whereabouts: Whereabouts) -> WhereaboutsMessage {
        let Whereabouts { accepted, settled, on_their_way, rejected, cancelled } = whereabouts;
        let of_contest = match &settled.0[..] {
            [(first, default), (second, fallback)]
                if (&first[..], &second[..]) == ("default", "fallback") =>
            {
                Some((*default, *fallback))
            }
            _ => None,
        };
        let (default, fallback) = of_contest.unzip();
        let settled = of_contest.is_none().then_some(settled);
        WhereaboutsMessage {
            accepted,
            default,
            fallback,
            settled,
            on_their_way,
            rejected,
            cancelled,
        }
    }
}

impl Whereabouts {
    /// So many accepted payments are nowhere; below 0, so many are somewhere that nobody accepted.
    pub fn missing(&self) -> i64 {
        self.accepted - self.on_their_way - self.over()
    }

    /// So many are settled, or were ended otherwise.
    pub fn over(&self) -> i64 {
        let settled = self.settled.0.iter().fold(0, |sum: i64, (_, it)| sum.saturating_add(*it));
        settled.saturating_add(self.rejected).saturating_add(self.cancelled)
    }

    pub fn plus(&self, other: &Whereabouts) -> Whereabouts {
        let mut settled = self.settled.clone();
        for (name, count) in &other.settled.0 {
            let sum = settled.entry(name);
            *sum = sum.saturating_add(*count);
        }
        Whereabouts {
            accepted: self.accepted.saturating_add(other.accepted),
            settled,
            on_their_way: self.on_their_way.saturating_add(other.on_their_way),
            rejected: self.rejected.saturating_add(other.rejected),
            cancelled: self.cancelled.saturating_add(other.cancelled),
        }
    }

    fn equation(&self) -> String {
        let mut text = format!("{} accepted =", grouped(self.accepted));
        for (name, count) in &self.settled.0 {
            text += &format!(" {} {name} +", grouped(*count));
        }
        text += &format!(" {} on their way", grouped(self.on_their_way));
        if self.rejected != 0 {
            text += &format!(" + {} rejected", grouped(self.rejected));
        }
        if self.cancelled != 0 {
            text += &format!(" + {} cancelled", grouped(self.cancelled));
        }
        text
    }
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// `green`; `amber` if something waits for what is outside of galo, or for people; `red` if
    /// something is wrong in it.
    pub level: &'static str,
    pub text: String,
}

/// Of all instances that have told theirs. `silent`: why another one has not.
pub fn judge(
    whereabouts: &Whereabouts,
    instances: &[InstanceStatus],
    silent: Option<&str>,
) -> Verdict {
    let red = |text| Verdict { level: "red", text };
    if let Some(why) = instances.iter().find_map(|it| it.stuck.as_deref()) {
        return red(format!("Stuck: {why}"));
    }
    let equation = whereabouts.equation();
    if whereabouts.missing() != 0 {
        return red(format!(
            "Not balanced, {} missing: {equation}",
            grouped(whereabouts.missing())
        ));
    }
    let mut waits: Vec<String> = silent.map(|why| format!("{why} ")).into_iter().collect();
    waits.extend(instances.iter().filter_map(waits_for));
    if whereabouts.rejected > 0 {
        waits.push(format!(
            "{} rejected wait for people to decide. ",
            grouped(whereabouts.rejected)
        ));
    }
    let level = if waits.is_empty() { "green" } else { "amber" };
    Verdict { level, text: format!("{}Balanced: {equation}", waits.concat()) }
}

/// What of this instance waits for something that does not come by itself in a moment.
fn waits_for(it: &InstanceStatus) -> Option<String> {
    let (own, payments) = (it.instance, &it.payments);
    let down = |it: &&ProcessorStatus| !it.up;
    let mut said = String::new();
    if payments.guests > 0 {
        let (guests, other) = (grouped(payments.guests), 3 - own.min(2));
        said += &format!("{guests} wait at instance {own} for instance {other}. ");
    }
    let waiting = payments.waiting.saturating_sub(payments.guests);
    let may_pay = |processor: &ProcessorStatus| {
        processor.up && it.only.as_ref().is_none_or(|only| *only == processor.name)
    };
    if waiting > 0 && !it.processors.iter().any(may_pay) {
        let waiting = grouped(waiting);
        said += &match it.processors.iter().any(|it| it.up) {
            false => format!("{waiting} wait at instance {own}: no processor is up. "),
            true => format!(
                "{waiting} wait at instance {own}: without the other one it pays at the cheaper \
                 processor only, which is down. "
            ),
        };
    }
    for processor in it.processors.iter().filter(down).filter(|it| it.in_doubt > 0) {
        let ProcessorStatus { name, why, in_doubt, .. } = processor;
        said += &format!(
            "{} in doubt at {name} since it is down ({why}), asked by instance {own}. ",
            grouped(in_doubt)
        );
    }
    (!said.is_empty()).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::status::PaymentsStatus;

    fn settled(default: i64, fallback: i64) -> ByName<i64> {
        ByName(vec![("default".into(), default), ("fallback".into(), fallback)])
    }

    fn fine() -> Whereabouts {
        Whereabouts {
            accepted: 12_801,
            settled: settled(8_558, 4_143),
            on_their_way: 100,
            rejected: 0,
            cancelled: 0,
        }
    }

    fn instance() -> InstanceStatus {
        let processor = |name: &str| ProcessorStatus {
            name: name.into(),
            up: true,
            ..ProcessorStatus::default()
        };
        InstanceStatus {
            instance: 1,
            processors: vec![processor("default"), processor("fallback")],
            ..InstanceStatus::default()
        }
    }

    #[test]
    fn what_adds_up_is_green_and_what_does_not_is_red() {
        let verdict = judge(&fine(), &[instance()], None);
        let equation = "12,801 accepted = 8,558 default + 4,143 fallback + 100 on their way";
        assert_eq!(verdict, Verdict { level: "green", text: format!("Balanced: {equation}") });
        let cancelled = Whereabouts { cancelled: 2, on_their_way: 98, ..fine() };
        let verdict = judge(&cancelled, &[instance()], None);
        assert_eq!(verdict.level, "green");
        assert!(verdict.text.ends_with(" on their way + 2 cancelled"), "{}", verdict.text);
        let short = Whereabouts { settled: settled(8_558, 4_142), ..fine() };
        let verdict = judge(&short, &[instance()], None);
        assert_eq!(verdict.level, "red");
        assert!(verdict.text.starts_with("Not balanced, 1 missing: "), "{}", verdict.text);
        let twice = Whereabouts { settled: settled(8_558, 4_144), ..fine() };
        let verdict = judge(&twice, &[instance()], None);
        assert!(verdict.text.starts_with("Not balanced, -1 missing: "), "{}", verdict.text);
    }

    #[test]
    fn the_contests_two_are_told_as_ever_and_others_in_an_object_of_their_own() {
        let text = sonic_rs::to_string(&fine()).unwrap();
        assert_eq!(
            text,
            r#"{"accepted":12801,"default":8558,"fallback":4143,"onTheirWay":100,"rejected":0,"cancelled":0}"#
        );
        let by_name = ByName(vec![("rejected".into(), 1), ("default".into(), 2)]);
        let others = Whereabouts { settled: by_name, ..fine() };
        let other_text = sonic_rs::to_string(&others).unwrap();
        assert!(other_text.contains(r#","settled":{"rejected":1,"default":2},"#), "{other_text}");
        for (text, told) in [(text, fine()), (other_text, others.clone())] {
            assert_eq!(sonic_rs::from_str::<Whereabouts>(&text).unwrap(), told);
        }
        let both = fine().plus(&others);
        let expected = [("default", 8_560), ("fallback", 4_143), ("rejected", 1)];
        let expected = expected.map(|(name, count)| (name.to_owned(), count));
        assert_eq!(both.settled.0, expected);
        assert!(others.equation().starts_with("12,801 accepted = 1 rejected + 2 default + 100 "));
    }

    #[test]
    fn amber_says_what_waits_for_whom() {
        let of = |whereabouts: &Whereabouts, it: InstanceStatus, silent| {
            let Verdict { level, text } = judge(whereabouts, &[it], silent);
            assert_eq!(level, "amber", "{text}");
            assert!(text.ends_with(&whereabouts.equation()), "{text}");
            text
        };
        let silent = of(&fine(), instance(), Some("Instance 2 does not answer."));
        assert!(silent.starts_with("Instance 2 does not answer. Balanced: "), "{silent}");
        let rejected = Whereabouts { rejected: 3, on_their_way: 97, ..fine() };
        let rejected = of(&rejected, instance(), None);
        assert!(rejected.starts_with("3 rejected wait for people to decide. "), "{rejected}");
        let mut all_down = instance();
        all_down.processors.iter_mut().for_each(|it| it.up = false);
        all_down.payments = PaymentsStatus { waiting: 40, guests: 2, ..PaymentsStatus::default() };
        let waiting = of(&fine(), all_down.clone(), None);
        assert!(waiting.contains("2 wait at instance 1 for instance 2. "), "{waiting}");
        assert!(waiting.contains("38 wait at instance 1: no processor is up. "), "{waiting}");
        all_down.processors[1].up = true;
        assert_eq!(
            judge(
                &fine(),
                &[InstanceStatus {
                    payments: PaymentsStatus { guests: 0, ..all_down.payments.clone() },
                    ..all_down.clone()
                }],
                None
            )
            .level,
            "green",
            "it waits a moment for the cheaper one"
        );
        all_down.only = Some("default".into());
        let alone = of(&fine(), all_down, None);
        assert!(alone.contains("38 wait at instance 1: without the other one it pays"), "{alone}");
        let mut in_doubt = instance();
        in_doubt.processors[0] = ProcessorStatus {
            up: false,
            why: "stalled".into(),
            in_doubt: 12,
            ..in_doubt.processors[0].clone()
        };
        let doubts = of(&fine(), in_doubt, None);
        assert!(doubts.contains("12 in doubt at default since it is down (stalled)"), "{doubts}");
    }

    #[test]
    fn a_processor_that_is_down_is_no_trouble_while_nothing_waits_for_it() {
        let mut it = instance();
        it.processors[0].up = false;
        it.payments = PaymentsStatus { waiting: 7, ..PaymentsStatus::default() };
        assert_eq!(judge(&fine(), &[it.clone()], None).level, "green");
        it.stuck = Some("7 payments wait".into());
        assert_eq!(judge(&fine(), &[it], None).level, "red");
    }
}
