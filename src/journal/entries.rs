//! The entries of a ledger, each once, from wherever they are: segments that are kept (`retained.rs`),
//! the newest of each account in a file of accounts, and the segments that are not rewritten yet.
//!
//! Pure. The invariant: of each account the entries are told in their order, none twice and none that
//! does not come of those before it; and for each account it is said from which one on all are told.

use crate::base::clock::Micros;
use crate::base::money::Cents;
use crate::ledger::{AccountId, Entry, History, Key, Kind, Transaction};
use std::collections::HashMap;

/// From which entry on all of an account's are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// One behind the last if none is.
    pub sequence: u64,
    /// `None` if none is.
    pub at: Option<Micros>,
}

/// One account, while its entries are gathered.
struct Account {
    /// The number of its last entry that is to be told.
    last: u64,
    /// The next one is this, and before it the balance is that.
    next: u64,
    balance: Cents,
    since: Since,
    /// Those of the file of accounts that were not told yet, the oldest first.
    listed: Vec<Entry>,
}

/// See the module.
pub struct Gathering {
    accounts: HashMap<AccountId, Account>,
}

impl Gathering {
    /// `listed`: what the file of accounts says of each. `last`: the number of each account's last entry
    /// that is to be told.
    pub fn new<'a>(
        last: impl IntoIterator<Item = (AccountId, u64)>,
        listed: impl IntoIterator<Item = (&'a AccountId, &'a History)>,
    ) -> Gathering {
        let account = |(id, last): (AccountId, u64)| {
            let since = Since { sequence: 1, at: None };
            (id, Account { last, next: 1, balance: Cents(0), since, listed: Vec::new() })
        };
        let mut accounts: HashMap<_, _> = last.into_iter().map(account).collect();
        for (id, history) in listed {
            if let Some(account) = accounts.get_mut(id) {
                account.listed = newest_of(*id, history);
            }
        }
        Gathering { accounts }
    }

    /// An entry that is in a segment: these are to be told now. None if it was told before, or is of
    /// after what is to be told.
    ///
    /// # Errors
    /// If it does not come of the one before it.
    pub fn take(&mut self, entry: &Entry) -> Result<Vec<Entry>, &'static str> {
        let Some(account) = self.accounts.get_mut(&entry.account) else { return Ok(Vec::new()) };
        if entry.sequence < account.next || entry.sequence > account.last {
            return Ok(Vec::new());
        }
        let before = account.listed.iter().take_while(|it| it.sequence < entry.sequence).count();
        let mut told: Vec<Entry> = account.listed.drain(..before).collect();
        told.retain(|it| it.sequence >= account.next);
        told.push(*entry);
        told.iter().try_for_each(|it| account.follow(it))?;
        Ok(told)
    }

    /// When all segments were gone through: what none of them has of this account, and from where on
    /// all of it is told.
    ///
    /// # Errors
    /// If an entry does not come of the one before it.
    pub fn rest(&mut self, id: AccountId) -> Result<(Vec<Entry>, Since), &'static str> {
        let Some(mut account) = self.accounts.remove(&id) else {
            return Ok((Vec::new(), Since { sequence: 1, at: None }));
        };
        let mut told = std::mem::take(&mut account.listed);
        told.retain(|it| it.sequence >= account.next && it.sequence <= account.last);
        told.iter().try_for_each(|it| account.follow(it))?;
        let is_to_its_end = account.next == account.last + 1;
        let none = Since { sequence: account.last + 1, at: None };
        Ok((told, if is_to_its_end { account.since } else { none }))
    }
}

impl Account {
    fn follow(&mut self, entry: &Entry) -> Result<(), &'static str> {
        let before = balance_before(entry);
        if entry.sequence == self.next && before != Some(self.balance) {
            return Err("an entry whose balance is not the sum of its account's entries");
        }
        if entry.sequence != self.next || self.since.at.is_none() {
            self.since = Since { sequence: entry.sequence, at: Some(entry.at) };
        }
        (self.next, self.balance) = (entry.sequence + 1, entry.balance);
        Ok(())
    }
}

