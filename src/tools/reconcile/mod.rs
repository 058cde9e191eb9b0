//! `galo reconcile`: galo's books against a processor's, payment by payment.
//!
//! | file | what lives here |
//! | --- | --- |
//! | `table.rs` | comma-separated values out of a file, within bounds |
//! | `amounts.rs` | amounts as statements write them |
//! | `statement.rs` | a processor's books as a file |
//! | `books.rs` | galo's own books: of journals, or as a file |
//! | `side.rs` | one side of the comparison, in memory |
//! | `report.rs` | what differs, for people and for machines |
//!
//! What is a difference is said by `compare.rs` beside this folder, for the judge as well. It only
//! reads; whatever happens, nothing is changed anywhere.

pub mod amounts;
pub mod books;
pub mod report;
pub mod side;
pub mod statement;
pub mod table;
#[cfg(test)]
mod tests;

use super::ask::{self, Server};
use super::compare::{Booking, Rules};
use super::numbers::Numbers;
use super::text::say;
use crate::base::clock::{Rounding, Timestamp};
use crate::base::progress::Progress;
use crate::net::client::Url;
use crate::payments::names::is_name;
use crate::payments::{Each, Settlement, Window};
use books::Exported;
use report::Report;
use side::{Room, Row, Side};
use statement::{Format, Statement};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Compare galo's books with a processor's, payment by payment
///
/// A table of what differs: missing there, missing here, another amount, another time, another
/// processor, twice. Exit code 0 if nothing does, 1 if anything, 2 if they could not be compared.
/// Nothing is changed.
#[derive(Clone, Debug, clap::Args)]
pub struct ReconcileArgs {
    /// galo's books: the directories of journals (of a pair both), or what `galo export` has written
    /// of them
    #[arg(required = true, value_name = "DIR or FILE")]
    pub books: Vec<PathBuf>,

    /// A processor's statement, by its name: `default=FILE`. Repeatable
    #[arg(long, value_name = "PROCESSOR=FILE", value_parser = read_statement)]
    pub statement: Vec<(String, PathBuf)>,

    /// A processor that is asked instead: `default=http://HOST:PORT`. It must list its books as
    /// `galo processor` does
    #[arg(long, value_name = "PROCESSOR=URL", value_parser = read_processor)]
    pub processor: Vec<(String, Url)>,

    /// The processors' X-Rinha-Token
    #[arg(long, default_value = "123")]
    pub token: String,

    /// Only what was asked for from then on, on both sides
    #[arg(long, value_name = "TIME", value_parser = read_from)]
    pub from: Option<Timestamp>,

    /// Only what was asked for until then
    #[arg(long, value_name = "TIME", value_parser = read_to)]
    pub to: Option<Timestamp>,

    /// Times that are so far apart are one time
    #[arg(long, default_value = "0ms", value_parser = humantime::parse_duration)]
    pub time_tolerance: Duration,

    /// One JSON document instead of the table
    #[arg(long)]
    pub json: bool,

    /// So many payments of a kind are named
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub examples: u32,

    #[command(flatten)]
    pub format: Format,
}

fn read_pair(text: &str) -> Result<(String, &str), String> {
    let shape = "it must look like NAME=…, as default=…";
    let (name, rest) = text.split_once('=').ok_or(shape)?;
    let is_pair = is_name(name) && !rest.is_empty();
    if is_pair { Ok((name.into(), rest)) } else { Err(shape.into()) }
}

fn read_statement(text: &str) -> Result<(String, PathBuf), String> {
    read_pair(text).map(|(name, path)| (name, path.into()))
}

fn read_processor(text: &str) -> Result<(String, Url), String> {
    let (name, url) = read_pair(text)?;
    Ok((name, url.parse()?))
}

fn read_bound(text: &str, rounding: Rounding) -> Result<Timestamp, String> {
    let read = Timestamp::parse(text.as_bytes(), rounding);
    read.ok_or_else(|| "it must be a time of RFC 3339, such as 2025-07-01T00:00:00Z".into())
}

/// The whole milliseconds of a window, as a summary's bounds are read.
fn read_from(text: &str) -> Result<Timestamp, String> {
    read_bound(text, Rounding::Up)
}

