//! What is kept of a ledger's entries once their segments are gone: the accounts' state.

use crate::ledger::{AccountId, History};
use foldhash::quality::RandomState;
use hashbrown::HashMap;

/// The accounts that have any entry.
pub type Accounts = HashMap<AccountId, History, RandomState>;
