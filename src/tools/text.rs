//! Text for people: numbers such as `16,762`, `333,563.80` and `0.34`, and lines on the terminal.
//!
//! Nobody may be reading any more (`galo demo | head`): that must not be a panic, and is noted.

use crate::base::money::Fee;
pub use crate::base::money::grouped;
use crate::payments::Processor;
use std::fmt::{Arguments, Display};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// Of one of the contest's two.
pub const fn contest_name(processor: Processor) -> &'static str {
    if processor.number() == Processor::DEFAULT.number() { "default" } else { "fallback" }
}

static UNREAD: AtomicBool = AtomicBool::new(false);
static WRITER: Mutex<Option<Sender<String>>> = Mutex::new(None);

/// From now on lines are written by a thread of their own: a terminal that is held (Ctrl-S) or a
/// disk that is busy must not hold up the event loop, where clients measure time.
///
/// # Errors
/// If there can be no thread.
pub fn start_writer() -> std::io::Result<Writer> {
    let (sender, lines) = channel::<String>();
    let write_all = move || lines.iter().for_each(|line| write_now(&line));
    let thread = std::thread::Builder::new().name("galo-writer".into()).spawn(write_all)?;
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
    Ok(Writer(Some(thread)))
}

/// Dropping it waits until every line is written.
pub struct Writer(Option<JoinHandle<()>>);

impl Drop for Writer {
    fn drop(&mut self) {
        *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// A line on stdout, soon.
pub fn say(line: impl Display) {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner);
    match &*writer {
        // Sending fails only after a panic of the writer, and that ends the process.
        Some(writer) => drop(writer.send(line.to_string())),
        None => write_now(&line.to_string()),
    }
}

fn write_now(line: &str) {
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
        UNREAD.store(true, Ordering::Relaxed);
    }
}

/// Whether a line could not be written to stdout.
pub fn is_unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// A terminal is at least so wide, in characters.
pub const COLUMNS: usize = 80;

/// Words in lines of at most [`COLUMNS`], each behind so many spaces. A longer word has a line of
/// its own.
pub fn wrapped(text: &str, indent: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{}{word}", " ".repeat(indent))),
        }
    }
    lines.join("\n")
}

/// A line on stderr.
pub fn say_aside(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Cents as a decimal with two places and commas between thousands.
pub fn money(cents: i128) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let magnitude = cents.unsigned_abs();
    format!("{sign}{}.{:02}", grouped(magnitude / 100), magnitude % 100)
}

/// Microseconds as milliseconds with two places, the last one rounded.
pub fn milliseconds(us: u64) -> String {
    let hundredths = (us + 5) / 10;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `5 %`, `0.5 %`.
pub fn percent(fee: Fee) -> String {
    let text = format!("{}.{:04}", fee.0 / 10_000, fee.0 % 10_000);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_long_as_they_may_be() {
        let text = "word ".repeat(40);
        let lines = wrapped(&text, 7);
        let lengths: Vec<_> = lines.lines().map(str::len).collect();
        assert_eq!(lengths, [76, 76, 66]);
        assert!(lines.lines().all(|line| line.starts_with("       word")));
        assert_eq!(wrapped("", 7), "");
        assert_eq!(wrapped(&"x".repeat(100), 2).len(), 102);
    }

    #[test]
    fn numbers() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567"), (-100, "-100")]
        {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(money(33_356_380), "333,563.80");
        assert_eq!(money(-5), "-0.05");
        assert_eq!(milliseconds(344), "0.34");
        assert_eq!(milliseconds(1_595), "1.60");
        assert_eq!(percent(Fee(50_000)), "5 %");
        assert_eq!(percent(Fee(100_000)), "10 %");
        assert_eq!(percent(Fee(5_000)), "0.5 %");
    }
}
