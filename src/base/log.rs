//! What an operator is told: lines on stderr, written by a thread of their own.
//!
//! The invariant: whoever logs never waits for whoever reads. A line is formatted, counted and put
//! into a bounded queue; what does not fit is dropped and counted, and so is what a call site says
//! too often. Only the end of the process waits for the queue, and not for long.

use crate::base::clock::{self, Moment, Timestamp};
use crate::base::limits::{
    LOG_FLUSH_WITHIN, LOG_LINE_BYTES_MAX, LOG_LINES_A_SECOND, LOG_LINES_A_SECOND_AND_SITE,
    LOG_LINES_RECENT, LOG_QUEUE_LINES,
};
use log::{Level, LevelFilter, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// So long a window is in which lines are counted.
const SECOND: Duration = Duration::from_secs(1);

static LOG: OnceLock<Log> = OnceLock::new();

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Time, level, instance and text, for people
    #[default]
    Text,
    /// The same as a JSON object, for machines
    Json,
}

/// Begins to take lines, of this level and worse, in the name of `name`. Once a process.
///
/// # Errors
/// In one line, if there is no thread to write them.
pub fn start(level: LevelFilter, format: Format, name: &str) -> Result<(), String> {
    let style = Style { format, name: name.into() };
    let log = Log::new(level, style, io::stderr())
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    let log = LOG.get_or_init(|| log);
    // Only a second call can fail, and its lines go to the first.
    let _ = log::set_logger(log).map(|()| log::set_max_level(level));
    Ok(())
}

/// What was said last, the newest last: at most [`LOG_LINES_RECENT`] lines.
pub fn recent() -> Vec<Said> {
    let log = LOG.get();
    log.map_or_else(Vec::new, |log| log.shared.lock().recent.iter().cloned().collect())
}

/// Waits until everything said so far is written, and no longer than [`LOG_FLUSH_WITHIN`]: for the
/// last moments of a process.
pub fn flush() {
    if let Some(log) = LOG.get() {
        log.flush(LOG_FLUSH_WITHIN);
    }
}

/// The last words of a process, a line as it is. Whoever does not read them does not hold it up.
pub fn say_at_last(line: &str) {
    match LOG.get() {
        Some(log) => {
            let mut state = log.shared.lock();
            state.push(log.shared.style.last_words(line));
            drop(state);
            log.shared.said.notify_one();
            log.flush(LOG_FLUSH_WITHIN);
        }
        None => eprintln!("{line}"),
    }
}

/// See the module.
struct Log {
    level: LevelFilter,
    shared: Arc<Shared>,
}

/// Between those who say something and the thread that writes it.
struct Shared {
    style: Style,
    state: Mutex<State>,
    said: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct State {
    limiter: Limiter,
    queue: VecDeque<String>,
    /// The last ones, written or dropped.
    recent: VecDeque<Said>,
    /// Lines that found the queue full since that was last told.
    dropped: u64,
    /// The thread has taken a line and not written it yet.
    is_writing: bool,
}

impl Log {
    fn new(level: LevelFilter, style: Style, sink: impl AsFd + Send + 'static) -> io::Result<Log> {
        let state = Mutex::default();
        let (said, written) = (Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { style, state, said, written });
        let writer = shared.clone();
        let thread = std::thread::Builder::new().name("galo-log".into());
        thread.spawn(move || writer.write(&sink))?;
        Ok(Log { level, shared })
    }

    fn say(&self, site: Site, level: Level, text: String, now: Moment, at: Timestamp) {
        let said = Said { at, level, text };
        let shared = &*self.shared;
        let mut state = shared.lock();
        state.take_over_held_back(now, &shared.style);
        if let Some(said) = state.limiter.admit(site, said) {
            state.take(said, &shared.style);
        }
        drop(state);
        shared.said.notify_one();
    }

