//! `galo journal`: the tools of a person who looks after a journal, and what they share. `check` is in
//! `check.rs`, `copy` in `copy.rs`, `salvage` in `salvage.rs`; `dump` is here.
//!
//! None of them changes the journal it is given. `check`, `dump` and `copy` take no lock, so that one
//! in use can be looked at too (its end may be in the middle of a write then). The ledger's journal,
//! in a directory inside the instance's, goes with it.

use super::accounts::States;
use super::entry::Line;
use super::head::{Kind, kind_of};
use super::record::Record;
use super::recover::read_names;
use super::salvage::guess_identity;
use super::segment::{Contents, Ending};
use super::storage::{Directory, Storage};
use super::{JournalError, LEDGER_DIRECTORY, check, copy, identity, manifest, notes, salvage};
use crate::base::progress::Above;
use crate::ledger::{AccountId, History};
use crate::payments::names::Names;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(clap::Args, Debug)]
pub struct JournalArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Read everything, print what is there and what is wrong with it. Exit code 1 if it is damaged
    Check {
        /// The journal's directory (the ledger's inside it is looked at too), or one of its files
        path: PathBuf,
        /// The directory of the other instance of a pair: the two are compared, and exit code 1
        /// also means that they do not fit
        other: Option<PathBuf>,
    },
    /// Print every record, one a line
    Dump {
        /// The journal's directory (the ledger's inside it is looked at too), or one of its files
        path: PathBuf,
    },
    /// Copy a journal, also while an instance writes to it. A start with the copy asks before it pays
    Copy {
        /// The journal's directory
        from: PathBuf,
        /// The new directory, which must not be there, or be empty
        to: PathBuf,
    },
    /// Write what is whole of a damaged journal to a new one, and say what is lost. Exit code 1 if
    /// anything is. A start with the new one asks before it pays
    Salvage {
        /// The journal's directory. No instance may be using it
        from: PathBuf,
        /// The new directory, which must not be there, or be empty
        to: PathBuf,
    },
}

