//! Who owns a log: taking it, keeping it, giving it back; each one statement, by the database's
//! clock. When to do which is decided elsewhere.

use super::schema::{cell, one};
use super::session::Session;
use super::{Fault, LogNumber, Server, schema};
use crate::base::clock::{self, Moment};
use crate::journal::storage::random;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::Row;

/// Names and addresses are cut off behind so many letters.
const TEXT_LENGTH_MAX: usize = 256;

/// Who wants to own a log.
#[derive(Clone, Debug)]
pub struct Me {
    /// What it is called, by its operator.
    pub instance: String,
    /// Where others reach it.
    pub address: String,
    /// New with every process: two may have one name.
    incarnation: u128,
}

impl Me {
    pub fn new(instance: &str, address: &str) -> Me {
        let cut = |text: &str| text.chars().take(TEXT_LENGTH_MAX).collect();
        Me { instance: cut(instance), address: cut(address), incarnation: random() }
    }
}

/// The time for which a log is ours, as far as we know: what is shared by who renews the lease and
/// who writes under it.
#[derive(Debug)]
pub struct Tenure {
    epoch: u64,
    until: AtomicU64,
}

impl Tenure {
    /// From an epoch that was taken, until a moment by our own clock.
    pub fn new(epoch: u64, until: Moment) -> Arc<Tenure> {
        Arc::new(Tenure { epoch, until: AtomicU64::new(until.0) })
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Nobody else can have taken the log before.
    pub fn until(&self) -> Moment {
        Moment(self.until.load(Ordering::Acquire))
    }

    /// It was renewed.
    pub fn extend(&self, until: Moment) {
        self.until.fetch_max(until.0, Ordering::AcqRel);
    }
}

/// What became of [`Ownership::take`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is ours. `until`: by our own clock, counted from before it was asked for.
    Taken { epoch: u64, until: Moment },
    /// Somebody else has it, for that long by the database's clock unless he renews it.
    Held { by: String, at: String, left: Duration },
}

/// What is known of a log's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub epoch: u64,
    /// Who has it, or had it last.
    pub instance: String,
    pub address: String,
    /// What is left of the lease. `None` if it is over, or was given back.
    pub left: Option<Duration>,
    /// Commits into the log so far.
    pub commits: u64,
}

const TAKE: &str = "UPDATE galo.own SET epoch = epoch + 1, instance = $2, address = $3, \
    incarnation = $4, lease_until = clock_timestamp() + $5 * interval '1 microsecond' \
    WHERE log = $1 AND (lease_until IS NULL OR lease_until <= clock_timestamp()) RETURNING epoch";

/// Of whoever has not heard that it was taken.
const RETAKE: &str = "UPDATE galo.own SET \
    lease_until = clock_timestamp() + $3 * interval '1 microsecond' \
    WHERE log = $1 AND incarnation = $2 AND lease_until > clock_timestamp() RETURNING epoch";

const RENEW: &str = "UPDATE galo.own SET \
    lease_until = clock_timestamp() + $4 * interval '1 microsecond' \
    WHERE log = $1 AND epoch = $2 AND incarnation = $3 AND lease_until IS NOT NULL";

const RELEASE: &str = "UPDATE galo.own SET lease_until = NULL \
    WHERE log = $1 AND epoch = $2 AND incarnation = $3 AND lease_until IS NOT NULL";

const STATE: &str = "SELECT epoch, instance, address, seq, \
    (extract(epoch FROM lease_until - clock_timestamp()) * 1000000)::bigint \
    FROM galo.own WHERE log = $1";

/// One connection for these alone, so that a large write never delays a renewal on its way there.
///
/// Each call ends at the moment it is given, or before, with an error that may mean that it was done
/// all the same: [`Ownership::take`] finds out about that when it is called again, the others may be
/// repeated.
pub struct Ownership {
    server: Arc<Server>,
    log: LogNumber,
    me: Me,
    session: Option<Session>,
    statement: Duration,
}

impl Ownership {
    /// Does not connect yet. A server gives up a call after a third of the lease.
    pub fn new(server: Arc<Server>, log: LogNumber, me: Me, lease: Duration) -> Ownership {
        Ownership { server, log, me, session: None, statement: lease / 3 }
    }

