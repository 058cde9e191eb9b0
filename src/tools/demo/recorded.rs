//! `galo report`: the page as a file, out of what an admin door has said while a run was recorded.
//!
//! Reads status documents, a line each, and keeps no more of them than the page shows.

use super::board::{Ended, Shown};
use super::report::Report;
use super::status::Document;
use crate::tools::text::{say, say_aside};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A document and its end of line, in bytes. They have 10 KB to 60 KB, most of it the log.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Make a page of a run out of what `GET /status.json` said of it, second by second
///
/// One document a line; others are left out. The last five minutes are shown. The page is one file
/// that a browser opens without a server.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// The documents: a file, or `-` for the standard input
    #[arg(value_name = "FILE")]
    pub documents: PathBuf,

    /// Where the page goes; one that is there is replaced
    #[arg(long, value_name = "FILE.html")]
    pub to: PathBuf,

    /// A text that says how the run ended, for the page
    #[arg(long, value_name = "FILE")]
    pub ended: Option<PathBuf>,

    /// It did not end well
    #[arg(long, requires = "ended")]
    pub badly: bool,
}

/// # Errors
/// If a file cannot be read or written, or has no status document.
pub fn run(args: &ReportArgs) -> Result<ExitCode, String> {
    let name = args.documents.display();
    let in_file = |error: io::Error| format!("{name}: {error}");
    let ended = args.ended.as_deref().map(|path| read_ended(path, args.badly)).transpose()?;
    let mut report = Report::to(&args.to)?;
    let read = if args.documents == Path::new("-") {
        read_all(io::stdin().lock(), &mut report)
    } else {
        let file = File::open(&args.documents).map_err(in_file)?;
        read_all(BufReader::new(file), &mut report)
    };
    let Read { last, others } = read.map_err(in_file)?;
    let last = last.ok_or_else(|| format!("{name}: there is no status document in it"))?;
    if others > 0 {
        say_aside(format_args!("galo: {name}: {others} lines are no status document"));
    }
    let shown = ended.map(|ended| Shown { ended: Some(ended), ..Shown::default() });
    let path = report.finish(last, shown)?;
    say(format_args!("the report is in {}", path.display()));
    Ok(ExitCode::SUCCESS)
}

fn read_ended(path: &Path, badly: bool) -> Result<Ended, String> {
    let mut text = String::new();
    let file =
        File::open(path).and_then(|file| file.take(LINE_BYTES_MAX).read_to_string(&mut text));
    file.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Ended { good: !badly, text })
}

/// What was in a file.
#[derive(Default)]
struct Read {
    last: Option<Document>,
    /// Lines that are none, as a refusal or what was cut short leaves them.
    others: usize,
}

/// Adds all documents but the last one, which it gives back.
fn read_all(mut lines: impl BufRead, report: &mut Report) -> io::Result<Read> {
    let (mut read, mut line) = (Read::default(), Vec::new());
    loop {
        line.clear();
        (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(read);
        }
        match Document::read(&line) {
            Some(document) => {
                if let Some(before) = read.last.replace(document) {
                    report.add(&before);
                }
            }
            None => read.others += usize::from(!line.trim_ascii().is_empty()),
        }
    }
}
