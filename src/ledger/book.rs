//! Every account of this instance: check everything, then apply, in one synchronous step.
//!
//! One lock an account, held from the check to the entry, with no await in between: so the order in
//! the journal is the order of the commits, and a statement is one moment. A transaction that was
//! passed on by the other instance has a key; what came of it is remembered until it expires, so
//! that it can be asked for again and never happens twice.

use super::accounts::Limits;
use super::{AccountId, Entry, History, Key, Kind, Transaction};
use crate::base::clock::{Micros, Moment};
use crate::base::money::Cents;
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Keys remembered at most. They expire within a quarter of a second, so this is a rate of 250,000
/// transactions passed on in a second; beyond it they are turned away.
pub const KEYS_MAX: usize = 65_536;
/// No ticket is good for longer: one that says so comes from a clock that is not ours, and would hold
/// its place, and those of all behind it, for as long as it says.
const TICKET_MAX: Duration = Duration::from_secs(1);
/// For so long the keys that were found in the journal are remembered after a start.
const RECOVERED_KEYS_FOR: Duration = Duration::from_secs(1);

/// What came of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done {
        limit: Cents,
        balance: Cents,
    },
    /// A debit that would take the balance below minus the limit. Nothing was changed.
    BelowLimit,
    /// A credit that would take it beyond 64 bits. Nothing was changed.
    OutOfRange,
    /// There is no such account.
    Unknown,
    /// Passed on too late (whoever did so has given it up), or by another clock. Nothing was done
    /// now.
    Expired,
    /// Too many were passed on at once. Nothing was done.
    Busy,
    /// There is no room on the disk. Nothing was done.
    DiskFull,
    /// The instance is starting or stopping. Nothing was done.
    Closed,
}

/// What a transaction that is passed on carries with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub key: Key,
    /// From then on it is not carried out any more.
    pub expires: Moment,
}

/// The accounts that have any entry.
pub type Histories = HashMap<AccountId, History, RandomState>;

/// What a journal held.
#[derive(Debug, Default)]
pub struct Past {
    pub histories: Histories,
    /// Of the newest transactions that were passed on, with the balance behind each.
    pub keys: Vec<(Key, AccountId, Cents)>,
}

/// See the module.
pub struct Ledger {
    accounts: HashMap<AccountId, Mutex<Account>, RandomState>,
    keys: Mutex<Keys>,
}

struct Account {
    limit: Cents,
    history: History,
}

#[derive(Default)]
struct Keys {
    outcomes: HashMap<Key, Outcome, RandomState>,
    /// In the order in which they came, with the time from which each may be forgotten.
    order: VecDeque<(Key, Moment)>,
    /// The latest time they were looked at. A thread may come with an earlier one, taken before it
    /// was held up; by that, a key that is forgotten already would not have expired yet.
    now: Moment,
    /// Those of the process before this one. They take no room from the others.
    recovered: HashMap<Key, Outcome, RandomState>,
    recovered_until: Moment,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// `is_home` says which accounts are kept here.
    ///
    /// # Errors
    /// If the accounts do not fit to what the journal holds, in one line.
    pub fn new(
        limits: &Limits,
        past: Past,
        now: Moment,
        is_home: impl Fn(AccountId) -> bool,
    ) -> Result<Ledger, String> {
        let Past { mut histories, keys } = past;
        let mut accounts = HashMap::with_capacity_and_hasher(limits.len(), RandomState::default());
        for (id, limit) in limits {
            let history = histories.remove(id).unwrap_or_default();
            let (balance, limit) = (history.balance, *limit);
            let id = *id;
            if history.sequence > 0 && !is_home(id) {
                return Err(format!(
                    "the journal has entries of account {}, whose home is the other --instance",
                    id.0
                ));
            }
            if balance.0 < -limit.0 {
                return Err(format!(
                    "account {} stands at {}, which its limit of {} does not allow",
                    id.0, balance.0, limit.0
                ));
            }
            accounts.insert(id, Mutex::new(Account { limit, history }));
        }
        if let Some(id) = histories.keys().next() {
            return Err(format!(
                "the journal has entries of account {}, which is not among the accounts",
                id.0
            ));
        }
        let recovered = keys.into_iter().filter_map(|(key, id, balance)| {
            let outcome = Outcome::Done { limit: locked(accounts.get(&id)?).limit, balance };
            Some((key, outcome))
        });
        let keys = Keys {
            recovered: recovered.collect(),
            recovered_until: now + RECOVERED_KEYS_FOR,
            ..Keys::default()
        };
        Ok(Ledger { accounts, keys: Mutex::new(keys) })
    }

    pub fn has(&self, id: AccountId) -> bool {
        self.accounts.contains_key(&id)
    }

