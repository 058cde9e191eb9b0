//! What the two instances say to each other, as JSON bodies; and what they must agree about.
//!
//! Plain values. What they mean is decided in `membership.rs`; who is asked when, in `peer.rs`.

use crate::base::money::Total;
use crate::payments::Totals;
use crate::payments::names::ByName;
use serde::{Deserialize, Serialize};

/// Who is there: sent as a greeting, and as its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Of the program.
    pub version: String,
    pub instance: u8,
    /// A number of its own for each process.
    pub process: u64,
    /// Its clock for durations, in microseconds.
    pub now_us: u64,
    /// Which journal it writes, in hexadecimal digits, if it has one.
    pub journal: Option<String>,
    /// That is a copy, or was put back, not long ago: what it paid since is forgotten.
    #[serde(default)]
    pub is_copy: bool,
    /// What both must agree about.
    pub settings: Vec<Setting>,
    /// Of the payments it has driven in the other's place: the sequence number of the first that it
    /// still tells of, and the one behind the last.
    pub adopted_first: u64,
    pub adopted: u64,
    /// It is writing down that it adopts some more.
    pub adopting: bool,
    /// Of which process, and up to which sequence number, it has written down what that one adopted.
    pub learned_of: u64,
    pub learned: u64,
    /// Another process that says it is the instance which greets, and how long ago it greeted (ms).
    pub rival: Option<(u64, u64)>,
}

/// A setting that both instances must agree about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
    /// Nothing can be trusted if it differs; otherwise it is only told.
    pub must: bool,
}

/// The settings in which two instances differ: each with our value and theirs (empty for one that it
/// does not have).
pub fn disagreements(ours: &[Setting], theirs: &[Setting]) -> Vec<(Setting, String)> {
    let value = |of: &[Setting], name: &str| {
        of.iter().find(|it| it.name == name).map(|it| it.value.clone()).unwrap_or_default()
    };
    let missing = theirs.iter().filter(|it| ours.iter().all(|own| own.name != it.name));
    let missing = missing.map(|it| Setting { value: String::new(), ..it.clone() });
    let all = ours.iter().cloned().chain(missing);
    let differing = all.map(|own| {
        let other = value(theirs, &own.name);
        (own, other)
    });
    differing.filter(|(own, other)| own.value != *other).collect()
}

/// Totals on their way between instances, by name: the two may have other numbers for the same
/// processors. Exact cents, as text.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct TotalsMessage(ByName<(u64, String)>);

impl TotalsMessage {
    pub fn new<'a>(totals: impl Iterator<Item = (&'a str, Totals)>) -> TotalsMessage {
        let member =
            |(name, it): (&str, Totals)| (name.into(), (it.count, it.amount.0.to_string()));
        TotalsMessage(ByName(totals.map(member).collect()))
    }

    /// Of those that are `needed`, and of whichever others the other instance has used. `None` for what
    /// no history can come to: two of these can always be added. Likewise if one that is needed is
    /// missing.
    pub fn read<'a>(self, needed: impl IntoIterator<Item = &'a str>) -> Option<ByName<Totals>> {
        let mut all = ByName::default();
        for (name, (count, cents)) in self.0.0 {
            let cents: i128 = cents.parse().ok()?;
            let most = i128::from(i64::try_from(count).ok()?) * i128::from(i64::MAX);
            let totals = Totals { count, amount: Total(cents) };
            *all.entry(&name) = (0..=most).contains(&cents).then_some(totals)?;
        }
        needed.into_iter().all(|name| all.get(name).is_some()).then_some(all)
    }
}

/// A health answer passed on.
#[derive(Serialize, Deserialize)]
pub struct HealthMessage {
    pub processor: String,
    pub failing: bool,
    pub response_min_ms: u64,
}

/// A payment offered to its home.
#[derive(Serialize, Deserialize)]
pub struct OfferMessage {
    pub id: String,
    pub cents: i64,
}

/// What became of it.
#[derive(Serialize, Deserialize)]
pub struct OfferedMessage {
    pub accepted: String,
}

/// Payments that are driven in place of the instance that asks, in pages: the sequence number of the
/// first one, and all of them.
#[derive(Serialize, Deserialize)]
pub struct AdoptedMessage {
    pub from: u64,
    pub adopted: Vec<(String, i64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str, value: &str, must: bool) -> Setting {
        Setting { name: name.into(), value: value.into(), must }
    }

    fn read(members: &[(&str, u64, &str)]) -> Option<ByName<Totals>> {
        let member =
            |(name, count, cents): &(&str, u64, &str)| ((*name).into(), (*count, (*cents).into()));
        let message = TotalsMessage(ByName(members.iter().map(member).collect()));
        message.read(["default", "fallback"])
    }

    #[test]
    fn totals_that_cannot_be_are_no_answer() {
        let read = |count: u64, cents: &str| {
            let all = read(&[("default", count, cents), ("fallback", 0, "0")])?;
            all.get("default").copied()
        };
        let (all, largest) = (i64::MAX as u64, i128::from(i64::MAX) * i128::from(i64::MAX));
        let mut most = read(all, &largest.to_string()).unwrap();
        most += most;
        assert_eq!(read(2, "7"), Some(Totals { count: 2, amount: Total(7) }));
        for (count, cents) in [
            (u64::MAX, "0"),
            (1, "-1"),
            (0, "1"),
            (1, "170141183460469231731687303715884105727"),
            (1, "1.5"),
        ] {
            assert!(read(count, cents).is_none(), "{count} {cents}");
        }
    }

    /// The other instance may have books of a processor that this one has never used.
    #[test]
    fn totals_are_told_by_name() {
        let one = |count, cents| Totals { count, amount: Total(cents) };
        let (of_old, of_default) = (("old", 1, "5"), ("default", 2, "7"));
        let found = read(&[of_old, ("fallback", 0, "0"), of_default]).unwrap();
        let of = |name: &str| found.get(name).copied();
        assert_eq!(of("old").zip(of("default")), Some((one(1, 5), one(2, 7))));
        assert!(read(&[of_default]).is_none(), "one is missing");
        let contest = [("default", one(1, 2)), ("fallback", one(0, 0))];
        let text = sonic_rs::to_string(&TotalsMessage::new(contest.into_iter())).unwrap();
        assert_eq!(text, r#"{"default":[1,"2"],"fallback":[0,"0"]}"#);
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let ours = [setting("fees", "5,15", true), setting("purge", "no", false)];
        assert_eq!(disagreements(&ours, &ours), []);
        let theirs = [setting("purge", "yes", false), setting("accounts", "9", true)];
        let expected = [
            (setting("fees", "5,15", true), String::new()),
            (setting("purge", "no", false), "yes".into()),
            (setting("accounts", "", true), "9".into()),
        ];
        assert_eq!(disagreements(&ours, &theirs), expected);
    }
}