    /// Waits until everything is written, what was held back included. False if that took too long.
    fn flush(&self, limit: Duration) -> bool {
        let give_up_at = clock::moment() + limit;
        let mut state = self.shared.lock();
        for said in state.limiter.end_window() {
            state.take(said, &self.shared.style);
        }
        self.shared.said.notify_one();
        loop {
            let left = give_up_at.since(clock::moment());
            if state.queue.is_empty() && !state.is_writing {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.written.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let site = (record.file_static().unwrap_or_default(), record.line().unwrap_or(0));
            let text = clean(&record.args().to_string());
            self.say(site, record.level(), text, clock::moment(), clock::now());
        }
    }

    fn flush(&self) {
        Log::flush(self, LOG_FLUSH_WITHIN);
    }
}

/// One line of bounded length, whatever it quotes.
fn clean(text: &str) -> String {
    let fits = |(start, it): &(usize, char)| start + it.len_utf8() <= LOG_LINE_BYTES_MAX;
    let characters = text.char_indices().take_while(fits).map(|(_, it)| it);
    characters.map(|it| if it.is_control() { ' ' } else { it }).collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the thread.
    fn write(&self, sink: &impl AsFd) {
        let mut lost = 0;
        loop {
            let line = self.next_line();
            match write_all(sink, line.as_bytes()) {
                Ok(()) => self.lock().dropped += std::mem::take(&mut lost),
                // Closed, or its disk is full. Told when it takes lines again, if it ever does.
                Err(_) => lost += 1,
            }
            self.lock().is_writing = false;
            self.written.notify_all();
        }
    }

    fn next_line(&self) -> String {
        let mut state = self.lock();
        loop {
            let now = clock::moment();
            state.take_over_held_back(now, &self.style);
            if let Some(line) = state.next_line(&self.style) {
                state.is_writing = true;
                return line;
            }
            state = match state.limiter.is_over_at() {
                None => self.said.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let waited = self.said.wait_timeout(state, at.since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl State {
    fn take(&mut self, said: Said, style: &Style) {
        self.note_gap(style);
        self.push(style.line(&said));
        if self.recent.len() == LOG_LINES_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(said);
    }

    /// Where the gap is. It needs a place itself.
    fn note_gap(&mut self, style: &Style) {
        if self.dropped > 0 && self.queue.len() + 1 < LOG_QUEUE_LINES {
            let note = self.note(style);
            self.queue.push_back(note);
        }
    }

    fn push(&mut self, line: String) {
        if self.queue.len() < LOG_QUEUE_LINES {
            self.queue.push_back(line);
        } else {
            self.dropped += 1;
        }
    }

    fn next_line(&mut self, style: &Style) -> Option<String> {
        let line = self.queue.pop_front();
        line.or_else(|| (self.dropped > 0).then(|| self.note(style)))
    }

    fn note(&mut self, style: &Style) -> String {
        let text = format!("{} lines were dropped", std::mem::take(&mut self.dropped));
        match style.format {
            Format::Text => format!("… {text}\n"),
            Format::Json => style.line(&Said { at: clock::now(), level: Level::Warn, text }),
        }
    }

    fn take_over_held_back(&mut self, now: Moment, style: &Style) {
        for said in self.limiter.begin_window(now) {
            self.take(said, style);
        }
    }
}

/// Something said: when, how bad it is, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub at: Timestamp,
    pub level: Level,
    pub text: String,
}

/// How this process writes, and in whose name.
struct Style {
    format: Format,
    name: String,
}

/// A line for machines.
#[derive(serde::Serialize)]
struct Line<'a> {
    time: String,
    level: &'static str,
    name: &'a str,
    message: &'a str,
}

impl Style {
    fn line(&self, Said { at, level, text }: &Said) -> String {
        match self.format {
            Format::Text => format!("{at} {level:<5} {} {text}\n", self.name),
            Format::Json => {
                let (time, level) = (at.to_string(), level.as_str());
                let line = Line { time, level, name: &self.name, message: text };
                // Strings alone, which cannot fail.
                format!("{}\n", sonic_rs::to_string(&line).unwrap_or_default())
            }
        }
    }

    fn last_words(&self, line: &str) -> String {
        match self.format {
            Format::Text => format!("{line}\n"),
            Format::Json => {
                let (at, text) = (clock::now(), clean(line));
                self.line(&Said { at, level: Level::Error, text })
            }
        }
    }
}

/// The place in the program that says something.
type Site = (&'static str, u32);

/// Decides what is said at once, and what is only counted until the second is over. The last that
/// a call site said is always told in the end: it is how things stand.
#[derive(Default)]
struct Limiter {
    /// `None` if nothing was said since the last window.
    began: Option<Moment>,
    now: Moment,
    said: u32,
    sites: BTreeMap<Site, Seen>,
}

#[derive(Default)]
struct Seen {
    said: u32,
    held_back: u64,
    last: Option<Said>,
}

impl Limiter {
    /// If a second is over, the next one begins: with what was held back in the last.
    fn begin_window(&mut self, now: Moment) -> Vec<Said> {
        self.now = now;
        if self.began.is_none_or(|began| now.since(began) < SECOND) {
            return Vec::new();
        }
        let told = self.end_window();
        if !told.is_empty() {
            self.began = Some(now);
            self.said = told.len() as u32;
        }
        told
    }

    /// What was held back.
    fn end_window(&mut self) -> Vec<Said> {
        self.began = None;
        self.said = 0;
        let mut told = Vec::new();
        for (_, seen) in std::mem::take(&mut self.sites) {
            let Some(mut last) = seen.last else { continue };
            if seen.held_back > 1 {
                // Writing to a String cannot fail.
                let _ = write!(last.text, " … and {} more like this", seen.held_back - 1);
            }
            told.push(last);
        }
        told
    }

    /// What is said now, if anything may be.
    fn admit(&mut self, site: Site, said: Said) -> Option<Said> {
        self.began.get_or_insert(self.now);
        let seen = self.sites.entry(site).or_default();
        if seen.said < LOG_LINES_A_SECOND_AND_SITE && self.said < LOG_LINES_A_SECOND {
            seen.said += 1;
            self.said += 1;
            return Some(said);
        }
        seen.held_back += 1;
        seen.last = Some(said);
        None
    }

    /// When what is held back is told, if anything is.
    fn is_over_at(&self) -> Option<Moment> {
        let holds_back = self.sites.values().any(|seen| seen.held_back > 0);
        self.began.filter(|_| holds_back).map(|began| began + SECOND)
    }
}

/// Writes all of it, however long that takes: on a thread that nobody waits for.
fn write_all(sink: &impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(sink, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            // Whoever shares it with us has made it non-blocking.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(sink, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, PipeReader, Write, pipe};

    const SITE: Site = ("here.rs", 1);
    const LONG: Duration = Duration::from_secs(60);

    fn said(text: &str) -> Said {
        Said { at: Timestamp(0), level: Level::Info, text: text.into() }
    }

    fn at(ms: u64) -> Moment {
        Moment(1_000_000 + ms * 1_000)
    }

    fn texts(said: Vec<Said>) -> Vec<String> {
        said.into_iter().map(|said| said.text).collect()
    }

    impl Log {
        /// As from a call site of its own, in a second of its own.
        fn say_calmly(&self, number: u64, text: &str) {
            self.say(SITE, Level::Info, text.into(), at(number * 1_000), Timestamp(0));
        }
    }

    fn on_a_pipe() -> (Log, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (Log::new(LevelFilter::Info, style(Format::Text), writer).unwrap(), reader)
    }

    #[test]
    fn a_line_has_its_time_its_level_and_whose_it_is() {
        let (log, reader) = on_a_pipe();
        log.say(SITE, Level::Warn, clean("a\nb\u{1b}[1m"), at(0), Timestamp(1));
        assert!(log.flush(LONG));
        let line = BufReader::new(reader).lines().next().unwrap().unwrap();
        assert_eq!(line, "1970-01-01T00:00:00.001Z WARN  galo-1 a b [1m");
    }

    fn style(format: Format) -> Style {
        Style { format, name: "galo-1".into() }
    }

    #[test]
    fn a_line_for_machines_is_an_object() {
        let style = style(Format::Json);
        let quoted = Said { text: "it said \"no\" \\ é".into(), ..said("") };
        for line in [style.line(&quoted), style.last_words("a\nb"), lines_dropped(&style)] {
            let (line, rest) = line.split_once('\n').unwrap();
            assert_eq!(rest, "");
            let read: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(read["name"], "galo-1");
            assert!(read["time"].as_str().unwrap().ends_with('Z'), "{line}");
            let message = read["message"].as_str().unwrap();
            let told = [
                (quoted.text.as_str(), "INFO"),
                ("a b", "ERROR"),
                ("7 lines were dropped", "WARN"),
            ];
            assert!(told.contains(&(message, read["level"].as_str().unwrap())), "{line}");
        }
    }

    fn lines_dropped(style: &Style) -> String {
        State { dropped: 7, ..State::default() }.note(style)
    }

    #[test]
    fn a_line_is_never_longer_than_its_limit() {
        assert_eq!(clean(&"é".repeat(LOG_LINE_BYTES_MAX)).len(), LOG_LINE_BYTES_MAX);
    }

    /// It would not come back if it waited: the reader is this very thread.
    #[test]
    fn what_nobody_reads_is_dropped_and_counted() {
        let (log, reader) = on_a_pipe();
        // More than a pipe and the queue hold together.
        let text = "x".repeat(LOG_LINE_BYTES_MAX);
        let count = 2 * LOG_QUEUE_LINES as u64;
        (0..count).for_each(|number| log.say_calmly(number, &text));
        assert!(!log.flush(Duration::ZERO), "it is not written, and not waited for");
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        let (mut whole, mut dropped) = (0, 0);
        // It may be told in parts, as the reader makes room.
        while whole + dropped < count {
            let line = lines.next().unwrap();
            match line.strip_prefix("… ").and_then(|rest| rest.strip_suffix(" lines were dropped"))
            {
                Some(number) => dropped += number.parse::<u64>().unwrap(),
                None if line.ends_with(&text) => whole += 1,
                None => panic!("neither a line nor a note: {line}"),
            }
        }
        assert_eq!(whole + dropped, count);
        assert!(dropped > 0);
        log.say_calmly(count, "again");
        assert!(lines.next().unwrap().ends_with("galo-1 again"));
    }

    #[test]
    fn a_closed_stderr_harms_nobody() {
        let (log, reader) = on_a_pipe();
        drop(reader);
        (0..10).for_each(|number| log.say_calmly(number, "to nobody"));
        assert!(log.flush(LONG));
    }

    #[test]
    fn a_pipe_that_says_try_again_is_tried_again() {
        let (mut reader, mut writer) = pipe().unwrap();
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        let mut filled = 0;
        while let Ok(length) = writer.write(&[b'.'; 4096]) {
            filled += length;
        }
        let log = Log::new(LevelFilter::Info, style(Format::Text), writer).unwrap();
        log.say_calmly(0, "after all");
        assert!(!log.flush(Duration::ZERO));
        io::Read::read_exact(&mut reader, &mut vec![0; filled]).unwrap();
        assert!(log.flush(LONG));
        let line = BufReader::new(reader).lines().next().unwrap().unwrap();
        assert!(line.ends_with("after all"), "{line}");
    }

    #[test]
    fn what_is_said_too_often_is_counted_and_its_last_word_told() {
        let mut limiter = Limiter::default();
        assert_eq!(limiter.begin_window(at(0)), []);
        for number in 0..LOG_LINES_A_SECOND_AND_SITE {
            assert!(limiter.admit(SITE, said(&number.to_string())).is_some());
        }
        assert_eq!(limiter.is_over_at(), None, "nothing is held back");
        for number in 100..158 {
            assert_eq!(limiter.admit(SITE, said(&number.to_string())), None);
        }
        assert_eq!(limiter.begin_window(at(999)), []);
        assert!(limiter.admit(("there.rs", 1), said("something else")).is_some());
        assert_eq!(limiter.is_over_at(), Some(at(1_000)));
        assert_eq!(texts(limiter.begin_window(at(1_000))), ["157 … and 57 more like this"]);
        assert_eq!(limiter.is_over_at(), None);
        assert!(limiter.admit(SITE, said("and again")).is_some());
    }

    #[test]
    fn all_together_say_no_more_than_is_promised() {
        const SITES: u32 = 12;
        let mut limiter = Limiter::default();
        for second in 0..10 {
            let mut lines = limiter.begin_window(at(second * 1_000)).len();
            for number in 0..100 * SITES {
                lines += usize::from(limiter.admit(("", number % SITES), said("")).is_some());
            }
            assert!(lines <= LOG_LINES_A_SECOND as usize, "{lines}");
        }
    }

    #[test]
    fn the_end_tells_what_was_held_back() {
        let (log, reader) = on_a_pipe();
        for number in 0..=LOG_LINES_A_SECOND_AND_SITE {
            log.say(SITE, Level::Info, number.to_string(), at(0), Timestamp(0));
        }
        assert!(log.flush(LONG));
        let lines = BufReader::new(reader).lines().map(Result::unwrap);
        let last = lines.take(LOG_LINES_A_SECOND_AND_SITE as usize + 1).last().unwrap();
        assert!(last.ends_with(&format!("galo-1 {LOG_LINES_A_SECOND_AND_SITE}")), "{last}");
    }
}
