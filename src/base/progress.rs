//! How far it is, on stderr and only for people: nothing is written unless that is a terminal.
//!
//! The invariant: one line, the last on the terminal, which goes before anything else is written
//! there through [`Above`] and when what it tells of has ended.

use crate::base::clock;
use crate::base::money::grouped;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const SHOW_EVERY: Duration = Duration::from_millis(100);
const BAR_WIDTH: u64 = 24;

/// Whether there is a line on the terminal now.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// A line that is written over, until it is dropped.
#[derive(Debug)]
pub struct Progress {
    is_terminal: bool,
    what: String,
    /// Zero if nobody knows.
    whole: u64,
    done: AtomicU64,
    /// When it was written last, in µs of the clock for durations; 0 for never.
    shown_at: AtomicU64,
}

impl Progress {
    /// `whole` is in bytes or whatever is done piece by piece; zero, if it is not known.
    pub fn of(what: &str, whole: u64) -> Progress {
        let progress = Progress {
            is_terminal: io::stderr().is_terminal(),
            what: what.chars().take(40).flat_map(char::escape_debug).collect(),
            whole,
            done: AtomicU64::new(0),
            shown_at: AtomicU64::new(0),
        };
        progress.advance(0);
        progress
    }

    pub fn advance(&self, by: u64) {
        let done = self.done.fetch_add(by, Relaxed).saturating_add(by);
        if !self.is_terminal {
            return;
        }
        let (now, before) = (clock::moment(), self.shown_at.load(Relaxed));
        if before == 0 || now.0.saturating_sub(before) >= SHOW_EVERY.as_micros() as u64 {
            self.shown_at.store(now.0, Relaxed);
            IS_SHOWN.store(true, Relaxed);
            let _ = write!(io::stderr(), "\r\x1b[K{}", line(&self.what, done, self.whole));
        }
    }

    /// Counts the bytes that are read.
    pub fn reading<R: Read>(&self, source: R) -> impl Read {
        Metered { source, progress: self }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        erase();
    }
}

fn erase() {
    if IS_SHOWN.swap(false, Relaxed) {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// What goes to the same terminal, in whole lines, stays above the line.
pub struct Above<W>(pub W);

impl<W: Write> Write for Above<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        erase();
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn line(what: &str, done: u64, whole: u64) -> String {
    if whole == 0 {
        return if done == 0 { what.to_owned() } else { format!("{what}  {}", grouped(done)) };
    }
    // A file may grow while it is read.
    let done = u128::from(done.min(whole));
    let share = |of: u64| (done * u128::from(of) / u128::from(whole)) as usize;
    let full = share(BAR_WIDTH);
    let (bar, rest) = ("#".repeat(full), ".".repeat(BAR_WIDTH as usize - full));
    format!("{what}  [{bar}{rest}] {:>3} %", share(100))
}

struct Metered<'a, R> {
    source: R,
    progress: &'a Progress,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.progress.advance(length as u64);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        assert_eq!(line("sorting", 0, 0), "sorting");
        assert_eq!(line("asking", 1_234_567, 0), "asking  1,234,567");
        assert_eq!(line("reading a", 0, 10), format!("reading a  [{}]   0 %", ".".repeat(24)));
        let half = format!("reading a  [{}{}]  50 %", "#".repeat(12), ".".repeat(12));
        assert_eq!(line("reading a", 5, 10), half);
        assert_eq!(line("reading a", 11, 10), format!("reading a  [{}] 100 %", "#".repeat(24)));
    }

    #[test]
    fn what_is_read_is_counted() {
        let progress = Progress::of("reading", 3);
        let mut read = Vec::new();
        progress.reading(&b"abc"[..]).read_to_end(&mut read).unwrap();
        assert_eq!((&read[..], progress.done.load(Relaxed)), (&b"abc"[..], 3));
    }
}
