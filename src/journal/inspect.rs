//! `galo journal check|dump PATH`: what a journal holds, for a person. Reads only; takes no lock,
//! so that a journal in use can be looked at too (its end may be in the middle of a write then).
//! The ledger's journal, in a directory inside the instance's, is looked at with it.

use super::accounts::{Accounts, States};
use super::entry::Line;
use super::head::{FILE_HEAD_BYTES, Kind, kind_of};
use super::record::Record;
use super::recover::Replay;
use super::segment::{Contents, Ending};
use super::storage::{Directory, Storage};
use super::{JournalError, LEDGER_DIRECTORY, books, notes};
use crate::ledger::{AccountId, History};
use crate::payments::summary::SummaryIndex;
use crate::payments::{Processor, Window};
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
    },
    /// Print every record, one a line
    Dump {
        /// The journal's directory (the ledger's inside it is looked at too), or one of its files
        path: PathBuf,
    },
}

/// # Errors
/// If the path cannot be read at all.
pub fn run(args: &JournalArgs) -> Result<ExitCode, String> {
    let (Action::Check { path } | Action::Dump { path }) = &args.action;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let sound = match &args.action {
        Action::Check { .. } => check(path, &mut out),
        Action::Dump { .. } => dump(path, &mut out),
    };
    match sound.and_then(|sound| out.flush().map(|()| sound)) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        // Whoever read this has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// The directory, and which of its files are meant.
fn files_at(path: &Path) -> io::Result<(Directory, Vec<String>)> {
    if path.metadata()?.is_dir() {
        let directory = Directory::read_only(path)?;
        let mut names = directory.names()?;
        names.retain(|name| Kind::of_file_name(name).is_some());
        names.sort_unstable();
        return Ok((directory, names));
    }
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if Kind::of_file_name(name).is_none() {
        let what = "not named like a file of a journal (0000000001.journal, .books, .ids, .accounts or .notes)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok((Directory::read_only(parent)?, vec![name.into()]))
}

/// Whether all is sound, in the ledger's directory too if there is one inside.
pub(super) fn check(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    with_ledger(path, out, check_one)
}

/// Whether every file could be read to its end.
pub(super) fn dump(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    with_ledger(path, out, dump_one)
}

fn with_ledger<W: Write>(
    path: &Path,
    out: &mut W,
    look: fn(&Path, &mut W) -> io::Result<bool>,
) -> io::Result<bool> {
    let ledger = path.join(LEDGER_DIRECTORY);
    if !ledger.is_dir() {
        return look(path, out);
    }
    let mut sound = true;
    for path in [path, &ledger] {
        writeln!(out, "{}:", path.display())?;
        sound &= look(path, out)?;
    }
    Ok(sound)
}

fn check_one(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    let (directory, names) = files_at(path)?;
    let mut sound = true;
    let mut bytes = Vec::new();
    for name in &names {
        directory.read(name, usize::MAX, &mut bytes)?;
        match describe(name, &bytes) {
            Ok(found) => writeln!(out, "{name}: {found}")?,
            Err(error) => {
                sound = false;
                writeln!(out, "{name}: {error}")?;
            }
        }
    }
    drop(bytes);
    if path.is_dir() {
        sound &= check_whole(&directory, out)?;
    }
    Ok(sound)
}

/// What one file holds.
fn describe(name: &str, bytes: &[u8]) -> Result<String, JournalError> {
    let Some((kind, number)) = Kind::of_file_name(name) else { return Ok(String::new()) };
    match kind {
        Kind::Segment => {
            let contents = Contents::new(number, bytes)?;
            let mut count = 0_usize;
            let (offset, ending) = contents.walk(|_, _| {
                count += 1;
                Ok(())
            })?;
            Ok(match ending {
                Ending::Sealed => format!("{count} records, full"),
                Ending::Blank => format!("{count} records, room left from offset {offset}"),
                Ending::Bad(what) => {
                    let behind = contents.intact_from(offset);
                    format!(
                        "{count} records, then at offset {offset} {what}; behind it {} bytes with \
                         {} intact records",
                        behind.bytes, behind.records
                    )
                }
            })
        }
        Kind::Books => {
            let [default, fallback] = books::add_to(&mut SummaryIndex::new(), number, bytes)?;
            Ok(format!("{default} settlements at default, {fallback} at fallback"))
        }
        Kind::Ids => Ok(format!("{} ids", books::ids(number, bytes)?.len())),
        Kind::Notes => Ok(format!("{} notes", notes::read(number, bytes)?.len())),
        Kind::Accounts => {
            let accounts = States::new(number, bytes)?.collect()?;
            Ok(format!("{} accounts, {} entries", accounts.len(), entries_of(&accounts)))
        }
    }
}

fn entries_of(accounts: &Accounts) -> u128 {
    accounts.values().map(|history| u128::from(history.sequence)).sum()
}

/// What all files mean together, as a start would read them.
fn check_whole(directory: &Directory, out: &mut impl Write) -> io::Result<bool> {
    let replay = match Replay::new(directory, usize::MAX) {
        Ok(replay) => replay,
        Err(error) => {
            writeln!(out, "{error}")?;
            return Ok(false);
        }
    };
    let totals = replay.books.summary.totals(Window::default());
    for (processor, totals) in Processor::ALL.into_iter().zip(totals) {
        writeln!(out, "settled at {}: {}, {}", processor.name(), totals.count, totals.amount)?;
    }
    let (waiting, doubts) = replay.outstanding();
    writeln!(out, "outstanding: {} waiting, {} in doubt", waiting.len(), doubts.len())?;
    writeln!(out, "ids: {}", replay.ids.len())?;
    if !replay.books.adopted.is_empty() {
        writeln!(out, "adopted, and to be told: {}", replay.books.adopted.len())?;
    }
    if !replay.books.rejected.is_empty() {
        writeln!(out, "rejected: {}", replay.books.rejected.len())?;
    }
    if !replay.accounts.is_empty() {
        let (count, entries) = (replay.accounts.len(), entries_of(&replay.accounts));
        writeln!(out, "accounts: {count}, {entries} entries, {} with a key", replay.keys.len())?;
    }
    for name in &replay.listing.leftovers {
        writeln!(out, "{name}: a leftover, the next start removes it")?;
    }
    match &replay.torn {
        None => writeln!(out, "sound")?,
        Some(torn) => writeln!(
            out,
            "torn: {} at offset {} ({}): the next start cuts off {} bytes with {} intact records, \
             none of which had been synced",
            torn.file, torn.offset, torn.what, torn.bytes, torn.records
        )?,
    }
    Ok(true)
}

fn dump_one(path: &Path, out: &mut impl Write) -> io::Result<bool> {
    let (directory, names) = files_at(path)?;
    let mut sound = true;
    let mut bytes = Vec::new();
    for name in &names {
        directory.read(name, usize::MAX, &mut bytes)?;
        match (Kind::of_file_name(name), kind_of(&bytes)) {
            (Some((Kind::Segment, number)), Some(Kind::Segment)) => {
                sound &= dump_segment(name, number, &bytes, out)?;
            }
            (Some((Kind::Accounts, number)), Some(Kind::Accounts)) => {
                sound &= dump_accounts(name, number, &bytes, out)?;
            }
            (Some((Kind::Notes, number)), Some(Kind::Notes)) => {
                sound &= dump_notes(name, number, &bytes, out)?;
            }
            // Not records; `check` tells how many there are.
            _ => match describe(name, &bytes) {
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

fn dump_notes(name: &str, number: u32, bytes: &[u8], out: &mut impl Write) -> io::Result<bool> {
    match notes::read(number, bytes) {
        Ok(notes) => {
            let mut offset = FILE_HEAD_BYTES;
            for record in notes.into_iter().map(Record::Event) {
                writeln!(out, "{name} {offset} {record}")?;
                offset += record.length();
            }
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "{name}: {error}")?;
            Ok(false)
        }
    }
}

fn dump_segment(name: &str, number: u32, bytes: &[u8], out: &mut impl Write) -> io::Result<bool> {
    let walked = Contents::new(number, bytes).and_then(|contents| {
        contents.walk(|offset, record| {
            writeln!(out, "{name} {offset} {record}")
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
