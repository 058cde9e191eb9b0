//! Whether every payment that was accepted is somewhere, and in one sentence how things stand.
//!
//! Decides, and does nothing: it is shown what each instance says of itself, and says what an
//! operator should know first.

use crate::base::money::grouped;
use crate::instance::status::{InstanceStatus, ProcessorStatus};
use serde::{Deserialize, Serialize};

/// Where the payments of an instance are, or of several together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Whereabouts {
    /// Counted where they were taken on, less what has been given to another instance since or turned
    /// out to be somebody else's.
    pub accepted: i64,
    pub default: i64,
    pub fallback: i64,
    /// Accepted and not over.
    pub on_their_way: i64,
    pub rejected: i64,
    /// By hand, and not paid.
    pub cancelled: i64,
}

impl Whereabouts {
    /// So many accepted payments are nowhere; below 0, so many are somewhere that nobody accepted.
    pub fn missing(&self) -> i64 {
        self.accepted - self.on_their_way - self.over()
    }

    /// So many are settled, or were ended otherwise.
    pub fn over(&self) -> i64 {
        self.default + self.fallback + self.rejected + self.cancelled
    }

    pub fn plus(&self, other: &Whereabouts) -> Whereabouts {
        Whereabouts {
            accepted: self.accepted.saturating_add(other.accepted),
            default: self.default.saturating_add(other.default),
            fallback: self.fallback.saturating_add(other.fallback),
            on_their_way: self.on_their_way.saturating_add(other.on_their_way),
            rejected: self.rejected.saturating_add(other.rejected),
            cancelled: self.cancelled.saturating_add(other.cancelled),
        }
    }

    fn equation(&self) -> String {
        let [accepted, default, fallback, on_their_way, rejected] =
            [self.accepted, self.default, self.fallback, self.on_their_way, self.rejected]
                .map(grouped);
        let mut text = format!(
            "{accepted} accepted = {default} default + {fallback} fallback + {on_their_way} on their way"
        );
        if self.rejected != 0 {
            text += &format!(" + {rejected} rejected");
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

    const FINE: Whereabouts = Whereabouts {
        accepted: 12_801,
        default: 8_558,
        fallback: 4_143,
        on_their_way: 100,
        rejected: 0,
        cancelled: 0,
    };

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
        let verdict = judge(&FINE, &[instance()], None);
        let equation = "12,801 accepted = 8,558 default + 4,143 fallback + 100 on their way";
        assert_eq!(verdict, Verdict { level: "green", text: format!("Balanced: {equation}") });
        let cancelled = Whereabouts { cancelled: 2, on_their_way: 98, ..FINE };
        let verdict = judge(&cancelled, &[instance()], None);
        assert_eq!(verdict.level, "green");
        assert!(verdict.text.ends_with(" on their way + 2 cancelled"), "{}", verdict.text);
        let short = Whereabouts { fallback: 4_142, ..FINE };
        let verdict = judge(&short, &[instance()], None);
        assert_eq!(verdict.level, "red");
        assert!(verdict.text.starts_with("Not balanced, 1 missing: "), "{}", verdict.text);
        let twice = Whereabouts { fallback: 4_144, ..FINE };
        let verdict = judge(&twice, &[instance()], None);
        assert!(verdict.text.starts_with("Not balanced, -1 missing: "), "{}", verdict.text);
    }

    #[test]
    fn amber_says_what_waits_for_whom() {
        let of = |whereabouts: &Whereabouts, it: InstanceStatus, silent| {
            let Verdict { level, text } = judge(whereabouts, &[it], silent);
            assert_eq!(level, "amber", "{text}");
            assert!(text.ends_with(&whereabouts.equation()), "{text}");
            text
        };
        let silent = of(&FINE, instance(), Some("Instance 2 does not answer."));
        assert!(silent.starts_with("Instance 2 does not answer. Balanced: "), "{silent}");
        let rejected = Whereabouts { rejected: 3, on_their_way: 97, ..FINE };
        let rejected = of(&rejected, instance(), None);
        assert!(rejected.starts_with("3 rejected wait for people to decide. "), "{rejected}");
        let mut all_down = instance();
        all_down.processors.iter_mut().for_each(|it| it.up = false);
        all_down.payments = PaymentsStatus { waiting: 40, guests: 2, ..PaymentsStatus::default() };
        let waiting = of(&FINE, all_down.clone(), None);
        assert!(waiting.contains("2 wait at instance 1 for instance 2. "), "{waiting}");
        assert!(waiting.contains("38 wait at instance 1: no processor is up. "), "{waiting}");
        all_down.processors[1].up = true;
        assert_eq!(
            judge(
                &FINE,
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
        let alone = of(&FINE, all_down, None);
        assert!(alone.contains("38 wait at instance 1: without the other one it pays"), "{alone}");
        let mut in_doubt = instance();
        in_doubt.processors[0] = ProcessorStatus {
            up: false,
            why: "stalled".into(),
            in_doubt: 12,
            ..in_doubt.processors[0].clone()
        };
        let doubts = of(&FINE, in_doubt, None);
        assert!(doubts.contains("12 in doubt at default since it is down (stalled)"), "{doubts}");
    }

    #[test]
    fn a_processor_that_is_down_is_no_trouble_while_nothing_waits_for_it() {
        let mut it = instance();
        it.processors[0].up = false;
        it.payments = PaymentsStatus { waiting: 7, ..PaymentsStatus::default() };
        assert_eq!(judge(&FINE, &[it.clone()], None).level, "green");
        it.stuck = Some("7 payments wait".into());
        assert_eq!(judge(&FINE, &[it], None).level, "red");
    }
}
