//! Tests of the whole journal. The model is a plain map; a journal is right if, whatever happened
//! to it, it comes back as the model was after some prefix of the appends, and that prefix holds
//! everything that had been promised.

mod archive;
mod copy;
mod crashes;
mod damage;
mod entries;
mod figures;
mod follow;
mod ledger;
mod manifest;
mod merging;
mod names;
mod notes;
mod owner;
mod real;
mod room;
mod salvage;
mod version_5;

pub use real::temporary;

use super::identity::{Owner, Table};
use super::outstanding::Outstanding;
use super::recover::{self, Recovered, Replay};
use super::retained::{Retained, Retention};
use super::shelf::Shelf;
use super::simulated::{Random, Simulated};
use super::storage::Storage;
use super::volume::Volume;
use super::writer::Writer;
use super::{Durability, Found, JournalError, Options, Position};
use crate::base::clock::{Micros, Moment, Timestamp};
use crate::base::instance::Instance;
use crate::base::money::Cents;
use crate::ledger::{AccountId, Description, Entry, History, Key, Kind, Transaction};
use crate::payments::event::{Books, Event};
use crate::payments::names::Names;
use crate::payments::resolution::{Action, Resolution};
use crate::payments::{
    Attempt, Attempts, Each, Line, Payment, PaymentId, Processor, Rejection, Settlement, Window,
    each,
};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

const IDS_REMEMBERED: usize = 12;

/// Processors there may be, the contest's two the first.
const NAMES: [&str; Processor::MAX] = [
    "default",
    "fallback",
    "pix",
    "card",
    "boleto",
    "p-6",
    "p_7",
    "the-longest-name-of-32-letters-x",
];

/// The first so many of [`NAMES`].
fn names(count: usize) -> Names {
    Names::new(NAMES[..count].iter().map(|name| (*name).to_string()).collect()).unwrap()
}

/// An instance with the first so many processors.
fn owner_of(count: usize) -> Owner {
    let processors = NAMES[..count].iter().map(|name| ((*name).into(), format!("http://{name}")));
    let processors = Table::new(processors.collect()).unwrap();
    Owner { instance: Instance(1), is_paired: false, processors, are_of_file: true, terms: None }
}

fn options(segment_bytes: usize) -> Options {
    let fail = |what: &str| -> ! { resume_unwind(Box::new(what.to_string())) };
    let ids_remembered = IDS_REMEMBERED;
    let durability = Durability::Disk;
    let (outstanding_at_first, full_segments_kept) = (0, 0);
    Options {
        durability,
        ids_remembered,
        segment_bytes,
        outstanding_at_first,
        full_segments_kept,
        retention: Retention::of_events(0),
        keep_ms: None,
        fail,
    }
}

/// Runs something that may stop the journal, and returns the reason if it did.
fn stopped<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|reason| match reason.downcast::<String>() {
        Ok(reason) => *reason,
        // Not ours: a failed assertion.
        Err(other) => resume_unwind(other),
    })
}

/// A payment that is not over: amount, accepted at, and its open attempt.
type Open = (i64, i64, Option<(Processor, i64)>);

#[derive(Clone, Debug, Default)]
struct Model {
    open: BTreeMap<PaymentId, Open>,
    /// How often each of those was attempted.
    attempts: BTreeMap<PaymentId, Attempts>,
    settled: Each<(u64, i128)>,
    lines: BTreeMap<PaymentId, (Settlement, Attempts)>,
    ids: Vec<(PaymentId, Cents)>,
    adopted: Vec<(PaymentId, Cents)>,
    rejected: Vec<Rejection>,
    /// What was last decided by hand.
    resolved: BTreeMap<PaymentId, Action>,
    accounts: BTreeMap<AccountId, History>,
    keys: Vec<(Key, AccountId, Cents)>,
    /// How many processors there are more than two.
    others: isize,
}

