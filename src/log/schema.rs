//! The tables, in a schema named `galo`: made once by `galo log create`, of a version that every
//! start looks at.
//!
//! ```text
//! version   the version of all this, one row
//! own       of each log: its owner's epoch, who that is, until when by this database's clock, and the
//!           number of the last commit
//! name      the files of a log: what they are called, and which each is
//! chunk     what is in the files: each row, in the order of `number`, says what stands at `at`, or
//!           where `bytes` is null, that the file is now `at` long
//! ```
//!
//! A file is written by adding rows and never by changing one, for most of what is written is behind
//! what is there. One that is written over again and again is written anew now and then.

use super::fault::reasons;
use super::session::Session;
use super::{Fault, LogNumber};
use crate::base::clock::Moment;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// Of the tables.
pub const VERSION: i32 = 1;

/// One `galo log create` at a time: the first eight letters of "galo log" as a number.
const LOCK: i64 = 0x6761_6c6f_206c_6f67;

const TABLES: &str = r#"
CREATE SCHEMA galo;
CREATE TABLE galo.version (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    version integer NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE galo.own (
    log integer PRIMARY KEY,
    epoch bigint NOT NULL,
    seq bigint NOT NULL,
    instance text NOT NULL,
    address text NOT NULL,
    incarnation bytea NOT NULL,
    lease_until timestamptz
) WITH (fillfactor = 10);
CREATE TABLE galo.name (
    log integer,
    name text COLLATE "C",
    file bigint NOT NULL,
    PRIMARY KEY (log, name)
);
CREATE TABLE galo.chunk (
    log integer,
    file bigint,
    number bigint,
    at bigint NOT NULL,
    bytes bytea,
    PRIMARY KEY (log, file, number)
);
ALTER TABLE galo.chunk ALTER COLUMN bytes SET STORAGE EXTERNAL;
"#;

const IS_THERE: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'galo')";

/// What the role must be allowed, of each table.
const RIGHTS: &str = "SELECT needed.tbl || ' (' || string_agg(needed.what, ', ') || ')' \
    FROM (VALUES ('own', 'SELECT'), ('own', 'UPDATE'), \
        ('name', 'SELECT'), ('name', 'INSERT'), ('name', 'UPDATE'), ('name', 'DELETE'), \
        ('chunk', 'SELECT'), ('chunk', 'INSERT'), ('chunk', 'DELETE')) AS needed (tbl, what) \
    WHERE NOT has_table_privilege('galo.' || needed.tbl, needed.what) \
    GROUP BY needed.tbl ORDER BY needed.tbl";

/// Makes the tables, of so many logs; does nothing if they are there.
///
/// # Errors
/// [`Fault::Setup`] if they are there in another version, or the role may not make them.
pub fn create(session: &mut Session, until: Moment) -> Result<bool, Fault> {
    session.batch("BEGIN", until)?;
    session.query("SELECT pg_advisory_xact_lock($1)", &[&LOCK], until)?;
    let is_there: bool = one(session.query(IS_THERE, &[], until)?)?;
    if is_there {
        session.batch("ROLLBACK", until)?;
        return check_version(session, until).map(|()| false);
    }
    session.batch(TABLES, until)?;
    let version = "INSERT INTO galo.version (version) VALUES ($1)";
    session.execute(version, &[&VERSION], until)?;
    let own = "INSERT INTO galo.own VALUES ($1, 0, 0, '', '', '', NULL)";
    session.execute(own, &[&LogNumber::FIRST.0], until)?;
    session.batch("COMMIT", until)?;
    Ok(true)
}

/// Looks whether the tables are those we know, and whether the role may use them.
///
/// # Errors
/// [`Fault::Setup`] if not.
pub fn check(session: &mut Session, until: Moment) -> Result<(), Fault> {
    check_version(session, until)?;
    let missing = session.query(RIGHTS, &[], until)?;
    let missing: Vec<String> = missing.iter().map(|row| cell(row, 0)).collect::<Result<_, _>>()?;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Fault::Setup(format!(
            "the role lacks rights on tables of the schema galo: {}",
            missing.join(", ")
        ))),
    }
}

pub(super) fn check_version(session: &mut Session, until: Moment) -> Result<(), Fault> {
    let version: i32 = one(session.query("SELECT version FROM galo.version", &[], until)?)?;
    match version {
        VERSION => Ok(()),
        other => Err(Fault::Setup(format!(
            "its tables have version {other}, this program knows {VERSION}: start the version of galo \
             that made them"
        ))),
    }
}

/// Where the tables are. The same after a failover, and another once they have been written to
/// another database out of a dump: the number of the cluster, those of the database and of a table.
/// A physical backup that has been restored is where its original was.
///
/// # Errors
/// See [`Fault`].
pub fn place(session: &mut Session, until: Moment) -> Result<(u64, u64), Fault> {
    // Not everybody who offers a PostgreSQL lets the number of the cluster be read.
    let may = "SELECT has_function_privilege('pg_control_system()', 'EXECUTE')";
    let cluster: i64 = match one(session.query(may, &[], until)?)? {
        true => {
            one(session.query("SELECT system_identifier FROM pg_control_system()", &[], until)?)?
        }
        false => 0,
    };
    let oids = session.query(
        "SELECT oid, 'galo.own'::regclass::oid FROM pg_database WHERE datname = current_database()",
        &[],
        until,
    )?;
    let row = oids.first().ok_or_else(nothing)?;
    let (database, table): (u32, u32) = (cell(row, 0)?, cell(row, 1)?);
    Ok((cluster.cast_unsigned(), u64::from(database) << 32 | u64::from(table)))
}

/// What stands in the first column of the only row.
pub(super) fn one<T>(rows: Vec<Row>) -> Result<T, Fault>
where
    T: for<'a> FromSql<'a>,
{
    cell(rows.first().ok_or_else(nothing)?, 0)
}

/// What stands in a column.
pub(super) fn cell<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Fault> {
    row.try_get(column).map_err(|error| Fault::Setup(reasons(&error)))
}

fn nothing() -> Fault {
    Fault::Setup("a row that must be there is missing: `galo log create` makes the tables".into())
}
