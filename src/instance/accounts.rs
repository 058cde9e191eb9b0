//! The accounts that one instance keeps, and their journal, which no purge of payments touches.

use crate::base::clock;
use crate::instance::lifecycle::Lifecycle;
use crate::journal::Journal;
use crate::ledger::book::{Ledger, Outcome, Ticket};
use crate::ledger::{AccountId, Transaction};
use std::sync::Arc;

/// See the module.
pub struct Accounts {
    lifecycle: Arc<Lifecycle>,
    pub ledger: Ledger,
    pub journal: Journal,
}

impl Accounts {
    pub fn new(lifecycle: Arc<Lifecycle>, ledger: Ledger, journal: Journal) -> Accounts {
        Accounts { lifecycle, ledger, journal }
    }

    /// Carries a transaction out on an account that is kept here.
    pub fn transact(
        &self,
        id: AccountId,
        transaction: Transaction,
        ticket: Option<Ticket>,
    ) -> Outcome {
        if !self.lifecycle.takes_work() {
            return Outcome::Closed;
        }
        let now = || (clock::now_micros(), clock::moment());
        self.ledger.transact(id, transaction, ticket, now, |entry| {
            let has_room = self.journal.has_room();
            if has_room {
                self.journal.append_entry(entry);
            }
            has_room
        })
    }
}