/// Keys are forgotten with their segments, the oldest first.
impl PartialEq for Model {
    fn eq(&self, other: &Model) -> bool {
        let of_payments = |it: &Model| {
            let Model { open, attempts, settled, lines, ids, .. } = it.clone();
            let Model { adopted, rejected, resolved, .. } = it.clone();
            (open, attempts, settled, lines, ids, adopted, rejected, resolved)
        };
        let (keys, accounts) = (&self.keys, &self.accounts);
        of_payments(self) == of_payments(other)
            && *accounts == other.accounts
            && (keys.ends_with(&other.keys) || other.keys.ends_with(keys))
    }
}

fn rejection(id: PaymentId) -> Rejection {
    rejection_by(id, 2)
}

/// By so many processors.
fn rejection_by(id: PaymentId, count: usize) -> Rejection {
    let accepted_at = Timestamp((id.0 % 1_000) as i64 * 1_000);
    let mut statuses = each([422]);
    for (index, status) in statuses.iter_mut().enumerate().take(count).skip(1) {
        *status = (id.0 % 1_000) as u16 * index as u16;
    }
    Rejection { id, amount: Cents(7), statuses, accepted_at }
}

fn actions(books: &Books) -> BTreeMap<PaymentId, Action> {
    books.resolved.iter().map(|(id, resolution)| (*id, resolution.action)).collect()
}

/// What a journal is used for. One for payments and entries there is not, but it should work.
#[derive(Clone, Copy, Debug)]
enum Traffic {
    Payments,
    Entries,
    Both,
    /// Payments of which nearly all are adopted, or rejected.
    Notes,
    /// Payments of which many are rejected, and about which operators decide.
    ByHand,
}

impl Traffic {
    const ALL: [Traffic; 5] =
        [Traffic::Payments, Traffic::Entries, Traffic::Both, Traffic::Notes, Traffic::ByHand];
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Accept(PaymentId, i64, i64),
    Attempt(PaymentId, Processor, i64),
    Release(PaymentId),
    Settle(PaymentId),
    Foreign(PaymentId),
    Forward(PaymentId),
    Reject(PaymentId),
    Resolve(PaymentId, Action),
    Adopt(PaymentId, i64),
    Tell(PaymentId),
    Learn(PaymentId, i64),
    Enter(Entry),
    Purge,
}

impl Model {
    /// With so many processors.
    fn of_processors(count: usize) -> Model {
        Model { others: count as isize - 2, ..Model::default() }
    }

    fn processors(&self) -> usize {
        (self.others + 2) as usize
    }

