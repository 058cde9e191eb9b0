//! The words of the ledger system, and one account's history.
//!
//! An account has a credit limit and a balance that never falls below minus that limit. What a
//! client asks for is a [`Transaction`]; what was done is an [`Entry`], numbered without gaps in
//! the order of the commits. The invariant: a balance is the sum of its entries, and a statement is
//! one moment of it. Contract: the contest of 2024/Q1 (docs/operating.md, "Calls").

pub mod accounts;
pub mod book;
pub mod contract;

use crate::base::clock::Micros;
use crate::base::money::Cents;
use std::collections::VecDeque;

/// So many of the newest entries a statement lists.
pub const NEWEST_MAX: usize = 10;
/// A description has 1 to so many characters (Unicode code points) …
pub const DESCRIPTION_CHARS_MAX: usize = 10;
/// … and so many bytes in UTF-8.
pub const DESCRIPTION_BYTES_MAX: usize = 4 * DESCRIPTION_CHARS_MAX;

/// Which account: a positive number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub u64);

impl AccountId {
    /// Reads decimal digits. An id has one spelling: no sign, no leading zeros.
    pub fn parse(text: &[u8]) -> Option<AccountId> {
        let is_canonical =
            matches!(text, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
        let text = is_canonical.then(|| std::str::from_utf8(text).ok())??;
        text.parse().ok().map(AccountId)
    }
}

/// Which way the money goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Credit,
    Debit,
}

/// What a client says a transaction is for: 1 to [`DESCRIPTION_CHARS_MAX`] characters, kept as
/// they came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Description {
    length: u8,
    bytes: [u8; DESCRIPTION_BYTES_MAX],
}

impl Description {
    /// `None` if it has no character or too many.
    pub fn new(text: &str) -> Option<Description> {
        // Counted only if it can fit at all, so that a long text costs nothing.
        let fits = (1..=DESCRIPTION_BYTES_MAX).contains(&text.len())
            && text.chars().count() <= DESCRIPTION_CHARS_MAX;
        fits.then(|| {
            let mut bytes = [0; DESCRIPTION_BYTES_MAX];
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            Description { length: text.len() as u8, bytes }
        })
    }

    pub fn as_str(&self) -> &str {
        // The bytes are those of a str; anything else would read as no description at all.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl std::fmt::Debug for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_str().fmt(f)
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub kind: Kind,
    /// More than zero.
    pub value: Cents,
    pub description: Description,
}

/// The number that an instance gives a transaction which it passes on to the account's home, so
/// that it can ask again what became of it. Zero for one that came to its home by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key(pub u128);

impl Key {
    pub const NONE: Key = Key(0);
}

/// A transaction that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub account: AccountId,
    /// 1 for an account's first entry, without gaps.
    pub sequence: u64,
    pub transaction: Transaction,
    /// Behind it.
    pub balance: Cents,
    /// Later than every earlier one of the account.
    pub at: Micros,
    pub key: Key,
}

/// What an account's entries come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub balance: Cents,
    /// The number of the last entry; 0 before the first.
    pub sequence: u64,
    /// The newest first, at most [`NEWEST_MAX`].
    pub newest: VecDeque<(Transaction, Micros)>,
}

impl History {
    /// The balance behind a transaction; `None` if it does not fit into 64 bits.
    pub fn balance_after(&self, transaction: &Transaction) -> Option<Cents> {
        let (balance, value) = (self.balance.0, transaction.value.0);
        match transaction.kind {
            Kind::Credit => balance.checked_add(value),
            Kind::Debit => balance.checked_sub(value),
        }
        .map(Cents)
    }

    /// When the next entry is to be dated: now, or just behind the last one.
    pub fn next_at(&self, now: Micros) -> Micros {
        self.newest.front().map_or(now, |(_, last)| now.max(Micros(last.0.saturating_add(1))))
    }

    /// Takes an entry in.
    ///
    /// # Errors
    /// If it is not this account's next one; nothing was changed then.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), &'static str> {
        if entry.sequence != self.sequence + 1 {
            return Err("an entry that does not follow the last one of its account");
        }
        if self.balance_after(&entry.transaction) != Some(entry.balance) {
            return Err("an entry whose balance is not the sum of its account's entries");
        }
        self.balance = entry.balance;
        self.sequence = entry.sequence;
        self.newest.truncate(NEWEST_MAX - 1);
        let (length, room) = (self.newest.len(), self.newest.capacity());
        if length == room {
            // Doubled by itself it would end with room for sixteen.
            self.newest.reserve_exact((2 * room).clamp(1, NEWEST_MAX) - length);
        }
        self.newest.push_front((entry.transaction, entry.at));
        Ok(())
    }
}