    /// Looks whether the log can be used at all.
    ///
    /// # Errors
    /// [`Fault::Setup`] if not.
    pub fn check(&mut self, until: Moment) -> Result<(), Fault> {
        self.with_session(until, schema::check)
    }

    /// What is worth a line when the program starts, if anything is.
    pub fn warning(&mut self, until: Moment) -> Result<Option<String>, Fault> {
        let server = self.server.clone();
        self.with_session(until, |session, _| Ok(server.warning(session.standing())))
    }

    /// Takes the log if its lease is over or was given back.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn take(&mut self, lease: Duration, until: Moment) -> Result<Take, Fault> {
        let (log, me, lease_us) = (self.log.0, self.me.clone(), micros(lease));
        let asked = clock::moment();
        self.with_session(until, |session, until| {
            let incarnation = &me.incarnation.to_be_bytes()[..];
            let taken = session.query(
                TAKE,
                &[&log, &me.instance, &me.address, &incarnation, &lease_us],
                until,
            )?;
            let taken = match taken.is_empty() {
                true => session.query(RETAKE, &[&log, &incarnation, &lease_us], until)?,
                false => taken,
            };
            if !taken.is_empty() {
                let epoch = one::<i64>(taken)?.cast_unsigned();
                return Ok(Take::Taken { epoch, until: asked + lease });
            }
            let state = state_of(session.query(STATE, &[&log], until)?)?;
            let left = state.left.unwrap_or_default();
            Ok(Take::Held { by: state.instance, at: state.address, left })
        })
    }

    /// The lease anew, unless somebody else has the log: then `None`. Otherwise it is ours until that
    /// moment by our own clock.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn renew(
        &mut self,
        epoch: u64,
        lease: Duration,
        until: Moment,
    ) -> Result<Option<Moment>, Fault> {
        let asked = clock::moment();
        let lease_us = micros(lease);
        let renewed = self.of_epoch(RENEW, epoch, Some(lease_us), until)?;
        Ok(renewed.then_some(asked + lease))
    }

    /// Gives the log back. False if it is ours no more.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn release(&mut self, epoch: u64, until: Moment) -> Result<bool, Fault> {
        self.of_epoch(RELEASE, epoch, None, until)
    }

    /// Who has the log.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn state(&mut self, until: Moment) -> Result<State, Fault> {
        let log = self.log.0;
        self.with_session(until, |session, until| state_of(session.query(STATE, &[&log], until)?))
    }

    fn of_epoch(
        &mut self,
        sql: &'static str,
        epoch: u64,
        lease_us: Option<f64>,
        until: Moment,
    ) -> Result<bool, Fault> {
        let (log, epoch) = (self.log.0, epoch.cast_signed());
        let incarnation = self.me.incarnation.to_be_bytes();
        self.with_session(until, |session, until| {
            let incarnation = &incarnation[..];
            let touched = match lease_us {
                Some(lease) => {
                    session.execute(sql, &[&log, &epoch, &incarnation, &lease], until)?
                }
                None => session.execute(sql, &[&log, &epoch, &incarnation], until)?,
            };
            Ok(touched == 1)
        })
    }

    /// A connection that failed is not used again.
    fn with_session<T>(
        &mut self,
        until: Moment,
        call: impl FnOnce(&mut Session, Moment) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.server.connect(until, self.statement)?,
        };
        let result = call(&mut session, until)?;
        self.session = Some(session);
        Ok(result)
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_micros() as f64
}

pub(super) fn read_state(
    session: &mut Session,
    log: LogNumber,
    until: Moment,
) -> Result<State, Fault> {
    state_of(session.query(STATE, &[&log.0], until)?)
}

fn state_of(rows: Vec<Row>) -> Result<State, Fault> {
    let missing = || Fault::Setup("there is no such log: `galo log create` makes it".into());
    let row = rows.first().ok_or_else(missing)?;
    let left: Option<i64> = cell(row, 4)?;
    let left = left.filter(|left| *left > 0).map(|left| Duration::from_micros(left.unsigned_abs()));
    Ok(State {
        epoch: cell::<i64>(row, 0)?.cast_unsigned(),
        instance: cell(row, 1)?,
        address: cell(row, 2)?,
        left,
        commits: cell::<i64>(row, 3)?.cast_unsigned(),
    })
}
