//! What a comparison has shown: how many payments differ in which way, how much money that is, and a
//! few examples of each; as a table for people and as one JSON document for machines.
//!
//! Counts and money are exact, however many examples are kept.

use super::side::Side;
use crate::base::clock::Timestamp;
use crate::base::money::Total;
use crate::payments::names::Names;
use crate::payments::{Each, PaymentId, Processor, Totals, Window};
use crate::tools::compare::{self, Booking, Both, Fate, Kind, Known, Rules, compare_sorted};
use crate::tools::text::{grouped, money};
use std::collections::BTreeMap;
use std::fmt;

/// So many lines of either side are shown of one payment.
const LINES_MAX: usize = 4;

/// In what way, and at which processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    pub kind: Kind,
    /// That of the books which it is about.
    pub processor: Processor,
}

impl Way {
    /// What people and machines call it, where there are these processors.
    pub fn name(self, names: &Names) -> &'static str {
        match self.kind {
            Kind::MissingThere => "missing there",
            Kind::MissingHere(_) => "missing here",
            Kind::Refused(_) => "rejected here",
            Kind::OtherProcessor(_) => "other processor",
            Kind::OtherAmount(_) => "other amount",
            Kind::OtherTime(_) => "other time",
            Kind::TwiceThere(_) => "twice there",
            Kind::BothThere if names.count() > 2 => "held by several",
            Kind::BothThere => "held by both",
            Kind::TwiceHere => "twice here",
        }
    }
}

/// All payments that differ in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub payments: u64,
    /// Of an amount that differs: there less here. Of what is there twice: what is too much. Else:
    /// what was moved, where it is held; or here, if it is not held.
    pub money: Total,
    pub examples: Vec<Example>,
}

/// One of them, as both sides tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    pub id: PaymentId,
    pub here: Vec<Known>,
    pub there: Vec<(Processor, Booking)>,
}

/// What a comparison has shown.
#[derive(Clone, Debug)]
pub struct Report {
    names: Names,
    window: Window,
    told: Each<bool>,
    here: Each<Totals>,
    there: Each<Totals>,
    /// Payments that differ, in however many ways.
    differing: u64,
    /// Of those with another amount: a hundred times as much there, or here.
    hundredfold: [u64; 2],
    found: BTreeMap<Way, Found>,
}

impl Report {
    /// Compares two sorted sides, of processors with these names.
    pub fn of(
        [here, there]: [&Side; 2],
        names: Names,
        window: Window,
        rules: Rules,
        examples: usize,
    ) -> Report {
        let mut report = Report {
            names,
            window,
            told: rules.told,
            here: here.totals(),
            there: there.totals(),
            differing: 0,
            hundredfold: [0; 2],
            found: BTreeMap::new(),
        };
        let mut in_order = Vec::new();
        compare_sorted(here.known(), there.bookings(), |both| {
            if is_same(both) {
                return;
            }
            in_order.clear();
            in_order.extend_from_slice(both.known);
            keep_what_counts(&mut in_order);
            put_right_first(&mut in_order, both.held);
            let both = Both { known: &in_order, ..both };
            let mut differs = false;
            compare::judge(both, rules, &mut |kind| {
                differs = true;
                report.add(kind, both, examples);
            });
            report.differing += u64::from(differs);
        });
        report
    }

    pub fn is_same(&self) -> bool {
        self.differing == 0
    }

    fn add(&mut self, kind: Kind, both: Both, examples: usize) {
        let way = Way { kind, processor: processor_of(kind, both) };
        let found = self.found.entry(way).or_default();
        found.payments += 1;
        found.money.0 += money_of(way, both);
        if found.examples.len() < examples {
            found.examples.push(Example::of(both));
        }
        if let (Kind::OtherAmount(by), Some(known)) = (kind, both.known.first()) {
            let amounts = both.held[by.index()].iter().map(|it| i128::from(it.amount.0));
            let here = i128::from(known.amount.0);
            for there in amounts.filter(|it| *it != here).take(1) {
                self.hundredfold[0] += u64::from(there == here * 100);
                self.hundredfold[1] += u64::from(here == there * 100);
            }
        }
    }

    /// What it may be that all amounts differ by.
    fn hint(&self) -> Option<&'static str> {
        let is_other = |way: &Way| matches!(way.kind, Kind::OtherAmount(_));
        let others = self.found.iter().filter(|(way, _)| is_other(way));
        let others: u64 = others.map(|(_, found)| found.payments).sum();
        match self.hundredfold {
            [there, _] if there == others && others > 1 => Some(
                "every other amount there is a hundred times ours: are they cents (--amounts cents)?",
            ),
            [_, here] if here == others && others > 1 => Some(
                "every other amount there is a hundredth of ours: are they decimals (--amounts decimal)?",
            ),
            _ => None,
        }
    }
}

