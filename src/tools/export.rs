//! `galo export DIR…`: what journals hold, payment by payment, for another system. Those of a pair are
//! given together, and come out as one, settlements in the order of their time.
//!
//! Streamed: a block of each volume is in memory. The last lines are the totals and a digest, so that
//! half a file cannot be taken for a whole one. With `--follow` it goes on with what is written, until
//! it is asked to end.

use crate::base::clock::{Rounding, Timestamp};
use crate::base::money::{Cents, Fee, Total};
use crate::base::progress::{Above, Progress};
use crate::instance::signals;
use crate::journal::abridged::Archive;
use crate::journal::entries::Since;
use crate::journal::follow::{Follower, Told};
use crate::journal::reading::Reading;
use crate::journal::{JournalError, LEDGER_DIRECTORY, Position, inspect, volume};
use crate::ledger::{Entry, Kind};
use crate::payments::names::Names;
use crate::payments::resolution::{Action, Resolution};
use crate::payments::story::fee_text;
use crate::payments::{Attempts, Each, Line, Rejection, Settlement, Totals, Window};
use crate::tools::numbers::{Common, Numbers};
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

/// So often it is looked for what has been written.
const LOOK_EVERY: Duration = Duration::from_millis(250);

const PURGED: &str =
    "the journal cannot be followed: it was purged, and all that was told is void. Begin anew";

/// The names of the columns.
pub const COLUMNS: &str = "record,id,processor,amount,requested_at,fee,attempts,accepted_at,note";

/// Of a file whose payments are not told, as it is not beside the journal.
pub const ARCHIVED: &str = "archived";

/// Write all that journals hold, payment by payment, as CSV or JSON lines
///
/// Reads only, also while instances use them. Exit code 0: everything was written, up to the digest;
/// 2: not.
#[derive(Clone, Debug, clap::Args)]
pub struct ExportArgs {
    /// The journals' directories: of a pair both
    #[arg(required = true)]
    pub directories: Vec<PathBuf>,

    #[arg(long, value_enum, default_value_t = Format::Csv)]
    pub format: Format,

    /// Go on with what is settled and rejected from now on, until SIGINT or SIGTERM. Payments on
    /// their way and the ledger are left out
    #[arg(long)]
    pub follow: bool,

    /// Only settlements requested at or after this (RFC 3339)
    #[arg(long, value_parser = parse_time)]
    pub from: Option<Timestamp>,

    /// Only settlements requested at or before this (RFC 3339)
    #[arg(long, value_parser = parse_time)]
    pub to: Option<Timestamp>,

    /// What the default processor keeps
    #[arg(long, default_value = "0.05", env = "GALO_DEFAULT_FEE")]
    pub default_fee: Fee,

    /// What the fallback processor keeps
    #[arg(long, default_value = "0.15", env = "GALO_FALLBACK_FEE")]
    pub fallback_fee: Fee,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// RFC 4180, with a line of names
    Csv,
    /// An object a line
    Json,
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let time = Timestamp::parse(text.as_bytes(), Rounding::Down);
    time.ok_or_else(|| "it must be a time such as 2025-07-01T00:00:00Z".into())
}

/// # Errors
/// If a journal cannot be read, or the output not be written: then it has no digest.
pub fn run(args: &ExportArgs) -> Result<ExitCode, String> {
    let out = BufWriter::with_capacity(1 << 16, Above(io::stdout().lock()));
    let (tell, asked) = mpsc::channel();
    if args.follow {
        // Nobody waits for it any more: it is ending.
        signals::watch(move || _ = tell.send(()), || {})?;
    }
    match export(args, out, &asked) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Whoever read this has seen enough, but not all.
        Err(Failed::Unwritten(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::from(2))
        }
        Err(Failed::Unwritten(error)) => Err(format!("the export cannot be written: {error}")),
        Err(Failed::Unread(reason)) => Err(reason),
    }
}

/// Why an export is not whole.
#[derive(Debug)]
pub enum Failed {
    Unread(String),
    Unwritten(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Unwritten(error)
    }
}

impl From<JournalError> for Failed {
    fn from(error: JournalError) -> Failed {
        Failed::Unread(error.to_string())
    }
}

