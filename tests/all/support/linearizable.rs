//! Whether what was seen of one account could have come from one that does one thing at a time.
//!
//! Each event took effect at one moment between its question and its answer (Herlihy and Wing's
//! linearizability). The search is Wing and Gong's with the memory of Lowe: it builds the sequence
//! from its beginning, always by an event that no other one must precede, and never comes to the
//! same events in the same state twice. Accepted transactions tell the balance they led to, and
//! statements which entries were neighbours, so there is rarely more than one way on. What nobody
//! has seen an entry of is the exception: transactions of unknown outcome that no statement lists
//! may fill any gap, in any order, and so of their orders only one is tried.

use std::collections::{HashMap, HashSet, VecDeque};

/// So many of the newest entries a statement lists.
const LISTED_MAX: usize = 10;
/// Steps of the search before it gives up: so many transactions of unknown outcome may be combined in
/// as many ways as there are sets of them.
const STEPS_MAX: u64 = 1_000_000;

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A transaction that led to this balance.
    Done { change: i64, text: String, balance: i64 },
    /// A debit (its change is negative) that the limit did not allow.
    Refused { change: i64 },
    /// A transaction that took effect between its question and its event's end, or never.
    Unknown { change: i64, text: String },
    /// A statement; the newest first.
    Statement { total: i64, newest: Vec<(i64, String)> },
}

/// One event, with the times of its question and its answer on one clock. [`u64::MAX`]: no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub from: u64,
    pub to: u64,
    pub seen: Seen,
}

/// Looks for a sequence that explains all events of an account with this limit, which begins with a
/// balance of zero and no entry.
///
/// # Errors
/// If there is none, or none was found in [`STEPS_MAX`] steps: how far it got, and what could not
/// follow.
pub fn explain(limit: i64, mut events: Vec<Event>) -> Result<(), String> {
    assert!(events.iter().all(|event| event.from <= event.to), "an answer before its question");
    events.sort_by_key(|event| event.from);
    know_what_is_listed(&mut events);
    let neighbours = Neighbours::of(&events)?;
    Search::new(limit, &events, neighbours).run()
}

/// What a statement lists was done, before its answer, and led to a balance that it tells as well.
/// Only of texts that no two have.
fn know_what_is_listed(events: &mut [Event]) {
    let mut asked: HashMap<&(i64, String), usize> = HashMap::new();
    let all: Vec<(i64, String)> = events.iter().filter_map(|it| entry_of(&it.seen)).collect();
    all.iter().for_each(|it| *asked.entry(it).or_default() += 1);
    let mut listed: HashMap<(i64, String), (u64, i64)> = HashMap::new();
    for event in &*events {
        let Seen::Statement { total, newest } = &event.seen else { continue };
        let mut balance = *total;
        for entry in newest {
            if asked.get(entry) == Some(&1) {
                let (end, _) = listed.entry(entry.clone()).or_insert((event.to, balance));
                *end = event.to.min(*end);
            }
            balance -= entry.0;
        }
    }
    for event in events {
        let Seen::Unknown { change, text } = &event.seen else { continue };
        let Some((end, balance)) = listed.remove(&(*change, text.clone())) else { continue };
        event.to = event.to.min(end).max(event.from);
        event.seen = Seen::Done { change: *change, text: text.clone(), balance };
    }
}

fn entry_of(seen: &Seen) -> Option<(i64, String)> {
    match seen {
        Seen::Done { change, text, .. } | Seen::Unknown { change, text } => {
            Some((*change, text.clone()))
        }
        Seen::Refused { .. } | Seen::Statement { .. } => None,
    }
}

/// Which entries came just before and just behind which others, as far as statements tell: any
/// sequence that explains them has to keep to it. Only of entries whose text no other one has.
#[derive(Default)]
struct Neighbours {
    /// Before each: an entry, or nothing.
    before: HashMap<usize, Option<usize>>,
    behind: HashMap<usize, usize>,
}