    fn rejection(&self, id: PaymentId) -> Rejection {
        rejection_by(id, self.processors())
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Accept(id, cents, at) => {
                self.open.insert(id, (cents, at, None));
                self.attempts.insert(id, Attempts(0));
                self.know(id, cents);
            }
            Step::Learn(id, cents) => self.know(id, cents),
            Step::Attempt(id, processor, at) => {
                self.open.get_mut(&id).unwrap().2 = Some((processor, at));
                let attempts = self.attempts.get_mut(&id).unwrap();
                *attempts = attempts.and_one();
            }
            Step::Release(id) => self.open.get_mut(&id).unwrap().2 = None,
            Step::Settle(id) => {
                let (cents, _, attempt) = self.open.remove(&id).unwrap();
                let (processor, at) = attempt.unwrap();
                let settled = &mut self.settled[processor.index()];
                settled.0 += 1;
                settled.1 += i128::from(cents);
                let (amount, requested_at) = (Cents(cents), Timestamp(at));
                let attempts = self.attempts.remove(&id).unwrap();
                let settlement = Settlement { processor, amount, requested_at };
                self.lines.insert(id, (settlement, attempts));
            }
            Step::Foreign(id) | Step::Forward(id) => {
                self.open.remove(&id).unwrap();
                self.attempts.remove(&id);
            }
            Step::Reject(id) => {
                self.open.remove(&id).unwrap();
                self.attempts.remove(&id);
                self.rejected.push(self.rejection(id));
                self.rejected.sort_unstable_by_key(|it| it.id);
            }
            Step::Resolve(id, action) => {
                let resolution = self.resolution(id, action);
                let (amount, accepted_at) = (resolution.amount.0, resolution.accepted_at.0);
                self.rejected.retain(|it| !action.ends_rejection() || it.id != id);
                self.resolved.insert(id, action);
                match action {
                    Action::Retry => {
                        self.open.insert(id, (amount, accepted_at, None));
                        self.attempts.insert(id, Attempts(0));
                    }
                    Action::NotBooked { .. } => self.open.get_mut(&id).unwrap().2 = None,
                    Action::Settled { .. } | Action::Cancelled | Action::Elsewhere => {
                        self.open.remove(&id);
                        self.attempts.remove(&id);
                    }
                }
            }
            Step::Adopt(id, cents) => {
                self.adopted.push((id, Cents(cents)));
                self.adopted.sort_unstable();
            }
            Step::Tell(id) => self.adopted.retain(|(adopted, _)| *adopted != id),
            Step::Enter(entry) => {
                self.accounts.entry(entry.account).or_default().apply(&entry).unwrap();
                if entry.key != Key::NONE {
                    self.keys.push((entry.key, entry.account, entry.balance));
                }
            }
            Step::Purge => *self = Model::of_processors(self.processors()),
        }
    }

    fn resolution(&self, id: PaymentId, action: Action) -> Resolution {
        let open = self.open.get(&id).map(|(cents, at, _)| (Cents(*cents), Timestamp(*at)));
        let (amount, accepted_at) =
            open.unwrap_or((rejection(id).amount, rejection(id).accepted_at));
        let reason = "because ".repeat(1 + (id.0 >> 64) as usize % 31).into();
        let (at, by) = (Timestamp(9), "ana".into());
        Resolution { id, amount, accepted_at, action, at, by, reason }
    }

    /// Something that an operator may say of an open payment.
    fn any_decision(&self, random: &mut Random) -> Option<Step> {
        if !self.rejected.is_empty() && random.below(2) == 0 {
            let id = self.rejected[random.below(self.rejected.len())].id;
            let (processor, requested_at) = (self.any_processor(random.below(8)), Timestamp(3));
            let settled = Action::Settled { processor, requested_at };
            let action = [Action::Retry, Action::Elsewhere, Action::Cancelled, settled];
            return Some(Step::Resolve(id, action[random.below(4)]));
        }
        let (id, (_, _, attempt)) = self.open.iter().nth(random.below(self.open.len().max(1)))?;
        let action = attempt.map_or(Action::Cancelled, |(processor, at)| Action::NotBooked {
            processor,
            requested_at: Timestamp(at),
        });
        Some(Step::Resolve(*id, action))
    }

    fn any_processor(&self, choice: usize) -> Processor {
        Processor::new(choice % self.processors()).unwrap()
    }

    fn know(&mut self, id: PaymentId, cents: i64) {
        self.ids.push((id, Cents(cents)));
        if self.ids.len() > IDS_REMEMBERED {
            self.ids.remove(0);
        }
    }

    /// `None` if there is no room for it: then nothing was done.
    fn append(&self, step: Step, writer: &Writer) -> Option<Position> {
        let open = |id| self.open[&id];
        Some(match step {
            Step::Accept(id, cents, at) => {
                writer.append_accepted(id, Cents(cents), Timestamp(at)).expect("a new id")
            }
            Step::Attempt(id, processor, at) => {
                let (cents, accepted_at, _) = open(id);
                let (amount, accepted_at) = (Cents(cents), Timestamp(accepted_at));
                let payment = Payment {
                    id,
                    amount,
                    accepted: Moment(0),
                    accepted_at,
                    guest: false,
                    verify: false,
                };
                let requested_at = Timestamp(at);
                writer.append_attempted(&Attempt { payment, processor, requested_at })
            }
            Step::Release(id) => writer.append(&Event::Released { id }),
            Step::Settle(id) => {
                let (cents, _, attempt) = open(id);
                let (processor, at) = attempt.unwrap();
                let (amount, requested_at) = (Cents(cents), Timestamp(at));
                let settlement = Settlement { processor, amount, requested_at };
                writer.append(&Event::Settled { id, settlement, attempts: Attempts::default() })
            }
            Step::Foreign(id) => writer.append(&Event::Foreign { id }),
            Step::Forward(id) => {
                let amount = Cents(open(id).0);
                writer.append(&Event::Forwarded { id, amount, learned: false })
            }
            Step::Learn(id, cents) => {
                let learned = Event::Forwarded { id, amount: Cents(cents), learned: true };
                writer.append_all([learned].into_iter())?
            }
            Step::Reject(id) => writer.append(&Event::Rejected(self.rejection(id))),
            Step::Resolve(id, action) => {
                let resolution = Arc::new(self.resolution(id, action));
                writer.has_room_to_resolve().then(|| writer.append(&Event::Resolved(resolution)))?
            }
            Step::Adopt(id, cents) => {
                let adopted = Event::Adopted { id, amount: Cents(cents) };
                writer.append_all([adopted].into_iter())?
            }
            Step::Tell(id) => writer.append_all([Event::Told { id }].into_iter())?,
            Step::Enter(entry) => writer.append_entry(&entry),
            Step::Purge => writer.append_purged(),
        })
    }

    /// Something that may happen next, or nothing.
    fn any_step(&self, traffic: Traffic, random: &mut Random, clock: &mut i64) -> Option<Step> {
        *clock += random.below(3) as i64;
        let at = *clock;
        let enters = match traffic {
            Traffic::Payments | Traffic::Notes | Traffic::ByHand => false,
            Traffic::Entries => true,
            Traffic::Both => random.below(2) == 0,
        };
        if enters {
            return Some(Step::Enter(self.any_entry(random, at)));
        }
        let choice = match traffic {
            Traffic::Notes => match random.below(900) {
                0 => 99,
                other => [96, 98, 98, 29, 41, 41][other % 6],
            },
            Traffic::ByHand => match random.below(200) {
                0 => 99,
                other => [29, 41, 41, 44, 85, 85, 85, 90, 90][other % 9],
            },
            _ => random.below(100),
        };
        if choice < 30 {
            let id = PaymentId(u128::from(random.next()) << 64 | at as u128);
            return Some(Step::Accept(id, 1 + random.below(10_000) as i64, at));
        }
        if choice == 99 {
            return Some(Step::Purge);
        }
        if choice == 97 {
            let id = PaymentId(u128::from(random.next()) << 64 | at as u128);
            return Some(Step::Learn(id, 1 + random.below(10_000) as i64));
        }
        if choice == 96 && !self.adopted.is_empty() {
            return Some(Step::Tell(self.adopted[random.below(self.adopted.len())].0));
        }
        if choice == 98 {
            let id = PaymentId(u128::from(random.next()) << 64 | at as u128);
            return Some(Step::Adopt(id, 1 + random.below(10_000) as i64));
        }
        if matches!(traffic, Traffic::ByHand) && choice >= 80 {
            return self.any_decision(random);
        }
        let index = random.below(self.open.len());
        let (id, (_, _, attempt)) = self.open.iter().nth(index)?;
        Some(match (attempt, choice % 10) {
            (None, 0) => Step::Forward(*id),
            (None, 1) if random.below(3) == 0 => Step::Reject(*id),
            (None, _) => Step::Attempt(*id, self.any_processor(choice), at),
            (Some(_), 0) => Step::Foreign(*id),
            (Some(_), 1 | 2) => Step::Release(*id),
            (Some(_), _) => Step::Settle(*id),
        })
    }

    /// The next one of any account.
    fn any_entry(&self, random: &mut Random, at: i64) -> Entry {
        let account = AccountId(1 + random.below(7) as u64);
        let history = self.accounts.get(&account).cloned().unwrap_or_default();
        let kind = if random.below(2) == 0 { Kind::Credit } else { Kind::Debit };
        let text = "pão de 🧀!"[..].chars().take(1 + random.below(10));
        let description = Description::new(&String::from_iter(text)).unwrap();
        let value = Cents(1 + random.below(10_000) as i64);
        let transaction = Transaction { kind, value, description };
        let key = if random.below(2) == 0 { Key::NONE } else { Key(random.next().into()) };
        let balance = history.balance_after(&transaction).unwrap();
        let at = history.next_at(Micros(at));
        Entry { account, sequence: history.sequence + 1, transaction, balance, at, key }
    }

    fn of(replay: &Replay, storage: &dyn Storage) -> Model {
        let (waiting, doubts) = replay.outstanding();
        let model = Model {
            ids: replay.ids.iter().copied().collect(),
            accounts: replay.accounts.clone().into_iter().collect(),
            keys: replay.keys.iter().copied().collect(),
            adopted: replay.books.adopted.clone(),
            rejected: replay.books.rejected.clone(),
            resolved: actions(&replay.books),
            ..Model::default()
        };
        model.with(&waiting, &doubts).settled(&replay.payments, &replay.shelf, storage)
    }

    fn of_recovered(writer: &Writer, recovered: &Recovered) -> Model {
        let Recovered { waiting, doubts, ids, books, accounts, keys, .. } = recovered;
        let (adopted, rejected) = (books.adopted.clone(), books.rejected.clone());
        let (ids, keys, resolved) = (ids.clone(), keys.clone(), actions(books));
        let accounts = accounts.clone().into_iter().collect();
        Model { ids, adopted, rejected, resolved, accounts, keys, ..Model::default() }
            .with(waiting, doubts)
            .settled(&writer.payments(), &writer.shelf.lock().unwrap(), &*writer.storage)
    }

    fn with(self, waiting: &[Payment], doubts: &[Attempt]) -> Model {
        let waiting = waiting.iter().map(|it| (it.id, (it.amount.0, it.accepted_at.0, None)));
        let doubts = doubts.iter().map(|it| {
            let attempt = Some((it.processor, it.requested_at.0));
            (it.payment.id, (it.payment.amount.0, it.payment.accepted_at.0, attempt))
        });
        let open = waiting.chain(doubts).collect();
        let Model { mut adopted, mut rejected, .. } = self;
        // Those that were written again come last.
        adopted.sort_unstable();
        rejected.sort_unstable_by_key(|it| it.id);
        Model { open, adopted, rejected, ..self }
    }

    fn settled(mut self, payments: &Outstanding, shelf: &Shelf, storage: &dyn Storage) -> Model {
        let totals = shelf.read_totals(Window::default()).unwrap();
        self.settled = totals.map(|it| (it.count, it.amount.0));
        self.attempts = payments.iter().map(|(id, open)| (id, open.attempts)).collect();
        let line = |line: Line| (line.id.unwrap(), (line.settlement, line.attempts));
        let lines = shelf.lines(storage, &names_of(storage));
        self.lines = lines.into_iter().map(line).collect();
        self
    }
}

/// As a start reads it.
fn replay(storage: &dyn Storage, ids_remembered: usize) -> Result<Replay, JournalError> {
    Replay::new(storage, &names_of(storage), ids_remembered)
}

fn names_of(storage: &dyn Storage) -> Names {
    recover::read_names(storage).unwrap()
}

/// What the files mean, without changing them.
fn replayed(storage: &Simulated) -> Result<Model, JournalError> {
    let replay = replay(storage, IDS_REMEMBERED)?;
    Ok(Model::of(&replay, storage))
}

fn open(storage: &Simulated, options: Options) -> Result<(Writer, Recovered), JournalError> {
    recover::open(Arc::new(storage.clone()), options)
}

/// By an owner who has the first so many processors.
fn open_by(
    storage: &Simulated,
    options: Options,
    count: usize,
) -> Result<(Writer, Recovered), JournalError> {
    let mut found = Found::new(Arc::new(storage.clone()), options)?;
    found.claim(&owner_of(count), &[], Timestamp(0))?;
    assert_eq!(*found.names(), names(count));
    found.start()
}

/// What `galo journal check` says of one directory.
fn checked(path: &std::path::Path, out: &mut Vec<u8>) -> std::io::Result<bool> {
    super::check::run(path, None, out)
}
