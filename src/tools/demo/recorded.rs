//! `galo report`: the page as a file, out of what an admin door has said while a run was recorded.
//!
//! Reads status documents, a line each, and keeps no more of them than the page shows.

use super::board::{Ended, Shown};
use super::report::Report;
use super::status::Document;
use crate::tools::text::say;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A document and its end of line, in bytes. They have 10 KB to 60 KB, most of it the log.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Make a page of a run out of what `GET /status.json` said of it, second by second
///
/// One document a line; the last five minutes are shown. The page is one file that a browser opens
/// without a server.
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
/// If a file cannot be read or written, or a line is no status document: with the line's number.
pub fn run(args: &ReportArgs) -> Result<ExitCode, String> {
    let name = args.documents.display();
    let in_file = |error: io::Error| format!("{name}: {error}");
    let ended = args.ended.as_deref().map(|path| read_ended(path, args.badly)).transpose()?;
    let mut report = Report::to(&args.to)?;
    let last = if args.documents == Path::new("-") {
        read_all(io::stdin().lock(), &mut report)
    } else {
        let file = File::open(&args.documents).map_err(in_file)?;
        read_all(BufReader::new(file), &mut report)
    };
    let last = last.map_err(in_file)?.ok_or_else(|| format!("{name}: there is no document"))?;
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

/// Adds all but the last one, which it gives back.
fn read_all(mut lines: impl BufRead, report: &mut Report) -> io::Result<Option<Document>> {
    let (mut last, mut line) = (None, Vec::new());
    for number in 1_u64.. {
        line.clear();
        (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let no_document = || io::Error::other(format!("line {number} is no status document"));
        let document = Document::read(&line).ok_or_else(no_document)?;
        if let Some(before) = last.replace(document) {
            report.add(&before);
        }
    }
    Ok(last)
}