/// Follows, if it is to, until something comes from `asked`.
fn export(args: &ExportArgs, out: impl Write, asked: &Receiver<()>) -> Result<(), Failed> {
    let (mut payments, mut ledgers) = (Vec::new(), Vec::new());
    for directory in &args.directories {
        inspect::expect_journal(directory).map_err(Failed::Unread)?;
        payments.push(Reading::new(directory)?);
        let ledger = directory.join(LEDGER_DIRECTORY);
        if ledger.is_dir() && !args.follow {
            ledgers.push(Reading::new(&ledger)?);
        }
    }
    let mut sheet = Sheet {
        out,
        format: args.format,
        fees: [args.default_fee, args.fallback_fee],
        numbers: Numbers::default(),
        names: Rc::new(Names::contest()),
        window: Window { from: args.from, to: args.to },
        totals: Each::<Totals>::default(),
        digest: 0,
        buffer: Vec::new(),
    };
    let commons = payments.iter().map(|reading| sheet.common(&reading.names));
    let commons = commons.collect::<Result<Vec<_>, _>>()?;
    if args.format == Format::Csv {
        sheet.write(format_args!("{COLUMNS}\n"))?;
    }
    for reading in &payments {
        reading.absent.iter().try_for_each(|archive| sheet.absent(archive, &reading.names))?;
    }
    let progress = Progress::of("writing, payments", 0);
    let settled = payments.iter().zip(&commons).map(|(reading, common)| {
        reading.settled().map(|line| line.map(|line| in_common(line, common)))
    });
    for line in volume::merged(settled.collect()) {
        let line = line.map_err(|(_, error)| error)?;
        let resolution = line.id.and_then(|id| payments.iter().find_map(|it| it.resolved.get(&id)));
        sheet.counted(&line, resolution.map(|it| &**it))?;
        progress.advance(1);
    }
    drop(progress);
    for reading in &payments {
        let mut rejected = reading.rejected.iter();
        rejected.try_for_each(|rejection| sheet.rejected(rejection, &reading.names))?;
        for resolution in cancelled(reading) {
            sheet.cancelled(resolution)?;
        }
    }
    if args.follow {
        let read = args.directories.iter().zip(&payments);
        let followers = read.map(|(path, reading)| reading.follow(path));
        let followers = followers.collect::<Result<_, _>>()?;
        // What was settled before is not held any longer.
        drop(payments);
        sheet.follow(followers, asked)?;
        return sheet.end();
    }
    for reading in &payments {
        sheet.outstanding(reading)?;
    }
    for reading in &ledgers {
        sheet.ledger(reading)?;
    }
    sheet.end()
}

/// One line. What there is not is empty in CSV, and left out in JSON.
#[derive(Default, Serialize)]
struct Row {
    record: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    processor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    amount: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    requested_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fee: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    attempts: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    accepted_at: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    note: String,
}

impl Row {
    fn new(record: &'static str, id: String) -> Row {
        Row { record, id, ..Row::default() }
    }
}

fn attempts(attempts: Attempts) -> String {
    if attempts.0 == 0 { String::new() } else { attempts.0.to_string() }
}

/// A line of a journal with the common number of its processor.
fn in_common(line: Line, common: &Common) -> Line {
    let processor = common.of(line.settlement.processor);
    Line { settlement: Settlement { processor, ..line.settlement }, ..line }
}

fn settled_row(line: &Line, name: &str, fee: String, resolution: Option<&Resolution>) -> Row {
    let Line { id, settlement: Settlement { amount, requested_at, .. }, .. } = *line;
    let mut row = Row::new("settled", id.map_or(String::new(), |id| id.to_string()));
    (row.processor, row.amount) = (name.into(), amount.to_string());
    row.requested_at = requested_at.to_string();
    row.fee = fee;
    row.attempts = attempts(line.attempts);
    row.note = match id {
        Some(_) => noted(resolution),
        None => "books of before version 3 keep no id".into(),
    };
    row
}

/// Those that are cancelled, in the order of their ids.
fn cancelled(reading: &Reading) -> Vec<&Resolution> {
    let all = reading.resolved.values().map(|it| &**it);
    let mut cancelled: Vec<_> = all.filter(|it| it.action == Action::Cancelled).collect();
    cancelled.sort_unstable_by_key(|it| it.id);
    cancelled
}

