//! The log: an instance's records in a replicated PostgreSQL instead of a directory, so that any
//! machine can go on where another has ended.
//!
//! # In use
//! ```text
//! Server::parse(url)               where it is; `schema::create` makes the tables, once
//! Ownership::new … take            one owner at a time, by a lease on the database's clock
//! LogStorage::open(…, tenure)      the files of the log, as a journal sees them
//! journal::Found::new(storage, …)  the journal over it, as over a directory
//! Ownership::renew …               well before the lease is over; a journal's sync waits no longer
//! ```
//!
//! # What it promises
//! What a sync has made last is committed, and so is on the disks of as many servers as
//! `synchronous_standby_names` asks for. Each commit is fenced: it holds only while the epoch of
//! the log's owner is the one under which the files were opened, and only behind the commit before
//! it. So nobody who has lost the log can write into it, and a commit whose answer was lost is found
//! out about, and never made twice (`commit.rs`).
//!
//! # What it does not know
//! When to take the log, to renew the lease, and to stop: that is decided elsewhere. And what the
//! files mean: to it they are bytes.

pub mod command;
mod commit;
mod fault;
mod local;
pub mod ownership;
mod picture;
pub mod schema;
pub mod server;
mod session;
mod status;
pub mod storage;
mod tls;

use crate::base::clock::Moment;
use std::time::Duration;

pub use fault::Fault;
pub use local::Scratch;
pub use ownership::{Me, Ownership, State, Take, Tenure};
pub use server::Server;
pub use storage::LogStorage;

/// Makes the tables. False if they were there already.
///
/// # Errors
/// See [`schema::create`].
pub fn create(server: &Server, until: Moment) -> Result<bool, Fault> {
    let mut session = server.connect(until, STATEMENT_WITHIN)?;
    schema::create(&mut session, until)
}

/// So long a statement may take that no instance waits for.
const STATEMENT_WITHIN: Duration = Duration::from_secs(30);

/// The number of a log in the tables. There is one so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogNumber(pub i32);

impl LogNumber {
    pub const FIRST: LogNumber = LogNumber(0);
}