/// The usual case, and the shortest way through it.
fn is_same(both: Both) -> bool {
    let mut holders = Processor::every().zip(both.held).filter(|(_, held)| !held.is_empty());
    let (Some((by, [booking])), None) = (holders.next(), holders.next()) else { return false };
    let Booking { id, amount, requested_at } = *booking;
    both.known == [Known { id, amount, fate: Fate::Settled(by, requested_at) }]
}

/// What is settled is settled, though it may wait yet at the other instance; and what waits at both of
/// them waits.
fn keep_what_counts(known: &mut Vec<Known>) {
    let is_settled = |it: &Known| matches!(it.fate, Fate::Settled(..));
    if known.iter().any(is_settled) {
        known.retain(is_settled);
    } else {
        known.truncate(1);
    }
}

/// Of what is known twice that is right which is held as it is, if any is.
fn put_right_first(known: &mut [Known], held: Each<&[Booking]>) {
    let is_held = |known: &Known| match known.fate {
        Fate::Settled(by, at) => held[by.index()]
            .iter()
            .any(|booking| booking.amount == known.amount && booking.requested_at == at),
        _ => false,
    };
    if let Some(right) = known.iter().position(is_held) {
        known.swap(0, right);
    }
}

/// Where it was settled, if it is known at all.
fn settled_by(both: Both) -> Option<Processor> {
    match both.known.first()?.fate {
        Fate::Settled(by, _) => Some(by),
        _ => None,
    }
}

fn processor_of(kind: Kind, both: Both) -> Processor {
    match kind {
        Kind::MissingHere(by)
        | Kind::Refused(by)
        | Kind::OtherProcessor(by)
        | Kind::OtherAmount(by)
        | Kind::OtherTime(by)
        | Kind::TwiceThere(by) => by,
        Kind::MissingThere | Kind::TwiceHere => settled_by(both).unwrap_or(Processor::DEFAULT),
        // The last one that ought not to hold it.
        Kind::BothThere => {
            let ought = settled_by(both);
            let holders = Processor::every().zip(both.held).filter(|(_, held)| !held.is_empty());
            let others = holders.map(|(by, _)| by).filter(|by| Some(*by) != ought);
            others.last().unwrap_or(Processor::FALLBACK)
        }
    }
}

/// See [`Found::money`].
fn money_of(way: Way, both: Both) -> i128 {
    let held = both.held[way.processor.index()];
    let sum =
        |bookings: &[Booking]| bookings.iter().map(|it| i128::from(it.amount.0)).sum::<i128>();
    let known = |from: usize| {
        let known = both.known.get(from..).unwrap_or_default();
        known.iter().map(|it| i128::from(it.amount.0)).sum::<i128>()
    };
    match way.kind {
        Kind::MissingThere => known(0) - known(1),
        Kind::TwiceHere => known(1),
        Kind::OtherAmount(_) => {
            let here = known(0) - known(1);
            held.iter().map(|it| i128::from(it.amount.0) - here).sum()
        }
        Kind::TwiceThere(_) => sum(held.get(1..).unwrap_or_default()),
        Kind::MissingHere(_)
        | Kind::Refused(_)
        | Kind::OtherProcessor(_)
        | Kind::OtherTime(_)
        | Kind::BothThere => sum(held.get(..1).unwrap_or_default()),
    }
}

impl Example {
    fn of(both: Both) -> Example {
        let there =
            Processor::every().flat_map(|by| both.held[by.index()].iter().map(move |it| (by, *it)));
        Example {
            id: both.id,
            here: both.known.iter().take(LINES_MAX).copied().collect(),
            there: there.take(LINES_MAX).collect(),
        }
    }
}