fn balance_before(entry: &Entry) -> Option<Cents> {
    let Transaction { kind, value, .. } = entry.transaction;
    match kind {
        Kind::Credit => entry.balance.0.checked_sub(value.0),
        Kind::Debit => entry.balance.0.checked_add(value.0),
    }
    .map(Cents)
}

/// The newest entries of an account, the oldest of them first. Nobody knows their keys any more.
fn newest_of(account: AccountId, history: &History) -> Vec<Entry> {
    let (mut balance, mut sequence) = (Some(history.balance), history.sequence);
    let mut entries = Vec::with_capacity(history.newest.len());
    for (transaction, at) in &history.newest {
        // What does not fit into 64 bits was never an entry.
        let Some(behind) = balance else { break };
        let (transaction, at) = (*transaction, *at);
        let entry = Entry { account, sequence, transaction, balance: behind, at, key: Key::NONE };
        balance = balance_before(&entry);
        entries.push(entry);
        sequence = sequence.saturating_sub(1);
    }
    entries.reverse();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Description;

    fn all(count: u64) -> Vec<Entry> {
        let description = Description::new("x").unwrap();
        let entry = |sequence: u64| {
            let (account, value) = (AccountId(1), Cents(sequence as i64));
            let transaction = Transaction { kind: Kind::Credit, value, description };
            let balance = Cents((sequence * (sequence + 1) / 2) as i64);
            let at = Micros(sequence as i64 * 1_000);
            Entry { account, sequence, transaction, balance, at, key: Key::NONE }
        };
        (1..=count).map(entry).collect()
    }

    fn history_of(entries: &[Entry]) -> History {
        let mut history = History::default();
        entries.iter().for_each(|entry| history.apply(entry).unwrap());
        history
    }

    /// The accounts are of behind so many entries, of which the first are gone; those of segments come
    /// twice, and so do some that are of after what is asked for.
    #[test]
    fn each_is_told_once_and_it_is_said_from_where_on_all_are() {
        let entries = all(40);
        for listed in 0..=30 {
            for gone in 0..=listed {
                let history = history_of(&entries[..listed]);
                let id = AccountId(1);
                let mut gathering = Gathering::new([(id, 35)], [(&id, &history)]);
                let mut told = Vec::new();
                for entry in entries[gone..].iter().chain(&entries[gone..20.max(gone)]) {
                    told.extend(gathering.take(entry).unwrap());
                }
                let (rest, since) = gathering.rest(id).unwrap();
                told.extend(rest);
                let first = gone.min(listed.saturating_sub(10));
                assert_eq!(told, entries[first..35], "{listed} {gone}");
                let at = Some(entries[first].at);
                assert_eq!(since, Since { sequence: first as u64 + 1, at });
            }
        }
    }

    #[test]
    fn what_lies_between_is_missed_and_what_is_missing_at_the_end_too() {
        let (entries, id) = (all(30), AccountId(1));
        let gather = |from: &[Entry], last| {
            let mut gathering = Gathering::new([(id, last)], None);
            let told: Vec<_> = from.iter().flat_map(|it| gathering.take(it).unwrap()).collect();
            assert_eq!(told, from);
            gathering.rest(id).unwrap().1.sequence
        };
        let parts = [&entries[..5], &entries[9..20]].concat();
        assert_eq!(gather(&parts, 20), 10);
        assert_eq!(gather(&parts, 21), 22, "the last is missing");
        assert_eq!(gather(&[], 3), 4);
    }

    #[test]
    fn an_entry_that_is_not_the_sum_is_refused() {
        let (mut entries, id) = (all(3), AccountId(1));
        entries[1].balance = Cents(4);
        let mut gathering = Gathering::new([(id, 3)], None);
        gathering.take(&entries[0]).unwrap();
        assert!(gathering.take(&entries[1]).unwrap_err().contains("is not the sum"));
        // Of an account that nobody asks for.
        assert_eq!(Gathering::new([], None).take(&entries[0]), Ok(Vec::new()));
    }
}