fn read_to(text: &str) -> Result<Timestamp, String> {
    read_bound(text, Rounding::Down)
}

/// # Errors
/// If they cannot be compared: a file that cannot be read or is cut off, a processor that does not
/// tell, flags that contradict each other.
pub fn run(args: &ReconcileArgs) -> Result<ExitCode, String> {
    check(args)?;
    let window = Window { from: args.from, to: args.to };
    let (mut room, mut numbers) = (Room::default(), Numbers::default());
    let (mut here, mut there) = (Side::default(), Side::default());
    for path in &args.books {
        if path.is_dir() {
            let progress = Progress::of(&format!("reading {}", path.display()), 0);
            books::read_journal(path, &mut numbers, |rows| {
                here.take(rows.inspect(|_| progress.advance(1)), window, &mut room)
            })?;
        } else {
            read_file(path, |file, name| {
                here.take(Exported::open(file, name, &mut numbers)?, window, &mut room)
            })?;
        }
    }
    let told = told(args, &numbers)?;
    let of_books = |name: &str| numbers.by_name(name).ok_or_else(|| unknown(name, &numbers));
    for (name, path) in &args.statement {
        let processor = of_books(name)?;
        read_file(path, |file, name| {
            let rows = Statement::open(file, name, processor, &args.format)?;
            there.take(rows, window, &mut room)
        })?;
    }
    for (name, url) in &args.processor {
        let processor = of_books(name)?;
        let progress = Progress::of(&format!("asking {url}"), 0);
        let server = Server::find(url)?;
        let asked = ask::Processor { server, token: args.token.clone() };
        let rows = asked.listing()?.inspect(|_| progress.advance(1));
        let rows = rows.map(|it| {
            it.map(|Booking { id, amount, requested_at }| {
                let settlement = Settlement { processor, amount, requested_at };
                Row::Held(Some(id), settlement)
            })
        });
        there.take(rows, window, &mut room)?;
    }
    let report = {
        let _progress = Progress::of("comparing", 0);
        here.sort();
        there.sort();
        let time_tolerance_ms = args.time_tolerance.as_millis().try_into().unwrap_or(u64::MAX);
        let rules = Rules { time_tolerance_ms, told };
        let names = numbers.names();
        Report::of([&here, &there], names, window, rules, args.examples as usize)
    };
    if args.json {
        say(report.json())
    } else {
        say(&report)
    }
    Ok(if report.is_same() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What can be told before anything is read.
fn check(args: &ReconcileArgs) -> Result<(), String> {
    args.format.read_amounts()?;
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        return Err("--from is after --to".into());
    }
    let (by_file, asked) =
        (args.statement.iter().map(|it| &it.0), args.processor.iter().map(|it| &it.0));
    for name in asked.clone() {
        if asked.clone().filter(|it| *it == name).count() > 1
            || by_file.clone().any(|it| it == name)
        {
            return Err(format!("there are two sources for the books of {name}: give one of them"));
        }
    }
    if by_file.chain(asked).next().is_none() {
        return Err("with what? --statement default=FILE, or --processor default=URL".into());
    }
    Ok(())
}

/// Whose books there are, of the processors that galo's have.
fn told(args: &ReconcileArgs, numbers: &Numbers) -> Result<Each<bool>, String> {
    let mut told = Each::default();
    let names = args.statement.iter().map(|it| &it.0).chain(args.processor.iter().map(|it| &it.0));
    for name in names {
        let processor = numbers.by_name(name).ok_or_else(|| unknown(name, numbers))?;
        told[processor.index()] = true;
    }
    Ok(told)
}

fn unknown(name: &str, numbers: &Numbers) -> String {
    format!("{name} is no processor of these books, which have {}", numbers.names())
}

fn read_file<T>(
    path: &Path,
    read: impl FnOnce(&mut dyn std::io::Read, &str) -> Result<T, String>,
) -> Result<T, String> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    // A pipe has no length; neither does what cannot be asked.
    let length = file.metadata().map_or(0, |it| it.len());
    let progress = Progress::of(&format!("reading {name}"), length);
    read(&mut progress.reading(file), &name)
}
