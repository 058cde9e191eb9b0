//! What is lost, told line by line, with the time around each hole; and the payments to ask about.
//!
//! Knows nothing of how it is found. The invariant: whatever is told to be lost makes the whole
//! journal one that has lost something.

use crate::base::clock::Timestamp;
use std::collections::HashSet;
use std::fmt::Display;
use std::io::{self, Write};

/// See the module.
pub struct Report<'a> {
    out: &'a mut dyn Write,
    /// The first line that could not be written.
    failed: Option<io::Error>,
    /// What stands before the names of the files.
    directory: &'static str,
    /// Holes behind which nothing has said yet when it was written.
    open: Vec<String>,
    /// When the last sound record before was written.
    last: Option<Timestamp>,
    /// Around all holes: from (the beginning if nothing is known) and to (the end).
    window: Option<[Option<Timestamp>; 2]>,
    holes: usize,
    bytes: u64,
    /// Files of which something is lost.
    files: HashSet<String>,
}

/// A time, or what stands for it where there is none.
fn or(at: Option<Timestamp>, otherwise: &str) -> String {
    at.map_or_else(|| otherwise.into(), |at| at.to_string())
}

/// Records are written in the order of their times but for some milliseconds, on several threads.
const SLACK_MS: i64 = 1_000;
const BEGINNING: &str = "the beginning";
const END: &str = "the end";

impl<'a> Report<'a> {
    pub fn new(directory: &'static str, out: &'a mut dyn Write) -> Report<'a> {
        Report {
            out,
            failed: None,
            directory,
            open: Vec::new(),
            last: None,
            window: None,
            holes: 0,
            bytes: 0,
            files: HashSet::new(),
        }
    }

    pub fn line(&mut self, line: impl Display) {
        if let Err(error) = writeln!(self.out, "{line}") {
            self.failed.get_or_insert(error);
        }
    }

    /// Something of this file is lost.
    pub fn lost(&mut self, file: &str, bytes: u64, what: impl Display) {
        self.holes += 1;
        self.bytes += bytes;
        self.files.insert(file.into());
        let line = format!("lost: {}{file}: {what}", self.directory);
        self.open.push(format!("{line}; written between {}", or(self.last, BEGINNING)));
        let [from, to] = self.window.unwrap_or([self.last, None]);
        self.window = Some([from.min(self.last), to]);
    }

    /// Something sound was written then.
    pub fn at(&mut self, at: Timestamp) {
        if !self.open.is_empty() {
            self.close(Some(at));
        }
        self.last = Some(at);
    }

    fn close(&mut self, at: Option<Timestamp>) {
        for line in std::mem::take(&mut self.open) {
            self.line(format_args!("{line} and {}", or(at, END)));
        }
        if let Some([_, to]) = &mut self.window {
            *to = if at.is_none() { None } else { at.max(*to) };
        }
    }

    /// What is lost altogether, if anything is. Tells the rest first: nothing more may be found.
    pub fn window(&mut self) -> Option<Window> {
        if !self.open.is_empty() {
            self.close(None);
        }
        let moved =
            |at: Option<Timestamp>, ms: i64| at.map(|at| Timestamp(at.0.saturating_add(ms)));
        self.window.map(|[from, to]| Window {
            holes: self.holes,
            bytes: self.bytes,
            from: or(moved(from, -SLACK_MS), BEGINNING),
            to: or(moved(to, SLACK_MS), END),
        })
    }

    /// Whether something of this file was told to be lost.
    pub fn has_told(&self, file: &str) -> bool {
        self.files.contains(file)
    }

    pub fn has_lost(&self) -> bool {
        self.window.is_some()
    }

    /// What stands before the names of the files.
    pub fn directory(&self) -> &'static str {
        self.directory
    }

    /// # Errors
    /// If any line could not be written.
    pub fn end(self) -> io::Result<()> {
        self.failed.map_or(Ok(()), Err)
    }
}

/// What is lost altogether.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub holes: usize,
    pub bytes: u64,
    /// Times as text, or "the beginning" and "the end".
    pub from: String,
    pub to: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hole_is_told_with_the_times_around_it() {
        let mut out = Vec::new();
        let mut report = Report::new("ledger/", &mut out);
        report.lost("a", 8, "x");
        report.at(Timestamp(1000));
        report.at(Timestamp(2000));
        report.lost("b", 16, "y");
        report.lost("b", 24, "z");
        report.at(Timestamp(3000));
        report.at(Timestamp(4000));
        report.lost("c", 0, "w");
        let window = report.window().unwrap();
        report.end().unwrap();
        assert_eq!((window.holes, window.bytes), (4, 48));
        assert_eq!((&*window.from, &*window.to), (BEGINNING, END));
        let told = String::from_utf8(out).unwrap();
        let second = |second: i64| Timestamp(second * 1000).to_string();
        let expected = [
            format!("a: x; written between the beginning and {}", second(1)),
            format!("b: y; written between {} and {}", second(2), second(3)),
            format!("b: z; written between {} and {}", second(2), second(3)),
            format!("c: w; written between {} and the end", second(4)),
        ];
        let expected: String =
            expected.iter().map(|line| format!("lost: ledger/{line}\n")).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn the_window_has_all_holes_in_it_and_a_second_more() {
        let mut out = Vec::new();
        let mut report = Report::new("", &mut out);
        assert_eq!(report.window(), None);
        report.at(Timestamp(10_000));
        report.lost("a", 8, "x");
        report.at(Timestamp(50_000));
        // The clock has been set back.
        report.at(Timestamp(20_000));
        report.lost("b", 8, "y");
        report.at(Timestamp(30_000));
        let window = report.window().unwrap();
        let text = |ms: i64| Timestamp(ms).to_string();
        assert_eq!((window.from, window.to), (text(9_000), text(51_000)));
    }

    #[test]
    fn a_report_that_cannot_be_written_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut full = Full;
        let mut report = Report::new("", &mut full);
        report.lost("a", 8, "x");
        report.window();
        report.end().unwrap_err();
    }
}