/// # Errors
/// If what is given cannot be used, in one line.
pub fn run(args: &JournalArgs) -> Result<ExitCode, String> {
    let mut out = io::BufWriter::new(Above(io::stdout().lock()));
    let (path, sound) = match &args.action {
        Action::Check { path, other } => {
            path.is_dir().then(|| expect_journal(path)).transpose()?;
            other.as_ref().map(|other| expect_journal(other)).transpose()?;
            (path, check::run(path, other.as_deref(), &mut out))
        }
        Action::Dump { path } => {
            path.is_dir().then(|| expect_journal(path)).transpose()?;
            (path, dump(path, &mut out))
        }
        Action::Copy { from, to } => {
            let done = copy::run(from, to)?;
            (from, writeln!(out, "{done}").map(|()| true))
        }
        Action::Salvage { from, to } => {
            let is_whole = salvage::run(from, to, &mut out)?;
            (from, Ok(is_whole))
        }
    };
    match sound.and_then(|sound| out.flush().map(|()| sound)) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        // Whoever read this has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// # Errors
/// In one line, if this is no directory of a journal: none of its files is in it, nor in the ledger's
/// directory inside it.
pub fn expect_journal(path: &Path) -> Result<(), String> {
    let names = |path: &Path| Directory::read_only(path).and_then(|directory| directory.names());
    let is_file = |name: &String| {
        Kind::of_file_name(name).is_some()
            || [identity::FILE_NAME, manifest::FILE_NAME].contains(&name.as_str())
    };
    let found = names(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let in_ledger = names(&path.join(LEDGER_DIRECTORY)).unwrap_or_default();
    match found.iter().chain(&in_ledger).any(is_file) {
        true => Ok(()),
        false => Err(format!("{} is no directory of a journal", path.display())),
    }
}

/// A directory, and which of its files are meant.
pub(super) struct Files {
    pub directory: Directory,
    pub names: Vec<String>,
    /// What the numbers of processors mean in them; as far as it can be read, if `identity` is damaged.
    pub processors: Names,
}

impl Files {
    fn new(directory: Directory, names: Vec<String>) -> io::Result<Files> {
        let processors = match read_names(&directory) {
            Ok(processors) => processors,
            Err(JournalError::Io { error, .. }) => return Err(error),
            Err(_) => guess_identity(&directory, 0)?.names().clone(),
        };
        Ok(Files { directory, names, processors })
    }
}

/// The files at a path: a directory, or one of the files in one.
pub(super) fn files_at(path: &Path) -> io::Result<Files> {
    if path.metadata()?.is_dir() {
        let directory = Directory::read_only(path)?.showing("reading");
        let mut names = directory.names()?;
        names.retain(|name| Kind::of_file_name(name).is_some());
        names.sort_unstable();
        return Files::new(directory, names);
    }
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if Kind::of_file_name(name).is_none() {
        let what = "not named like a file of a journal (0000000001.journal, .books, .ids, .accounts or .notes)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Files::new(Directory::read_only(parent)?.showing("reading"), vec![name.into()])
}

/// Whether every file could be read to its end.
pub(super) fn dump(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    let mut sound = true;
    let directories = with_ledger(path);
    for directory in &directories {
        if directories.len() > 1 {
            writeln!(out, "{}:", directory.display())?;
        }
        sound &= dump_one(directory, out)?;
    }
    Ok(sound)
}

/// A journal's directory, and the ledger's inside it if there is one.
pub(super) fn with_ledger(path: &Path) -> Vec<PathBuf> {
    let ledger = path.join(LEDGER_DIRECTORY);
    let mut directories = vec![path.to_path_buf()];
    directories.extend(ledger.is_dir().then_some(ledger));
    directories
}

fn dump_one(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    let Files { directory, names, processors } = files_at(path)?;
    let mut sound = true;
    let mut bytes = Vec::new();
    for name in &names {
        directory.read(name, usize::MAX, &mut bytes)?;
        match (Kind::of_file_name(name), kind_of(&bytes)) {
            (Some((Kind::Segment, number)), Some(Kind::Segment)) => {
                sound &= dump_segment(name, number, &bytes, &processors, out)?;
            }
            (Some((Kind::Accounts, number)), Some(Kind::Accounts)) => {
                sound &= dump_accounts(name, number, &bytes, out)?;
            }
            (Some((Kind::Notes, number)), Some(Kind::Notes)) => {
                sound &= dump_notes(name, number, &bytes, &processors, out)?;
            }
            // Not records; `check` tells how many there are.
            _ => match check::describe(name, &bytes, &processors) {
                Ok(found) => writeln!(out, "{name}: {found}")?,
                Err(error) => {
                    sound = false;
                    writeln!(out, "{name}: {error}")?;
                }
            },
        }
    }
    Ok(sound)
}

fn dump_accounts(name: &str, number: u32, bytes: &[u8], out: &mut impl Write) -> io::Result<bool> {
    let states = match States::new(number, bytes) {
        Ok(states) => states,
        Err(error) => {
            writeln!(out, "{name}: {error}")?;
            return Ok(false);
        }
    };
    for state in states {
        match state {
            Ok((AccountId(id), History { balance, sequence, newest }, _)) => {
                writeln!(out, "{name} account {id}: balance {balance}, {sequence} entries")?;
                for (transaction, at) in &newest {
                    writeln!(out, "{name} account {id}: {} at {at}", Line(transaction))?;
                }
            }
            Err(error) => {
                writeln!(out, "{name}: {error}")?;
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn dump_notes(
    name: &str,
    number: u32,
    bytes: &[u8],
    processors: &Names,
    out: &mut impl Write,
) -> io::Result<bool> {
    match notes::read_with_offsets(number, bytes, processors) {
        Ok(notes) => {
            for (offset, note) in notes {
                writeln!(out, "{name} {offset} {}", Record::Event(note).show(processors))?;
            }
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "{name}: {error}")?;
            Ok(false)
        }
    }
}

fn dump_segment(
    name: &str,
    number: u32,
    bytes: &[u8],
    processors: &Names,
    out: &mut impl Write,
) -> io::Result<bool> {
    let walked = Contents::new(number, bytes, processors).and_then(|contents| {
        contents.walk(|offset, record| {
            writeln!(out, "{name} {offset} {}", record.show(processors))
                .map_err(|error| JournalError::io("write", "the output", error))
        })
    });
    match walked {
        Ok((offset, Ending::Bad(what))) => {
            writeln!(out, "{name} {offset} {what}")?;
            Ok(false)
        }
        Ok((offset, ending)) => {
            writeln!(
                out,
                "{name} {offset} {}",
                if ending == Ending::Sealed { "End" } else { "-" }
            )?;
            Ok(true)
        }
        Err(JournalError::Io { error, .. }) => Err(error),
        Err(error) => {
            writeln!(out, "{name}: {error}")?;
            Ok(false)
        }
    }
}