    /// Carries a transaction out, if it may be. `append` is given the entry before anything is
    /// changed; if it answers false there is no room on the disk. `now` is read when it is this
    /// transaction's turn: whoever sees the account after a ticket has expired sees it final.
    pub fn transact(
        &self,
        id: AccountId,
        transaction: Transaction,
        ticket: Option<Ticket>,
        now: impl FnOnce() -> (Micros, Moment),
        append: impl FnOnce(&Entry) -> bool,
    ) -> Outcome {
        let Some(account) = self.accounts.get(&id) else {
            return Outcome::Unknown;
        };
        let account = &mut *locked(account);
        let now = now();
        if let Some(ticket) = ticket {
            // A key goes with one account, whose lock we hold: nobody is carrying it out meanwhile.
            if let Some(outcome) = locked(&self.keys).look_up(ticket, now.1) {
                return outcome;
            }
        }
        let key = ticket.map_or(Key::NONE, |ticket| ticket.key);
        let outcome = account.transact(id, transaction, key, now.0, append);
        if let Some(Ticket { key, expires }) = ticket
            && outcome != Outcome::DiskFull
        {
            locked(&self.keys).remember(key, expires, outcome);
        }
        outcome
    }

    /// What came of a transaction that the process before this one was asked for; it is not
    /// carried out now. [`Outcome::Expired`] if nothing did.
    pub fn recall(&self, key: Key, now: Moment) -> Outcome {
        let keys = &mut *locked(&self.keys);
        keys.forget(now);
        keys.recovered.get(&key).copied().unwrap_or(Outcome::Expired)
    }

    /// Shows one moment of an account: its limit and its history.
    pub fn show<T>(&self, id: AccountId, show: impl FnOnce(Cents, &History) -> T) -> Option<T> {
        let account = locked(self.accounts.get(&id)?);
        Some(show(account.limit, &account.history))
    }
}

impl Account {
    fn transact(
        &mut self,
        id: AccountId,
        transaction: Transaction,
        key: Key,
        now: Micros,
        append: impl FnOnce(&Entry) -> bool,
    ) -> Outcome {
        let history = &mut self.history;
        let Some(balance) = history.balance_after(&transaction) else {
            return match transaction.kind {
                Kind::Credit => Outcome::OutOfRange,
                Kind::Debit => Outcome::BelowLimit,
            };
        };
        if transaction.kind == Kind::Debit && balance.0 < -self.limit.0 {
            return Outcome::BelowLimit;
        }
        let (sequence, at) = (history.sequence + 1, history.next_at(now));
        let entry = Entry { account: id, sequence, transaction, balance, at, key };
        if !append(&entry) {
            return Outcome::DiskFull;
        }
        // It was made to follow.
        let applied = history.apply(&entry);
        assert_eq!(applied, Ok(()), "it is written down already");
        Outcome::Done { limit: self.limit, balance }
    }
}

impl Keys {
    fn forget(&mut self, now: Moment) {
        self.now = self.now.max(now);
        while let Some((key, expires)) = self.order.front()
            && *expires < self.now
        {
            self.outcomes.remove(key);
            self.order.pop_front();
        }
        if self.recovered_until < self.now {
            self.recovered = HashMap::default();
        }
    }

    /// What is to be answered without carrying anything out.
    fn look_up(&mut self, ticket: Ticket, now: Moment) -> Option<Outcome> {
        self.forget(now);
        match self.outcomes.get(&ticket.key) {
            Some(outcome) => Some(*outcome),
            None if self.now >= ticket.expires || ticket.expires > self.now + TICKET_MAX => {
                Some(Outcome::Expired)
            }
            None if self.order.len() >= KEYS_MAX => Some(Outcome::Busy),
            None => None,
        }
    }

    fn remember(&mut self, key: Key, expires: Moment, outcome: Outcome) {
        self.outcomes.insert(key, outcome);
        self.order.push_back((key, expires));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Description, NEWEST_MAX};
    use super::*;
    use proptest::prelude::*;

    const ID: AccountId = AccountId(7);
    const EARLY: (Micros, Moment) = (Micros(1_000), Moment(1_000));

    fn ledger(limit: i64) -> Ledger {
        let limits = [(ID, Cents(limit))].into();
        Ledger::new(&limits, Past::default(), Moment(0), |_| true).unwrap()
    }

    fn transaction(kind: Kind, value: i64) -> Transaction {
        let description = Description::new("a").unwrap();
        Transaction { kind, value: Cents(value), description }
    }

    fn transact(ledger: &Ledger, kind: Kind, value: i64) -> Outcome {
        ledger.transact(ID, transaction(kind, value), None, || EARLY, |_| true)
    }

