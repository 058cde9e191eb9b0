//! The entries of a ledger that has lost some: each account's are numbered anew without gaps, and
//! what is lost is stood for by an entry of its own, so that every balance that is known comes out
//! as it was.
//!
//! Pure. The invariant: of each account the entries handed on follow each other
//! ([`crate::ledger::History::apply`]), and behind one that was found the balance is what it says.

use crate::base::clock::Micros;
use crate::base::money::Cents;
use crate::journal::accounts::Accounts;
use crate::ledger::{AccountId, Description, Entry, History, Key, Kind, Transaction};
use foldhash::quality::RandomState;
use hashbrown::HashMap;

/// What an entry is called that stands for lost ones.
pub const DESCRIPTION: &str = "salvaged";

/// See the module.
#[derive(Debug, Default)]
pub struct Bridge {
    accounts: HashMap<AccountId, Seen, RandomState>,
}

/// The last entry of an account so far.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Its number in what was found …
    found: u64,
    /// … and in what is handed on.
    handed_on: u64,
    balance: Cents,
}

/// Entries of an account that are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    pub account: AccountId,
    /// The numbers of the first and the last of them.
    pub first: u64,
    pub last: u64,
    /// What they come to, in cents.
    pub sum: i128,
}

impl Bridge {
    /// Goes on from these histories.
    pub fn begin(&mut self, accounts: &Accounts) {
        let seen = |history: &History| Seen {
            found: history.sequence,
            handed_on: history.sequence,
            balance: history.balance,
        };
        self.accounts = accounts.iter().map(|(id, history)| (*id, seen(history))).collect();
    }

    /// Replaces the contents of `into` by what is to be written for an entry that was found. Returns
    /// what is missing before it, if anything is.
    ///
    /// # Errors
    /// If it cannot be: it is to be left out.
    pub fn take(
        &mut self,
        entry: &Entry,
        into: &mut Vec<Entry>,
    ) -> Result<Option<Gap>, &'static str> {
        into.clear();
        let seen = self.accounts.get(&entry.account).copied().unwrap_or_default();
        if entry.sequence <= seen.found {
            return Err("an entry of a number that was there before");
        }
        let Transaction { kind, value, .. } = entry.transaction;
        let before = match kind {
            Kind::Credit => entry.balance.0.checked_sub(value.0),
            Kind::Debit => entry.balance.0.checked_add(value.0),
        };
        let before = before.ok_or("an entry whose balance cannot be")?;
        let sum = i128::from(before) - i128::from(seen.balance.0);
        let Seen { mut handed_on, mut balance, .. } = seen;
        let mut left = sum;
        while left != 0 {
            // A value is a positive number of 64 bits, and the sum may need one bit more.
            let step = left.clamp(-i128::from(i64::MAX), i128::from(i64::MAX)) as i64;
            left -= i128::from(step);
            balance = Cents(balance.0 + step);
            handed_on += 1;
            into.push(stand_in(entry, handed_on, step, balance)?);
        }
        handed_on += 1;
        into.push(Entry { sequence: handed_on, ..*entry });
        let is_next = entry.sequence == seen.found + 1 && sum == 0;
        let gap =
            Gap { account: entry.account, first: seen.found + 1, last: entry.sequence - 1, sum };
        let seen = Seen { found: entry.sequence, handed_on, balance: entry.balance };
        self.accounts.insert(entry.account, seen);
        Ok((!is_next).then_some(gap))
    }
}

/// The entry that stands for lost ones before this one.
fn stand_in(
    before: &Entry,
    sequence: u64,
    step: i64,
    balance: Cents,
) -> Result<Entry, &'static str> {
    let kind = if step > 0 { Kind::Credit } else { Kind::Debit };
    let value = step.checked_abs().map(Cents).ok_or("an entry whose balance cannot be")?;
    let description = Description::new(DESCRIPTION).ok_or("a description that is too long")?;
    Ok(Entry {
        account: before.account,
        sequence,
        transaction: Transaction { kind, value, description },
        balance,
        // Later than those before the lost ones, which had times of their own.
        at: Micros(before.at.0.saturating_sub(1)),
        key: Key::NONE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(sequence: u64, step: i64, balance: i64) -> Entry {
        let kind = if step > 0 { Kind::Credit } else { Kind::Debit };
        let description = Description::new("x").unwrap();
        let transaction = Transaction { kind, value: Cents(step.abs()), description };
        let (account, balance) = (AccountId(1), Cents(balance));
        Entry { account, sequence, transaction, balance, at: Micros(9), key: Key::NONE }
    }

    /// Hands everything on that is kept, and returns what an account comes to, and what was missing.
    fn play(entries: &[Entry]) -> (History, Vec<Gap>) {
        let (mut bridge, mut history, mut gaps) = (Bridge::default(), History::default(), vec![]);
        let mut handed_on = Vec::new();
        for entry in entries {
            gaps.extend(bridge.take(entry, &mut handed_on).unwrap());
            handed_on.iter().for_each(|entry| history.apply(entry).unwrap());
            assert_eq!(history.balance, entry.balance);
        }
        (history, gaps)
    }

    #[test]
    fn what_is_whole_is_handed_on_as_it_is() {
        let (history, gaps) = play(&[entry(1, 5, 5), entry(2, -7, -2), entry(3, 2, 0)]);
        assert_eq!((history.sequence, gaps), (3, vec![]));
    }

    #[test]
    fn an_entry_that_cannot_be_is_left_out() {
        let (mut bridge, mut into) = (Bridge::default(), Vec::new());
        bridge.take(&entry(3, 5, 5), &mut into).unwrap();
        for wrong in [entry(3, 5, 10), entry(1, 5, 10), entry(4, 5, i64::MIN)] {
            bridge.take(&wrong, &mut into).unwrap_err();
        }
        bridge.take(&entry(4, 5, 10), &mut into).unwrap();
        assert_eq!(into, [entry(2, 5, 10)], "numbered anew");
    }

    proptest! {
        /// Whichever of an account's entries are lost, the rest is a history with the balances it had.
        #[test]
        fn balances_are_kept_whatever_is_lost(
            steps in proptest::collection::vec((any::<i64>(), any::<bool>()), 1..40),
        ) {
            let (mut balance, mut kept, mut lost) = (0_i64, Vec::new(), 0);
            let mut sequence = 0;
            for (step, is_kept) in steps {
                let Some(next) = balance.checked_add(step) else { continue };
                if step == 0 || step == i64::MIN { continue }
                balance = next;
                sequence += 1;
                match is_kept {
                    true => kept.push(entry(sequence, step, balance)),
                    false => lost += 1,
                }
            }
            let told_of = kept.last().map_or(0, |last| last.sequence);
            let (_, gaps) = play(&kept);
            let missing: u64 = gaps.iter().map(|gap| gap.last + 1 - gap.first).sum();
            prop_assert_eq!(missing, lost - (sequence - told_of));
        }
    }
}