/// Who has decided about it, and why.
fn noted(resolution: Option<&Resolution>) -> String {
    resolution.map_or(String::new(), |it| {
        let Resolution { action, at, by, reason, .. } = it;
        format!("resolved as {} on {at} by {by}: {reason}", action.name())
    })
}

struct Sheet<W> {
    out: W,
    format: Format,
    /// Of those that are called default and fallback.
    fees: [Fee; 2],
    numbers: Numbers,
    /// By the common numbers.
    names: Rc<Names>,
    window: Window,
    /// Of what was written.
    totals: Each<Totals>,
    /// CRC-32C of all that was written.
    digest: u32,
    buffer: Vec<u8>,
}

impl<W: Write> Sheet<W> {
    /// What this journal has of payments that are not over.
    fn outstanding(&mut self, reading: &Reading) -> Result<(), Failed> {
        for (id, open) in &reading.open {
            let mut row = Row::new("waiting", id.to_string());
            (row.amount, row.attempts) = (open.amount.to_string(), attempts(open.attempts));
            row.accepted_at = open.accepted_at.to_string();
            if let Some((processor, requested_at)) = open.attempt {
                row.record = "in_doubt";
                row.processor = reading.names.name_of(processor).into();
                row.requested_at = requested_at.to_string();
            }
            row.note = noted(reading.resolved.get(id).map(|it| &**it));
            self.row(&row)?;
        }
        Ok(())
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.write_fmt(text)?;
        self.digest = crc32c::crc32c_append(self.digest, &self.buffer);
        self.out.write_all(&self.buffer)
    }

    fn row(&mut self, row: &Row) -> Result<(), Failed> {
        if self.format == Format::Json {
            let text = sonic_rs::to_string(row).map_err(io::Error::other)?;
            return Ok(self.write(format_args!("{text}\n"))?);
        }
        let Row { record, id, processor, amount, requested_at, fee, attempts, accepted_at, note } =
            row;
        let note = quoted(note);
        Ok(self.write(format_args!(
            "{record},{id},{processor},{amount},{requested_at},{fee},{attempts},{accepted_at},{note}\n"
        ))?)
    }

    /// The common numbers of a journal's processors.
    fn common(&mut self, names: &Names) -> Result<Common, Failed> {
        let common = self.numbers.common(names).map_err(Failed::Unread)?;
        self.names = Rc::new(self.numbers.names());
        Ok(common)
    }

    /// What a processor keeps of an amount, in cents; nothing if nobody has said what its fee is.
    fn fee(&self, name: &str, cents: i128) -> String {
        match name {
            "default" => fee_text(self.fees[0].of(cents)),
            "fallback" => fee_text(self.fees[1].of(cents)),
            _ => String::new(),
        }
    }

