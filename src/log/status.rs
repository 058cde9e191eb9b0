//! How a log stands: its owner, what is in it, and who keeps it. Read from one server, for people.

use super::ownership::{State, read_state};
use super::schema::{self, cell, one};
use super::session::Session;
use super::{Fault, LogNumber};
use crate::base::clock::Moment;
use serde::Serialize;
use std::fmt;

/// All that `galo log status` tells.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub logs: Vec<Log>,
    /// Of all tables with their indices, on one server.
    pub bytes_on_disk: i64,
    /// As `server_version_num` has it.
    pub server_version: u32,
    /// Empty if commits wait for no standby.
    pub synchronous_standby_names: String,
    /// `None` if the role may not see them (`pg_monitor` may).
    pub standbys: Option<Vec<Standby>>,
}

/// One log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Log {
    pub log: i32,
    pub epoch: u64,
    /// Who has it, or had it last.
    pub instance: String,
    pub address: String,
    /// What is left of the lease; `None` if nobody has it.
    pub lease_left_ms: Option<u64>,
    pub commits: u64,
    pub files: i64,
    /// Of what is in them, those included that are about to be removed.
    pub rows: i64,
    pub bytes: i64,
}

/// A server that follows the one that was asked.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Standby {
    pub name: String,
    pub state: String,
    /// `sync`, `quorum`, `potential` or `async`.
    pub sync_state: String,
    /// What it has not on its disk.
    pub behind_bytes: Option<i64>,
    /// How long that takes it.
    pub behind_ms: Option<f64>,
}

const LOGS: &str = "SELECT log FROM galo.own ORDER BY log";

const FILES: &str = "SELECT count(*) FROM galo.name WHERE log = $1";

const SIZE: &str = "SELECT count(*), coalesce(sum(octet_length(bytes)), 0)::bigint \
    FROM galo.chunk WHERE log = $1";

const ON_DISK: &str = "SELECT (pg_total_relation_size('galo.chunk') \
    + pg_total_relation_size('galo.name') + pg_total_relation_size('galo.own'))::bigint";

/// Whoever may not see them is given rows without a state.
const STANDBYS: &str = "SELECT application_name, state, sync_state, \
        pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint, \
        (extract(epoch FROM flush_lag) * 1000)::float8 \
    FROM pg_stat_replication ORDER BY application_name";

/// # Errors
/// See [`Fault`].
pub fn read(session: &mut Session, until: Moment) -> Result<Status, Fault> {
    schema::check_version(session, until)?;
    let numbers = session.query(LOGS, &[], until)?;
    let numbers = numbers.iter().map(|row| cell(row, 0)).collect::<Result<Vec<i32>, Fault>>()?;
    let logs = numbers.into_iter().map(|log| read_log(session, LogNumber(log), until));
    let logs = logs.collect::<Result<_, Fault>>()?;
    let rows = session.query(STANDBYS, &[], until)?;
    let standbys: Option<Vec<Standby>> = rows
        .iter()
        .map(|row| {
            Some(Standby {
                name: cell(row, 0).ok()?,
                state: cell(row, 1).ok()?,
                sync_state: cell(row, 2).ok()?,
                behind_bytes: cell(row, 3).ok()?,
                behind_ms: cell(row, 4).ok()?,
            })
        })
        .collect();
    Ok(Status {
        logs,
        bytes_on_disk: one(session.query(ON_DISK, &[], until)?)?,
        server_version: session.standing().version,
        synchronous_standby_names: session.standing().standby_names.clone(),
        standbys,
    })
}

fn read_log(session: &mut Session, log: LogNumber, until: Moment) -> Result<Log, Fault> {
    let State { epoch, instance, address, left, commits } = read_state(session, log, until)?;
    let files = one(session.query(FILES, &[&log.0], until)?)?;
    let size = session.query(SIZE, &[&log.0], until)?;
    let (rows, bytes) = match size.first() {
        Some(row) => (cell(row, 0)?, cell(row, 1)?),
        None => (0, 0),
    };
    let lease_left_ms = left.map(|left| left.as_millis() as u64);
    Ok(Log { log: log.0, epoch, instance, address, lease_left_ms, commits, files, rows, bytes })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Log { log, epoch, instance, address, lease_left_ms, commits, files, rows, bytes } in
            &self.logs
        {
            let owner = format!("{instance} at {address}");
            match lease_left_ms {
                Some(ms) => {
                    writeln!(f, "log {log}: {owner}, epoch {epoch}, {ms} ms of its lease left")?
                }
                None if *epoch == 0 => writeln!(f, "log {log}: nobody has had it")?,
                None => writeln!(f, "log {log}: nobody; the last was {owner}, epoch {epoch}")?,
            }
            writeln!(f, "  {commits} commits, {files} files: {bytes} bytes in {rows} rows")?;
        }
        let (major, minor) = (self.server_version / 10_000, self.server_version % 10_000);
        writeln!(f, "PostgreSQL {major}.{minor}, {} bytes on its disk", self.bytes_on_disk)?;
        match self.synchronous_standby_names.as_str() {
            "" => writeln!(f, "commits wait for no standby: what is lost with this disk is lost")?,
            names => writeln!(f, "commits wait for {names}")?,
        }
        let Some(standbys) = &self.standbys else {
            return writeln!(f, "standbys: the role may not see them (pg_monitor may)");
        };
        for Standby { name, state, sync_state, behind_bytes, behind_ms } in standbys {
            let bytes = behind_bytes.map_or("?".into(), |bytes| bytes.to_string());
            let ms = behind_ms.map_or(String::new(), |ms| format!(", {ms:.1} ms"));
            writeln!(f, "standby {name}: {state}, {sync_state}, {bytes} bytes behind{ms}")?;
        }
        Ok(())
    }
}
