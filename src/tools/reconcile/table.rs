//! Comma-separated values (RFC 4180) as they come out of a file: a record at a time, with the number
//! of the line it begins in. Byte order marks, both ends of lines and quotes are understood.
//!
//! Knows nothing of what the columns mean. The invariant: memory is bounded, whatever is in the file;
//! a record, or the line that it is, is a limited number of bytes and columns, or an error.

use crate::base::limits::{TABLE_COLUMNS_MAX, TABLE_RECORD_BYTES_MAX};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use std::fmt;
use std::io::{ErrorKind, Read};

/// What one read takes from a file, in bytes.
const READ_SIZE: usize = 256 * 1024;
/// So much of what is wrong is shown, in characters.
const SHOWN_CHARS: usize = 48;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Counted from 1; nothing if it is about the file as a whole.
    pub line: Option<u64>,
    pub what: String,
}

impl Flaw {
    pub fn at(line: u64, what: impl Into<String>) -> Flaw {
        Flaw { line: Some(line), what: what.into() }
    }

    pub fn of_all(what: impl Into<String>) -> Flaw {
        Flaw { line: None, what: what.into() }
    }

    /// A sentence that names the file.
    pub fn of_file(&self, name: &str) -> String {
        match self.line {
            Some(line) => format!("{name}, line {line}: {}", self.what),
            None => format!("{name}: {}", self.what),
        }
    }
}

/// The beginning of what stands in a file, fit for a terminal.
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_CHARS)]).into_owned();
    let mut shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_CHARS || bytes.len() > 4 * SHOWN_CHARS {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// A file of records.
pub struct Table<R> {
    source: R,
    reader: Reader,
    /// What was read and not looked at yet is between the two places.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    fields: Box<[u8]>,
    ends: Box<[usize]>,
    checksum: u32,
}

/// One record.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The line that it begins in, counted from 1.
    pub line: u64,
    /// Whether the file ends without a line break after it: it may be half a record.
    pub is_open: bool,
    /// CRC32C of all bytes before it.
    pub checksum_before: u32,
    fields: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Record<'a> {
    /// How many columns it has, at least one.
    pub fn columns(self) -> usize {
        self.ends.len()
    }

    /// What stands in a column, without blanks around it; nothing, if it has no such column.
    pub fn get(self, column: usize) -> &'a [u8] {
        let end = self.ends.get(column).copied().unwrap_or(0);
        let before = column.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        let field = self.fields.get(before.unwrap_or(0)..end).unwrap_or_default();
        field.trim_ascii()
    }

    pub fn all(self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.columns()).map(move |column| self.get(column))
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all().map(shown)).finish()
    }
}

impl<R: Read> Table<R> {
    /// # Errors
    /// If not a byte can be read.
    pub fn new(source: R, separator: u8) -> Result<Table<R>, Flaw> {
        let mut table = Table {
            source,
            reader: ReaderBuilder::new().delimiter(separator).build(),
            buffer: vec![0; READ_SIZE].into(),
            start: 0,
            end: 0,
            fields: vec![0; TABLE_RECORD_BYTES_MAX].into(),
            ends: vec![0; TABLE_COLUMNS_MAX + 1].into(),
            checksum: 0,
        };
        // From its second call on csv-core looks for no byte order mark itself, which it would see or
        // not by how the bytes come. An empty line is no record.
        table.reader.read_record(b"\n", &mut table.fields, &mut table.ends);
        table.reader.set_line(1);
        while table.end < BYTE_ORDER_MARK.len() && table.read_more()? {}
        if table.buffer[..table.end].starts_with(BYTE_ORDER_MARK) {
            table.start = BYTE_ORDER_MARK.len();
        }
        Ok(table)
    }