    /// Writes what comes up in these journals, until something comes from `asked`.
    fn follow(&mut self, mut followers: Vec<Follower>, asked: &Receiver<()>) -> Result<(), Failed> {
        loop {
            let ended = asked.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout);
            for follower in &mut followers {
                while self.follow_one(follower)? {}
            }
            if ended {
                return Ok(());
            }
            self.out.flush()?;
        }
    }

    /// Whether there may be more.
    fn follow_one(&mut self, follower: &mut Follower) -> Result<bool, Failed> {
        // A start may have added some.
        let names = follower.names().clone();
        let common = self.common(&names)?;
        follower.step(Position::LAST, &mut |_, told| match told {
            Told::Settled(line) => self.counted(&in_common(line, &common), None),
            Told::Rejected(rejection) => self.rejected(&rejection, &names),
            Told::Resolved(it) if it.action == Action::Cancelled => self.cancelled(&it),
            Told::Resolved(_) => Ok(()),
            Told::Purged => Err(Failed::Unread(PURGED.into())),
        })
    }

    /// What would have been told if the archive were beside the journal.
    fn absent(&mut self, archive: &Archive, names: &Names) -> Result<(), Failed> {
        let Archive { from, to, totals, .. } = *archive;
        let is_before = self.window.from.is_some_and(|it| to < it);
        if is_before || self.window.to.is_some_and(|it| from > it) {
            return Ok(());
        }
        for ((_, name), Totals { count, amount }) in names.iter().zip(totals) {
            let mut row = Row::new(ARCHIVED, archive.name());
            (row.processor, row.amount) = (name.into(), amount.to_string());
            row.requested_at = from.to_string();
            row.note = format!("{count} settlements up to {to}, in a file that is not here");
            self.row(&row)?;
        }
        Ok(())
    }

    /// If it is one of those that are asked for.
    fn counted(&mut self, line: &Line, by_hand: Option<&Resolution>) -> Result<(), Failed> {
        let Settlement { processor, amount, requested_at } = line.settlement;
        if !self.window.contains(requested_at) {
            return Ok(());
        }
        self.totals[processor.index()] += Totals { count: 1, amount: Total(amount.0.into()) };
        self.settled(line, by_hand)
    }

    /// The line of nearly every one: without a text for each of its parts.
    fn settled(&mut self, line: &Line, by_hand: Option<&Resolution>) -> Result<(), Failed> {
        let Line { id, settlement: Settlement { processor, amount, requested_at }, .. } = *line;
        let (names, attempts) = (self.names.clone(), attempts(line.attempts));
        let name = names.name_of(processor);
        let fee = self.fee(name, amount.0.into());
        if self.format == Format::Csv
            && by_hand.is_none()
            && let Some(id) = id
        {
            return Ok(self.write(format_args!(
                "settled,{id},{name},{amount},{requested_at},{fee},{attempts},,\n"
            ))?);
        }
        self.row(&settled_row(line, name, fee, by_hand))
    }

    fn cancelled(&mut self, resolution: &Resolution) -> Result<(), Failed> {
        let mut row = Row::new("cancelled", resolution.id.to_string());
        row.amount = resolution.amount.to_string();
        row.note = noted(Some(resolution));
        self.row(&row)
    }

    fn rejected(&mut self, rejection: &Rejection, names: &Names) -> Result<(), Failed> {
        let mut row = Row::new("rejected", rejection.id.to_string());
        row.amount = rejection.amount.to_string();
        let said = names.iter().zip(rejection.statuses);
        let said = said.map(|((_, name), status)| format!("{name} {status}"));
        row.note = said.collect::<Vec<_>>().join("; ");
        self.row(&row)
    }

    /// The entries that are there one by one, then every account, with the entry from which on all
    /// of its entries are there.
    fn ledger(&mut self, reading: &Reading) -> Result<(), Failed> {
        let since = reading.entries(|entry| self.entry(entry))?;
        for ((id, history), since) in reading.accounts.iter().zip(since) {
            let mut row = Row::new("account", id.0.to_string());
            row.amount = history.balance.to_string();
            row.note = format!("{} entries", history.sequence);
            match since {
                Since { sequence: 1, .. } => {}
                Since { sequence, at: Some(at) } => {
                    let at = Timestamp(at.0.div_euclid(1_000));
                    row.note += &format!(", all from number {sequence} of {at} on");
                }
                Since { at: None, .. } => row.note += ", the last of them missing",
            }
            self.row(&row)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Failed> {
        let mut row = Row::new("entry", entry.account.0.to_string());
        let value = entry.transaction.value.0;
        row.amount = match entry.transaction.kind {
            Kind::Credit => Cents(value),
            Kind::Debit => Cents(-value),
        }
        .to_string();
        row.requested_at = Timestamp(entry.at.0.div_euclid(1_000)).to_string();
        row.note = format!(
            "number {}; balance {}; {}",
            entry.sequence,
            entry.balance,
            entry.transaction.description.as_str()
        );
        self.row(&row)
    }

    fn end(&mut self) -> Result<(), Failed> {
        let names = self.names.clone();
        for ((_, name), Totals { count, amount }) in names.iter().zip(self.totals) {
            let mut row = Row::new("total", count.to_string());
            (row.processor, row.amount) = (name.into(), amount.to_string());
            row.fee = self.fee(name, amount.0);
            self.row(&row)?;
        }
        self.row(&Row::new("digest", format!("crc32c:{:08x}", self.digest)))?;
        Ok(self.out.flush()?)
    }
}

/// As RFC 4180 has it.
fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}
