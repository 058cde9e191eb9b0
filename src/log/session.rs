//! One connection to the log's server, for a thread that may wait: with an end to every wait, and an
//! ear for warnings.
//!
//! It is `tokio-postgres` on a runtime of its own, which runs only while somebody waits. The blocking
//! crate over it, `postgres`, is the same but has no end to its waits: a server that stands still
//! with its connections open would hold the thread for ever.

use super::Fault;
use super::tls::Tls;
use crate::base::clock::{self, Moment};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Row, SimpleQueryMessage, Statement};

/// What statements are given.
pub type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// So many warnings are kept to be told.
const WARNINGS_KEPT: usize = 8;

/// See the module. After an error nothing is known of it, and it is to be dropped.
pub struct Session {
    /// Always there, but while it is dropped.
    runtime: Option<Runtime>,
    client: Client,
    prepared: HashMap<&'static str, Statement>,
    warnings: Arc<Mutex<Vec<String>>>,
    standing: Standing,
}

/// What the server says of itself.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// As `server_version_num` has it: 150004 is 15.4.
    pub version: u32,
    /// `synchronous_standby_names`; empty if no standby is waited for.
    pub standby_names: String,
}

/// The oldest server that is tried: 12.
const VERSION_MIN: u32 = 120_000;

/// Of everything that decides whether a commit lasts, what is said in the session counts, not what
/// anybody has set for the role or the database.
const SETTINGS: &str = "SET synchronous_commit = on; SET client_min_messages = warning; \
    SET search_path = pg_catalog; SET default_transaction_isolation = 'read committed'";

const LOOK: &str = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only'), \
    current_setting('synchronous_commit'), current_setting('fsync'), \
    current_setting('server_version_num'), current_setting('synchronous_standby_names')";

impl Session {
    /// Connects to one server, which gives up a statement after that time.
    pub(super) fn begin(
        config: &Config,
        tls: Tls,
        until: Moment,
        statement: Duration,
    ) -> Result<Session, Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .map_err(|error| Fault::NoAnswer(format!("no event loop: {error}")))?;
        let connected = within(&runtime, until, config.connect(tls));
        let (client, mut connection) = match connected {
            Ok(connected) => connected,
            Err(fault) => {
                runtime.shutdown_background();
                return Err(fault);
            }
        };
        let warnings = Arc::<Mutex<Vec<String>>>::default();
        let heard = warnings.clone();
        runtime.spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    if heard.len() < WARNINGS_KEPT {
                        heard.push(notice.message().replace('\n', " "));
                    }
                }
            }
        });
        let (prepared, standing) = (HashMap::new(), Standing::default());
        let mut session = Session { runtime: Some(runtime), client, prepared, warnings, standing };
        session.standing = session.settle_in(until, statement)?;
        Ok(session)
    }

    /// Sets what the session needs, and looks whether the server can be written to.
    fn settle_in(&mut self, until: Moment, statement: Duration) -> Result<Standing, Fault> {
        let ms = statement.as_millis().max(1);
        // A transaction whose client has gone holds the owner's row no longer than a statement.
        let limits = format!(
            "SET statement_timeout = {ms}; SET lock_timeout = {ms}; \
             SET idle_in_transaction_session_timeout = {ms}"
        );
        let all = format!("{limits}; {SETTINGS}; {LOOK}");
        let messages = self.run(until, |client| client.simple_query(&all))?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or_else(|| Fault::NoAnswer("it says nothing of itself".into()))?;
        let told = |column| row.try_get(column).ok().flatten().unwrap_or_default();
        if told(0) == "t" || told(1) == "on" {
            return Err(Fault::NoAnswer("it does not take writes (a standby?)".into()));
        }
        let version = told(4).parse().unwrap_or(0);
        if version < VERSION_MIN {
            return Err(Fault::Setup(format!("its PostgreSQL is older than 12 ({version})")));
        }
        if told(2) != "on" || told(3) != "on" {
            let (commit, fsync) = (told(2), told(3));
            return Err(Fault::Setup(format!(
                "the server does not keep what it acknowledges: synchronous_commit is {commit}, \
                 fsync is {fsync}, and both must be on"
            )));
        }
        self.take_warnings();
        Ok(Standing { version, standby_names: told(5).to_string() })
    }

    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// One statement, in a transaction of its own unless one has begun → how many rows it touched.
    ///
    /// # Errors
    /// See [`Fault`]; a warning is one.
    pub fn execute(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
        until: Moment,
    ) -> Result<u64, Fault> {
        self.take_warnings();
        let statement = self.prepare(sql, until)?;
        let rows = self.run(until, |client| client.execute(&statement, values))?;
        self.expect_no_warning()?;
        Ok(rows)
    }

    /// Likewise, of one that gives rows.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub fn query(
        &mut self,
        sql: &'static str,
        values: Values<'_>,
        until: Moment,
    ) -> Result<Vec<Row>, Fault> {
        self.take_warnings();
        let statement = self.prepare(sql, until)?;
        let rows = self.run(until, |client| client.query(&statement, values))?;
        self.expect_no_warning()?;
        Ok(rows)
    }

    /// Statements without values: `BEGIN`, `COMMIT`, those that make tables.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub fn batch(&mut self, sql: &str, until: Moment) -> Result<(), Fault> {
        self.take_warnings();
        self.run(until, |client| client.batch_execute(sql))?;
        self.expect_no_warning()
    }

    fn prepare(&mut self, sql: &'static str, until: Moment) -> Result<Statement, Fault> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.run(until, |client| client.prepare(sql))?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    fn run<'a, T, F>(
        &'a self,
        until: Moment,
        call: impl FnOnce(&'a Client) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        let runtime = self.runtime.as_ref().expect("it is there until the session is dropped");
        within(runtime, until, call(&self.client))
    }

    /// Such as that a commit is on this server alone: `canceling wait for synchronous replication`.
    fn expect_no_warning(&self) -> Result<(), Fault> {
        match self.take_warnings() {
            warnings if warnings.is_empty() => Ok(()),
            warnings => Err(Fault::Warned(warnings.join("; "))),
        }
    }

    fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits for it, no longer than until then.
fn within<T>(
    runtime: &Runtime,
    until: Moment,
    call: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Fault> {
    let left = until.since(clock::moment());
    let waited = runtime.block_on(async { tokio::time::timeout(left, call).await });
    match waited {
        Ok(result) => result.map_err(|error| Fault::of(&error)),
        Err(_) => Err(Fault::NoAnswer("none in time".into())),
    }
}

/// Closes the connection at once, whatever is under way: a look-up of a name may still be.
impl Drop for Session {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