    /// Whether there was more.
    fn read_more(&mut self) -> Result<bool, Flaw> {
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(length) => {
                    self.end += length;
                    return Ok(length > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Flaw::of_all(format!("cannot be read: {error}"))),
            }
        }
    }

    /// Whether there is something to look at.
    fn fill(&mut self) -> Result<bool, Flaw> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.read_more()?;
        }
        Ok(self.start < self.end)
    }

    fn take(&mut self, length: usize) {
        let taken = &self.buffer[self.start..self.start + length];
        self.checksum = crc32c::crc32c_append(self.checksum, taken);
        self.start += length;
    }

    /// Lines without anything are no records; and of a line's end of two bytes csv-core leaves the
    /// second one, with which the next record does not begin.
    fn skip_empty_lines(&mut self) -> Result<(), Flaw> {
        while self.fill()? {
            match self.buffer[self.start] {
                b'\n' => self.reader.set_line(self.reader.line() + 1),
                b'\r' => {}
                _ => break,
            }
            self.take(1);
        }
        Ok(())
    }

    /// The next record, nothing at the end.
    ///
    /// # Errors
    /// If the file cannot be read on, or a record has more than [`TABLE_RECORD_BYTES_MAX`] bytes or
    /// [`TABLE_COLUMNS_MAX`] columns. Nothing can be read after that.
    pub fn read_record(&mut self) -> Result<Option<Record<'_>>, Flaw> {
        self.skip_empty_lines()?;
        let line = self.reader.line();
        let checksum_before = self.checksum;
        let (mut bytes, mut columns) = (0, 0);
        let is_open = loop {
            let is_over = !self.fill()?;
            let (result, taken, put, ended) = self.reader.read_record(
                &self.buffer[self.start..self.end],
                &mut self.fields[bytes..],
                &mut self.ends[columns..],
            );
            self.take(taken);
            (bytes, columns) = (bytes + put, columns + ended);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record if columns <= TABLE_COLUMNS_MAX => break is_over,
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::OutputFull => {
                    return Err(Flaw::at(
                        line,
                        format!(
                            "a record of more than {TABLE_RECORD_BYTES_MAX} bytes; or a quotation \
                             mark that never closes"
                        ),
                    ));
                }
                ReadRecordResult::Record | ReadRecordResult::OutputEndsFull => {
                    return Err(Flaw::at(line, format!("more than {TABLE_COLUMNS_MAX} columns")));
                }
            }
        };
        let (fields, ends) = (&self.fields[..bytes], &self.ends[..columns]);
        Ok(Some(Record { line, is_open, checksum_before, fields, ends }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes a read.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = self.1.min(buffer.len()).min(self.0.len());
            let (now, later) = self.0.split_at(length);
            buffer[..length].copy_from_slice(now);
            self.0 = later;
            Ok(length)
        }
    }

    type Lines = Vec<(u64, bool, Vec<String>)>;

    fn read_slowly(text: &[u8], size: usize) -> Result<Lines, Flaw> {
        let mut table = Table::new(Slowly(text, size), b',')?;
        let mut read = Vec::new();
        while let Some(record) = table.read_record()? {
            let fields = record.all().map(|it| String::from_utf8_lossy(it).into_owned()).collect();
            read.push((record.line, record.is_open, fields));
        }
        assert!(table.read_record()?.is_none(), "an end is an end");
        Ok(read)
    }

    /// The same, however it comes.
    fn read(text: &str) -> Lines {
        let whole = read_slowly(text.as_bytes(), usize::MAX).unwrap();
        for size in [1, 2, 3, 7] {
            assert_eq!(read_slowly(text.as_bytes(), size).as_ref(), Ok(&whole), "{size}");
        }
        whole
    }

    fn record(line: u64, is_open: bool, fields: &[&str]) -> (u64, bool, Vec<String>) {
        (line, is_open, fields.iter().map(|it| (*it).to_owned()).collect())
    }

    #[test]
    fn records_are_read_with_their_lines() {
        let two = [record(1, false, &["a", "b"]), record(2, false, &["1", "2"])];
        assert_eq!(read("a,b\n1,2\n"), two);
        assert_eq!(read("a,b\r\n1,2\r\n"), two);
        assert_eq!(read("\u{feff}a,b\r\n1,2\n"), two, "a byte order mark");
        assert_eq!(read(" a ,b\n\"1\",\" 2\"\n"), two, "blanks and quotes");
        let marked = [record(2, false, &["\u{feff}a"])];
        assert_eq!(read("\n\u{feff}a\n"), marked, "a byte order mark that is none");
        let later = [record(3, false, &["a", "b"]), record(6, false, &["1", "2"])];
        assert_eq!(read("\n\r\na,b\r\n\n\r\n1,2\r\n\r\n\n"), later, "empty lines");
        let quoted = [record(1, false, &["a,\r\n\"", "b"]), record(3, false, &["1", ""])];
        assert_eq!(read("\"a,\r\n\"\"\",b\r\n1,\r\n"), quoted, "a line break in quotes");
        assert_eq!(read(""), []);
        assert_eq!(read("\n\r\n"), []);
    }

    #[test]
    fn a_last_line_without_an_end_is_told() {
        assert_eq!(read("a\n1"), [record(1, false, &["a"]), record(2, true, &["1"])]);
        assert_eq!(read("a\r\n1,"), [record(1, false, &["a"]), record(2, true, &["1", ""])]);
        assert_eq!(read("\"a\n1\n"), [record(1, true, &["a\n1"])], "an open quotation mark");
        assert_eq!(read("a\r"), [record(1, false, &["a"])]);
    }

    #[test]
    fn what_is_too_long_is_refused_with_its_line() {
        let flaw = |text: String| {
            for size in [1_000, usize::MAX] {
                let flaw = read_slowly(text.as_bytes(), size).unwrap_err();
                assert_eq!(flaw.line, Some(2), "{flaw:?}");
                assert!(flaw.what.contains("more than"), "{flaw:?}");
            }
        };
        flaw(format!("a\n{}\n", "x".repeat(TABLE_RECORD_BYTES_MAX + 1)));
        flaw(format!("a\n\"{}", "x\n".repeat(TABLE_RECORD_BYTES_MAX)));
        flaw(format!("a\n{}\n", ",".repeat(TABLE_COLUMNS_MAX)));
        flaw(format!("a\n{}\n", ",".repeat(10 * TABLE_COLUMNS_MAX)));
        let widest = format!("a\n{}\n", ",".repeat(TABLE_COLUMNS_MAX - 1));
        assert_eq!(read_slowly(widest.as_bytes(), 100).unwrap()[1].2.len(), TABLE_COLUMNS_MAX);
    }

    #[test]
    fn the_checksum_is_of_all_that_is_before_a_record() {
        for size in [1, 5, usize::MAX] {
            let text = "a,b\n1,\"2\"\n3,4\n";
            let mut table = Table::new(Slowly(text.as_bytes(), size), b',').unwrap();
            for before in ["", "a,b\n", "a,b\n1,\"2\"\n"] {
                let record = table.read_record().unwrap().unwrap();
                assert_eq!(record.checksum_before, crc32c::crc32c(before.as_bytes()), "{before}");
            }
        }
    }

    #[test]
    fn what_is_shown_is_short_and_harms_no_terminal() {
        assert_eq!(shown(b"19,90"), "\"19,90\"");
        assert_eq!(shown(b"\x1b[2J\xff"), "\"\\u{1b}[2J\u{fffd}\"");
        assert!(shown(&[b'x'; 1_000]).chars().count() <= SHOWN_CHARS + 3);
    }
}