    fn done(limit: i64, balance: i64) -> Outcome {
        Outcome::Done { limit: Cents(limit), balance: Cents(balance) }
    }

    fn history(ledger: &Ledger) -> History {
        ledger.show(ID, |_, history| history.clone()).unwrap()
    }

    #[test]
    fn a_debit_may_reach_the_limit_and_not_pass_it() {
        let ledger = ledger(100);
        assert_eq!(transact(&ledger, Kind::Debit, 101), Outcome::BelowLimit);
        assert_eq!(transact(&ledger, Kind::Debit, 100), done(100, -100));
        assert_eq!(transact(&ledger, Kind::Debit, 1), Outcome::BelowLimit);
        assert_eq!(transact(&ledger, Kind::Credit, 1), done(100, -99));
        assert_eq!(history(&ledger).sequence, 2);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let ledger = ledger(i64::MAX);
        assert_eq!(transact(&ledger, Kind::Credit, i64::MAX), done(i64::MAX, i64::MAX));
        assert_eq!(transact(&ledger, Kind::Credit, 1), Outcome::OutOfRange);
        assert_eq!(transact(&ledger, Kind::Debit, i64::MAX), done(i64::MAX, 0));
        assert_eq!(transact(&ledger, Kind::Debit, i64::MAX), done(i64::MAX, -i64::MAX));
        assert_eq!(transact(&ledger, Kind::Debit, i64::MAX), Outcome::BelowLimit);
        assert_eq!(history(&ledger).balance, Cents(-i64::MAX));
    }

    #[test]
    fn without_room_for_the_entry_nothing_is_changed() {
        let ledger = ledger(100);
        let full = ledger.transact(ID, transaction(Kind::Credit, 1), None, || EARLY, |_| false);
        assert_eq!(full, Outcome::DiskFull);
        assert_eq!(history(&ledger), History::default());
    }

    #[test]
    fn the_newest_ten_are_kept_in_the_order_of_their_commits() {
        let ledger = ledger(0);
        for value in 1..=11 {
            transact(&ledger, Kind::Credit, value);
        }
        let history = history(&ledger);
        assert_eq!((history.balance, history.sequence), (Cents(66), 11));
        let values: Vec<i64> = history.newest.iter().map(|(it, _)| it.value.0).collect();
        assert_eq!(values, [11, 10, 9, 8, 7, 6, 5, 4, 3, 2]);
        assert_eq!(values.len(), NEWEST_MAX);
        let times: Vec<Micros> = history.newest.iter().map(|(_, at)| *at).collect();
        assert!(times.is_sorted_by(|newer, older| newer > older), "though the clock stood still");
    }

    #[test]
    fn a_key_is_carried_out_once() {
        let ledger = ledger(100);
        let ask = |kind, value, key, now| {
            let ticket = Ticket { key: Key(key), expires: Moment(5_000) };
            let now = (Micros(0), Moment(now));
            ledger.transact(ID, transaction(kind, value), Some(ticket), || now, |_| true)
        };
        assert_eq!(ask(Kind::Debit, 60, 1, 0), done(100, -60));
        assert_eq!(ask(Kind::Debit, 60, 1, 1), done(100, -60));
        assert_eq!(ask(Kind::Debit, 60, 2, 2), Outcome::BelowLimit);
        transact(&ledger, Kind::Credit, 1_000);
        // A refusal that was given stays one, though it would be allowed by now.
        assert_eq!(ask(Kind::Debit, 60, 2, 3), Outcome::BelowLimit);
        assert_eq!(ask(Kind::Debit, 60, 1, 5_000), done(100, -60));
        assert_eq!(ask(Kind::Debit, 60, 3, 5_000), Outcome::Expired);
        assert_eq!(ask(Kind::Debit, 60, 1, 5_001), Outcome::Expired, "forgotten, and too late");
        assert_eq!(history(&ledger).balance, Cents(940));
        assert!(locked(&ledger.keys).order.is_empty());
    }

    #[test]
    fn a_ticket_that_never_ends_is_not_taken() {
        let ledger = ledger(0);
        let ticket = Ticket { key: Key(1), expires: Moment(u64::MAX) };
        let outcome =
            ledger.transact(ID, transaction(Kind::Credit, 1), Some(ticket), || EARLY, |_| true);
        assert_eq!(outcome, Outcome::Expired);
        assert!(locked(&ledger.keys).order.is_empty());
    }