/// One of them, for people.
struct Shown<'a>(&'a Example, &'a Names);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown(Example { id, here, there }, names) = self;
        write!(f, "    {id}")?;
        if here.is_empty() {
            write!(f, "\n      here   not known")?;
        }
        for Known { amount, fate, .. } in here {
            let amount = money(amount.0.into());
            write!(f, "\n      here   {amount}, {}", fate_name(*fate))?;
            if let Fate::Settled(by, at) = fate {
                write!(f, " by {}, {at}", names.name_of(*by))?;
            }
        }
        if there.is_empty() {
            write!(f, "\n      there  not held")?;
        }
        for (by, Booking { amount, requested_at, .. }) in there {
            let (by, amount) = (names.name_of(*by), money(amount.0.into()));
            write!(f, "\n      there  {amount}, held by {by}, {requested_at}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["here", "money", "there", "money"];
        let [a, b, c, d] = columns;
        write!(f, "  {:<16}{a:>12}{b:>18}{c:>14}{d:>18}", "")?;
        for (by, name) in self.told_processors() {
            let (here, there) = (self.here[by.index()], self.there[by.index()]);
            write!(f, "\n  {name:<16}{:>12}", grouped(here.count))?;
            write!(f, "{:>18}{:>14}", money(here.amount.0), grouped(there.count))?;
            write!(f, "{:>18}", money(there.amount.0))?;
        }
        if self.is_same() {
            return write!(f, "\n\n  no difference");
        }
        write!(f, "\n\n  {:<16}{:>12}{:>18}", "difference", "payments", "money")?;
        for (way, found) in &self.found {
            let (payments, amount) = (grouped(found.payments), money(found.money.0));
            let (name, by) = (way.name(&self.names), self.names.name_of(way.processor));
            write!(f, "\n  {name:<16}{payments:>12}{amount:>18}   {by}")?;
        }
        for (way, found) in self.found.iter().filter(|(_, found)| !found.examples.is_empty()) {
            let of_all = if (found.examples.len() as u64) < found.payments {
                format!(", {} of {}", found.examples.len(), grouped(found.payments))
            } else {
                String::new()
            };
            let (name, by) = (way.name(&self.names), self.names.name_of(way.processor));
            write!(f, "\n\n  {name}, {by}{of_all}:")?;
            for example in &found.examples {
                write!(f, "\n{}", Shown(example, &self.names))?;
            }
        }
        if let Some(hint) = self.hint() {
            write!(f, "\n\n  {hint}")?;
        }
        write!(f, "\n\n  {} payments differ", grouped(self.differing))
    }
}

impl Report {
    fn told_processors(&self) -> impl Iterator<Item = (Processor, &str)> + '_ {
        self.names.iter().filter(|(by, _)| self.told[by.index()])
    }

    /// One document. Nothing in it needs to be escaped; money is a decimal with two places.
    pub fn json(&self) -> String {
        let window = [("from", self.window.from), ("to", self.window.to)].map(|(name, at)| {
            at.map_or(format!(r#""{name}":null"#), |at| format!(r#""{name}":"{at}""#))
        });
        let totals = |Totals { count, amount }: Totals| {
            format!(r#"{{"payments":{count},"amount":{amount}}}"#)
        };
        let processors = self.told_processors().map(|(by, name)| {
            let (here, there) = (self.here[by.index()], self.there[by.index()]);
            format!(r#""{name}":{{"here":{},"there":{}}}"#, totals(here), totals(there))
        });
        let differences = self.found.iter().map(|(way, found)| {
            format!(
                r#"{{"kind":"{}","processor":"{}","payments":{},"amount":{},"examples":[{}]}}"#,
                way.name(&self.names),
                self.names.name_of(way.processor),
                found.payments,
                found.money,
                joined(found.examples.iter().map(|it| example_json(it, &self.names)))
            )
        });
        format!(
            r#"{{"same":{},"differing":{},"window":{{{}}},"processors":{{{}}},"differences":[{}]}}"#,
            self.is_same(),
            self.differing,
            window.join(","),
            joined(processors),
            joined(differences)
        )
    }
}

fn example_json(example: &Example, names: &Names) -> String {
    let held = |by: Processor, at: Timestamp| {
        format!(r#","processor":"{}","requestedAt":"{at}""#, names.name_of(by))
    };
    let here = example.here.iter().map(|Known { amount, fate, .. }| {
        let (state, rest) = match fate {
            Fate::Settled(by, at) => (fate_name(*fate), held(*by, *at)),
            _ => (fate_name(*fate), String::new()),
        };
        format!(r#"{{"state":"{state}","amount":{amount}{rest}}}"#)
    });
    let there = example.there.iter().map(|(by, Booking { amount, requested_at, .. })| {
        format!(r#"{{"amount":{amount}{}}}"#, held(*by, *requested_at))
    });
    let (here, there) = (joined(here), joined(there));
    format!(r#"{{"id":"{}","here":[{here}],"there":[{there}]}}"#, example.id)
}

/// In the words of `galo export`.
fn fate_name(fate: Fate) -> &'static str {
    match fate {
        Fate::Settled(..) => "settled",
        Fate::Refused => "rejected",
        Fate::Accepted | Fate::Unknown => "waiting",
    }
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}