impl Neighbours {
    fn of(events: &[Event]) -> Result<Neighbours, String> {
        let mut named: HashMap<(i64, &str), Vec<usize>> = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            if let Seen::Done { .. } | Seen::Unknown { .. } = event.seen {
                named.entry(change(&event.seen)).or_default().push(index);
            }
        }
        let only = |it: &(i64, String)| match named.get(&entry(it)).map(Vec::as_slice) {
            None => Err(format!("nobody asked for the entry {it:?}")),
            Some([index]) => Ok(Some(*index)),
            Some(_) => Ok(None),
        };
        let mut all = Neighbours::default();
        for event in events {
            let Seen::Statement { newest, .. } = &event.seen else { continue };
            let listed: Vec<Option<usize>> = newest.iter().map(only).collect::<Result<_, _>>()?;
            for pair in listed.windows(2) {
                if let [Some(newer), Some(older)] = *pair {
                    all.behind.insert(older, newer);
                    all.put_before(events, newer, Some(older))?;
                }
            }
            if let Some(Some(oldest)) = listed.last().filter(|_| listed.len() < LISTED_MAX) {
                all.put_before(events, *oldest, None)?;
            }
        }
        Ok(all)
    }

    fn put_before(
        &mut self,
        events: &[Event],
        newer: usize,
        older: Option<usize>,
    ) -> Result<(), String> {
        let known = *self.before.entry(newer).or_insert(older);
        let seen = |index: Option<usize>| index.map(|index| &events[index].seen);
        if known == older {
            return Ok(());
        }
        let newer = &events[newer].seen;
        Err(format!(
            "statements differ on what is before {newer:?}: {:?}, {:?}",
            seen(known),
            seen(older)
        ))
    }

    /// Whether an entry may follow this one.
    fn allow(&self, last: Option<usize>, next: usize) -> bool {
        let behind = last.and_then(|last| self.behind.get(&last));
        self.before.get(&next).is_none_or(|before| *before == last)
            && behind.is_none_or(|behind| *behind == next)
    }
}

/// A step that was taken, and those that could have been taken instead.
struct Step {
    took: usize,
    others: Vec<usize>,
    /// The latest question before it.
    latest_before: u64,
}

struct Search<'a> {
    limit: i64,
    events: &'a [Event],
    neighbours: Neighbours,
    taken: Vec<bool>,
    /// Every event before it is taken, or unknown.
    first: usize,
    /// Those of unknown outcome that are not taken.
    unknown: Vec<usize>,
    /// Known events that are not taken.
    left: usize,
    balance: i64,
    /// Entries in order: indices of events.
    entries: Vec<usize>,
    /// The latest question among those taken: no event may end before it.
    latest: u64,
    /// Sum of the marks of what is taken.
    mark: u128,
    /// States from which there is no way to the end.
    dead: HashSet<(u128, u128)>,
    steps: Vec<Step>,
}

