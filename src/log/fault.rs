//! What can go wrong between us and the server, each in one line. No line has a password.

use std::fmt;
use std::io;
use tokio_postgres::error::SqlState;

/// Why something was not done, or may not have been.
#[derive(Clone, Debug)]
pub enum Fault {
    /// No answer: the connection broke, or there was none in time. What was asked may be done.
    NoAnswer(String),
    /// The server has refused it, with this code; it is not done.
    Refused { code: SqlState, what: String },
    /// The server has warned of something while it was done: it may be on that server alone.
    Warned(String),
    /// Somebody else owns the log. Nothing of ours is written any more.
    Owned { by: String, epoch: u64 },
    /// The log is not as we have left it: it has been restored, or a server has lost commits.
    Rewound { expected: u64, found: u64 },
    /// Not as long as the settings, the schema or a right are as they are.
    Setup(String),
}

impl Fault {
    /// Of a call of `tokio-postgres`.
    pub(super) fn of(error: &tokio_postgres::Error) -> Fault {
        let Some(told) = error.as_db_error() else {
            return Fault::NoAnswer(reasons(error));
        };
        let code = told.code().clone();
        let what = told.message().replace('\n', " ");
        match setup(&code, &what) {
            Some(line) => Fault::Setup(line),
            // It ends the connection, and what it was at may be done (57P01 to 57P05, class 08).
            None if matches!(code.code().get(..2), Some("08"))
                || code.code().starts_with("57P") =>
            {
                Fault::NoAnswer(what)
            }
            None => Fault::Refused { code, what },
        }
    }

    /// To ask again is of no use.
    pub fn is_final(&self) -> bool {
        matches!(self, Fault::Owned { .. } | Fault::Rewound { .. } | Fault::Setup(_))
    }
}

/// What a person has to see to.
fn setup(code: &SqlState, what: &str) -> Option<String> {
    let line = match code {
        it if *it == SqlState::INVALID_SCHEMA_NAME || *it == SqlState::UNDEFINED_TABLE => {
            format!("{what}: `galo log create` makes the tables")
        }
        it if *it == SqlState::INSUFFICIENT_PRIVILEGE => {
            format!("{what}: the role lacks a right (docs/operating.md names them)")
        }
        it if *it == SqlState::INVALID_PASSWORD
            || *it == SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            || *it == SqlState::INVALID_CATALOG_NAME
            || *it == SqlState::UNDEFINED_COLUMN
            || *it == SqlState::UNDEFINED_OBJECT =>
        {
            what.to_string()
        }
        _ => return None,
    };
    Some(line)
}

/// The error and what caused it, in one line.
pub(super) fn reasons(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !line.contains(&next) {
            line = format!("{line}: {next}");
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoAnswer(what) => write!(f, "no answer from the log's server: {what}"),
            Fault::Refused { code, what } => {
                write!(f, "the log's server refuses ({}): {what}", code.code())
            }
            Fault::Warned(what) => write!(f, "the log's server warns: {what}"),
            Fault::Owned { by, epoch } => {
                write!(f, "somebody else owns the log: {by}, epoch {epoch}")
            }
            Fault::Rewound { expected, found } => write!(
                f,
                "the log has commit {found} where ours was {expected}: it has been restored, or its \
                 server has lost commits"
            ),
            Fault::Setup(what) => write!(f, "the log cannot be used: {what}"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        let kind = match &fault {
            Fault::Refused { code, .. } if *code == SqlState::DISK_FULL => {
                io::ErrorKind::StorageFull
            }
            Fault::Owned { .. } => io::ErrorKind::PermissionDenied,
            Fault::NoAnswer(_) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, fault)
    }
}
