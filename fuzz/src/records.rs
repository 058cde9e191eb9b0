//! Records and segments of a journal, made up and sealed by what the layout says
//! (`journal/record.rs`, `journal/head.rs`), not by the code that is tried.

use crate::Source;
use galo::base::clock::{Micros, Timestamp};
use galo::base::money::Cents;
use galo::journal::Position;
use galo::journal::record::Record;
use galo::ledger::{AccountId, Description, Entry, History, Key, Kind, Transaction};
use galo::payments::event::Event;
use galo::payments::resolution::{Action, Resolution};
use galo::payments::{Attempts, PaymentId, Processor, Rejection, Settlement};
use std::collections::HashMap;
use std::sync::Arc;

/// The accounts as the entries that were made up leave them.
pub type Accounts = HashMap<AccountId, History>;

impl Source<'_> {
    /// Of one of so many processors.
    pub fn event(&mut self, count: usize) -> Event {
        let (id, amount) = (self.id(), Cents(self.i64()));
        let at = Timestamp(self.i64());
        match self.below(8) {
            0 | 1 => Event::Accepted { id, amount, accepted_at: at },
            2 => Event::Attempted { id, processor: self.processor_of(count), requested_at: at },
            3 => Event::Released { id },
            4 => {
                let processor = self.processor_of(count);
                Event::Settled {
                    id,
                    settlement: Settlement { processor, amount, requested_at: at },
                    attempts: Attempts(self.below(16) as u8),
                }
            }
            5 => Event::Foreign { id },
            6 => Event::Forwarded { id, amount, learned: self.bool() },
            _ if self.bool() => Event::Adopted { id, amount },
            _ if self.bool() => Event::Resolved(Arc::new(self.resolution(id, amount, at, count))),
            _ => {
                let mut statuses = [0; Processor::MAX];
                statuses[..count].fill_with(|| u16::from(self.u8()) * 4);
                let accepted_at = Rejection::in_seconds(at);
                Event::Rejected(Rejection { id, amount, statuses, accepted_at })
            }
        }
    }

    fn resolution(
        &mut self,
        id: PaymentId,
        amount: Cents,
        at: Timestamp,
        count: usize,
    ) -> Resolution {
        let (processor, requested_at) = (self.processor_of(count), Timestamp(self.i64()));
        let action = match self.below(5) {
            0 => Action::Retry,
            1 => Action::Settled { processor, requested_at },
            2 => Action::NotBooked { processor, requested_at },
            3 => Action::Cancelled,
            _ => Action::Elsewhere,
        };
        let text = |count: usize| -> Box<str> { "x".repeat(1 + count).into() };
        let (by, reason) = (text(self.below(64)), text(self.below(255)));
        Resolution { id, amount, accepted_at: at, action, at, by, reason }
    }

    pub fn transaction(&mut self) -> Transaction {
        let kind = if self.bool() { Kind::Credit } else { Kind::Debit };
        let value = Cents(self.i64().checked_abs().unwrap_or(i64::MAX).max(1));
        let text = self.text(40);
        let text: String = text.chars().take(10).collect();
        let description = Description::new(&text).or_else(|| Description::new("x"));
        Transaction { kind, value, description: description.expect("one letter is a description") }
    }

    /// The next entry of one of a few accounts. Now and then one that cannot be the next.
    pub fn entry(&mut self, accounts: &mut Accounts) -> Entry {
        let account = AccountId(1 + self.below(4) as u64);
        let transaction = self.transaction();
        let history = accounts.entry(account).or_default();
        let balance = history.balance_after(&transaction).unwrap_or_default();
        let key = if self.bool() { Key::NONE } else { Key(self.u64().into()) };
        let at = history.next_at(Micros(self.i64()));
        let is_next = self.u8() < 250;
        let sequence = if is_next { history.sequence + 1 } else { 1 + self.u64() % (1 << 60) };
        let entry = Entry { account, sequence, transaction, balance, at, key };
        let _ = history.apply(&entry);
        entry
    }

    /// Of one of so many processors.
    pub fn record(&mut self, accounts: &mut Accounts, count: usize) -> Record {
        match self.below(10) {
            0 => Record::Carried {
                id: self.id(),
                amount: Cents(self.i64()),
                accepted_at: Timestamp(self.i64()),
                attempt: self.bool().then(|| (self.processor_of(count), Timestamp(self.i64()))),
                attempts: Attempts(self.below(16) as u8),
            },
            1 => Record::Synced { until: Position::new(self.below(5) as u32, self.below(256)) },
            2 | 3 => Record::Entry(self.entry(accounts)),
            _ => Record::Event(self.event(count)),
        }
    }
}

/// The bytes of a record of any kind, detail and payload, as they would be written there. The
/// payload is filled up with zeros to a multiple of eight bytes.
pub fn sealed(segment: u32, offset: usize, kind: u8, detail: u8, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()).next_multiple_of(8);
    let mut bytes = vec![0; length];
    bytes[4..6].copy_from_slice(&(length as u16).to_le_bytes());
    (bytes[6], bytes[7]) = (kind, detail);
    bytes[8..8 + payload.len()].copy_from_slice(payload);
    let seed = crc32c::crc32c(&segment.to_le_bytes()) ^ offset as u32;
    let checksum = crc32c::crc32c_append(seed, &bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}