impl<'a> Search<'a> {
    fn new(limit: i64, events: &'a [Event], neighbours: Neighbours) -> Search<'a> {
        let is_unknown = |index: &usize| matches!(events[*index].seen, Seen::Unknown { .. });
        let unknown: Vec<usize> = (0..events.len()).filter(is_unknown).collect();
        Search {
            limit,
            events,
            neighbours,
            taken: vec![false; events.len()],
            first: 0,
            left: events.len() - unknown.len(),
            unknown,
            balance: 0,
            entries: Vec::new(),
            latest: 0,
            mark: 0,
            dead: HashSet::new(),
            steps: Vec::new(),
        }
    }

    fn run(mut self) -> Result<(), String> {
        let (mut farthest, mut tried) = (String::from("nothing can be first"), 0);
        let mut fewest_left = usize::MAX;
        while self.left > 0 {
            tried += 1;
            if tried > STEPS_MAX {
                return Err(format!("undecided after {STEPS_MAX} steps; {farthest}"));
            }
            let mut ways = if self.dead.contains(&self.state()) { Vec::new() } else { self.ways() };
            if ways.is_empty() && self.left < fewest_left {
                fewest_left = self.left;
                farthest = self.describe();
            }
            // Back to the last step that could have been another one.
            while ways.is_empty() {
                self.dead.insert(self.state());
                let Some(step) = self.steps.pop() else {
                    return Err(farthest);
                };
                self.undo(&step);
                ways = step.others;
            }
            let took = ways.remove(0);
            let latest_before = self.latest;
            self.take(took);
            self.steps.push(Step { took, others: ways, latest_before });
        }
        Ok(())
    }

    /// The known events that may come next: no other one that is left ended before they began.
    fn minimal(&self) -> Vec<usize> {
        let mut first_end = u64::MAX;
        let mut found = Vec::new();
        for index in self.first..self.events.len() {
            let event = &self.events[index];
            if event.from > first_end {
                break;
            }
            if !self.taken[index] && !matches!(event.seen, Seen::Unknown { .. }) {
                first_end = first_end.min(event.to);
                found.push(index);
            }
        }
        found.retain(|index| self.events[*index].from <= first_end);
        found
    }

    /// What may come next and agrees with the state, the likeliest first.
    fn ways(&self) -> Vec<usize> {
        let minimal = self.minimal();
        let first_end = minimal.iter().map(|index| self.events[*index].to).min();
        let may_begin =
            |index: &&usize| first_end.is_none_or(|end| self.events[**index].from <= end);
        let mut ways: Vec<usize> = minimal.iter().copied().filter(|it| self.agrees(*it)).collect();
        // What changes nothing comes first, and may as well come now, unless it would be too late
        // for another one then.
        let changes_nothing = |index: &usize| {
            matches!(self.events[*index].seen, Seen::Refused { .. } | Seen::Statement { .. })
        };
        ways.sort_by_key(|index| !changes_nothing(index));
        if let Some(index) = ways.first().copied().filter(changes_nothing) {
            let closes = self.latest..self.events[index].from;
            if !self.unknown.iter().any(|it| closes.contains(&self.events[*it].to)) {
                return vec![index];
            }
        }
        let unknown = self.unknown.iter().filter(may_begin).filter(|it| self.agrees(**it));
        let mut unknown: Vec<usize> = unknown.copied().collect();
        unknown.retain(|it| !self.is_tried_before_the_last(*it));
        if !unknown.is_empty() && !self.can_hide() {
            unknown.clear();
        }
        // First those after which a known one could be next.
        unknown.sort_by_key(|it| {
            let after = self.balance + change(&self.events[*it].seen).0;
            let leads_on = |index: &usize| match &self.events[*index].seen {
                Seen::Done { change, balance, .. } => after + change == *balance,
                Seen::Statement { total, .. } => after == *total,
                _ => false,
            };
            !minimal.iter().any(leads_on)
        });
        ways.extend(unknown);
        ways
    }

    fn is_unknown(&self, index: usize) -> bool {
        matches!(self.events[index].seen, Seen::Unknown { .. })
    }

    /// Of two unknown ones in a row nobody sees the order, and if any order keeps to the limit the one
    /// does that begins with what adds more: the other one leads nowhere else.
    fn is_tried_before_the_last(&self, index: usize) -> bool {
        let Some(last) = self.steps.last().map(|step| step.took) else { return false };
        let is_first = |index: usize| (-change(&self.events[index].seen).0, index);
        self.is_unknown(last)
            && is_first(index) < is_first(last)
            && self.events[index].from <= self.events[last].to
    }

    /// Whether enough known entries can come before the next statement has to: none lists an unknown
    /// one.
    fn can_hide(&self) -> bool {
        let (mut end, mut known) = (u64::MAX, Vec::new());
        for index in self.first..self.events.len() {
            let event = &self.events[index];
            if event.from > end {
                break;
            }
            match event.seen {
                _ if self.taken[index] => {}
                Seen::Statement { .. } => end = end.min(event.to),
                Seen::Done { .. } => known.push(event.from),
                Seen::Refused { .. } | Seen::Unknown { .. } => {}
            }
        }
        // Without a statement everything can.
        end == u64::MAX || known.iter().filter(|from| **from <= end).count() >= LISTED_MAX
    }

    fn agrees(&self, index: usize) -> bool {
        let Event { from, to, seen } = &self.events[index];
        let after = |change: &i64| self.balance.checked_add(*change);
        let allows = |change: &i64| after(change).is_some_and(|after| after >= -self.limit);
        let follows = || self.neighbours.allow(self.entries.last().copied(), index);
        *to >= self.latest.max(*from)
            && match seen {
                Seen::Done { change, balance, .. } => {
                    allows(change) && after(change) == Some(*balance) && follows()
                }
                Seen::Refused { change } => !allows(change),
                Seen::Unknown { change, .. } => allows(change) && follows(),
                Seen::Statement { total, newest } => {
                    *total == self.balance && self.newest().eq(newest.iter().map(entry))
                }
            }
    }

    fn newest(&self) -> impl Iterator<Item = (i64, &str)> {
        self.entries.iter().rev().take(LISTED_MAX).map(|index| change(&self.events[*index].seen))
    }

    fn take(&mut self, index: usize) {
        let event = &self.events[index];
        self.taken[index] = true;
        self.latest = self.latest.max(event.from);
        self.mark = self.mark.wrapping_add(mark(index));
        if let Seen::Done { change, .. } | Seen::Unknown { change, .. } = event.seen {
            self.balance += change;
            self.entries.push(index);
        }
        if let Seen::Unknown { .. } = event.seen {
            self.unknown.retain(|it| *it != index);
        } else {
            self.left -= 1;
        }
        self.advance();
    }

    fn undo(&mut self, step: &Step) {
        let event = &self.events[step.took];
        self.taken[step.took] = false;
        self.latest = step.latest_before;
        self.mark = self.mark.wrapping_sub(mark(step.took));
        if let Seen::Done { change, .. } | Seen::Unknown { change, .. } = event.seen {
            self.balance -= change;
            self.entries.pop();
        }
        if let Seen::Unknown { .. } = event.seen {
            self.unknown.push(step.took);
        } else {
            self.left += 1;
        }
        self.first = self.first.min(step.took);
        self.advance();
    }

    fn advance(&mut self) {
        let is_past = |index: usize| {
            self.taken[index] || matches!(self.events[index].seen, Seen::Unknown { .. })
        };
        while self.first < self.events.len() && is_past(self.first) {
            self.first += 1;
        }
    }

    /// What the rest depends on: which events are taken, and the order of the newest of them.
    fn state(&self) -> (u128, u128) {
        let newest = self.entries.iter().rev().take(LISTED_MAX);
        // No statement tells one of these from another: none lists any.
        let seen = |index: usize| if self.is_unknown(index) { 1 } else { mark(index) };
        let order = newest.fold(0_u128, |sum, index| {
            sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(seen(*index))
        });
        (self.mark, order)
    }

    fn describe(&self) -> String {
        let before: VecDeque<String> =
            self.steps.iter().rev().take(5).map(|step| self.line(step.took)).collect();
        let before: String = before.into_iter().rev().collect();
        let next: String = self.minimal().into_iter().map(|index| self.line(index)).collect();
        let unknown: String = self.unknown.iter().map(|index| self.line(*index)).collect();
        let newest: Vec<_> = self.newest().collect();
        format!(
            "after {} of {} events:\n{before}the balance is {}, the newest are {newest:?}; \
             none of these can be next:\n{next}nor these, which may be left out:\n{unknown}",
            self.steps.len(),
            self.events.len(),
            self.balance,
        )
    }

    fn line(&self, index: usize) -> String {
        let Event { from, to, seen } = &self.events[index];
        format!("  {from}..{to} {seen:?}\n")
    }
}

fn entry(entry: &(i64, String)) -> (i64, &str) {
    (entry.0, &entry.1)
}

/// The entry that an event makes.
fn change(seen: &Seen) -> (i64, &str) {
    match seen {
        Seen::Done { change, text, .. } | Seen::Unknown { change, text } => (*change, text),
        Seen::Refused { .. } | Seen::Statement { .. } => unreachable!("it makes no entry"),
    }
}

/// A number of its own for each event, so that sums of them tell sets apart.
fn mark(index: usize) -> u128 {
    let mut random = super::system::Random(index as u64);
    u128::from(random.next()) << 64 | u128::from(random.next())
}