    #[test]
    fn too_many_keys_at_once_are_turned_away() {
        let ledger = ledger(0);
        let ask = |key: usize, now| {
            let ticket = Ticket { key: Key(1 + key as u128), expires: Moment(now + 10) };
            let now = (Micros(0), Moment(now));
            ledger.transact(ID, transaction(Kind::Credit, 1), Some(ticket), || now, |_| true)
        };
        for key in 0..KEYS_MAX {
            assert_eq!(ask(key, 0), done(0, 1 + key as i64));
        }
        assert_eq!(ask(KEYS_MAX, 0), Outcome::Busy);
        assert_eq!(ask(0, 0), done(0, 1), "known ones are answered");
        assert_eq!(ask(KEYS_MAX, 11), done(0, 1 + KEYS_MAX as i64));
    }

    #[test]
    fn a_past_that_does_not_fit_is_refused() {
        let other = AccountId(8);
        let start = |id: AccountId, balance: i64, limit: i64| {
            let history = History { balance: Cents(balance), sequence: 1, ..History::default() };
            let histories = [(id, history)].into_iter().collect();
            let past = Past { histories, keys: vec![(Key(5), id, Cents(balance))] };
            let limits = [(ID, Cents(limit)), (other, Cents(0))].into();
            Ledger::new(&limits, past, Moment(0), |id| id == ID)
        };
        let error = |result: Result<Ledger, String>| result.err().unwrap();
        assert!(error(start(AccountId(9), 0, 0)).contains("account 9, which is not among"));
        assert!(error(start(other, 0, 0)).contains("account 8, whose home is the other"));
        assert!(error(start(ID, -101, 100)).contains("account 7 stands at -101"));
        let ledger = start(ID, -100, 100).unwrap();
        assert_eq!(ledger.recall(Key(5), Moment(9)), done(100, -100), "known after a start");
        assert_eq!(ledger.recall(Key(6), Moment(9)), Outcome::Expired);
        let later = Moment(0) + RECOVERED_KEYS_FOR;
        assert_eq!(ledger.recall(Key(5), later + Duration::from_micros(1)), Outcome::Expired);
        assert!(locked(&ledger.keys).recovered.is_empty());
    }

    #[test]
    fn a_thread_held_up_does_not_carry_out_what_others_have_forgotten() {
        let ledger = ledger(0);
        let ask = |key, expires, now| {
            let ticket = Ticket { key: Key(key), expires: Moment(expires) };
            let now = (Micros(0), Moment(now));
            ledger.transact(ID, transaction(Kind::Credit, 1), Some(ticket), || now, |_| true)
        };
        assert_eq!(ask(1, 5_000, 0), done(0, 1));
        assert_eq!(ask(2, 9_000, 5_001), done(0, 2), "by now the first one is forgotten");
        // Asked for again in time, and then its thread stood still.
        assert_eq!(ask(1, 5_000, 4_999), Outcome::Expired);
        assert_eq!(history(&ledger).balance, Cents(2));
    }

    #[test]
    fn the_time_is_read_when_nobody_else_sees_the_account() {
        let ledger = ledger(0);
        let now = || {
            assert!(ledger.accounts[&ID].try_lock().is_err());
            EARLY
        };
        let outcome = ledger.transact(ID, transaction(Kind::Credit, 1), None, now, |_| true);
        assert_eq!(outcome, done(0, 1));
    }

    #[test]
    fn the_keys_of_the_process_before_take_no_room() {
        let keys = (1..=KEYS_MAX).map(|key| (Key(key as u128), ID, Cents(0))).collect();
        let past = Past { keys, ..Past::default() };
        let limits = [(ID, Cents(0))].into();
        let ledger = Ledger::new(&limits, past, Moment(0), |_| true).unwrap();
        let ticket = Ticket { key: Key(u128::MAX), expires: Moment(5_000) };
        let outcome =
            ledger.transact(ID, transaction(Kind::Credit, 1), Some(ticket), || EARLY, |_| true);
        assert_eq!(outcome, done(0, 1));
    }

    proptest! {
        #[test]
        fn a_balance_is_the_sum_of_its_entries(limit in 0..1_000_i64, steps: Vec<(bool, u8)>) {
            let ledger = ledger(limit);
            let (mut sum, mut entries) = (0, Vec::new());
            for (credit, value) in steps {
                let value = 1 + i64::from(value);
                let kind = if credit { Kind::Credit } else { Kind::Debit };
                let asked = transaction(kind, value);
                let outcome = ledger.transact(ID, asked, None, || EARLY, |entry| {
                    entries.push(*entry);
                    true
                });
                let after = if credit { sum + value } else { sum - value };
                if after >= -limit {
                    sum = after;
                    prop_assert_eq!(outcome, done(limit, sum));
                } else {
                    prop_assert_eq!(outcome, Outcome::BelowLimit);
                }
            }
            let mut replayed = History::default();
            for entry in entries {
                prop_assert_eq!(replayed.apply(&entry), Ok(()));
            }
            prop_assert_eq!(history(&ledger), replayed);
        }
    }
}
