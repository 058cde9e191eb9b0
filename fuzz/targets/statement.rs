//! What `galo reconcile` reads: statements and exports. However its bytes come a file is the same, what
//! is written is read, and what was cut off is refused or tells no more than was there.

#![no_main]

use galo::payments::names::Names;
use galo::payments::{Processor, Settlement};
use galo::tools::export::COLUMNS;
use galo::tools::numbers::Numbers;
use galo::tools::reconcile::amounts::{Amounts, Unit};
use galo::tools::reconcile::books::Exported;
use galo::tools::reconcile::side::Row;
use galo::tools::reconcile::statement::{Format, Statement};
use galo_fuzz::{Source, cuts, fuzz_target, stretched};
use std::io::{BufReader, Read};

/// Above the limit of a record.
const LENGTH_MAX: usize = 80_000;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, rest)) => check_exported(rest),
        Some((1, rest)) => check_written(&mut Source::new(rest)),
        Some((2, rest)) => check_export_written(&mut Source::new(rest)),
        Some((3, rest)) => check_amount(rest),
        Some((flags, rest)) => check_statement(*flags, &stretched(rest, LENGTH_MAX)),
        None => {}
    }
});

type Rows = Result<Vec<Row>, String>;

fn read(source: impl Read, format: &Format) -> Rows {
    Statement::open(source, "a", Processor::FALLBACK, format)?.collect()
}

fn read_exported(source: impl Read) -> Rows {
    let mut numbers = Numbers::default();
    numbers.common(&Names::contest())?;
    Exported::open(source, "a", &mut numbers)?.collect()
}

/// What was read, however the bytes came.
fn read_anyhow<'a>(data: &'a [u8], read: impl Fn(&mut dyn Read) -> Rows + 'a) -> Rows {
    let whole = read(&mut &*data);
    for capacity in [1, 7, 64] {
        // Its buffer is what it gives at most at a time.
        let mut slowly = BufReader::with_capacity(capacity, data);
        let mut slowly = std::iter::from_fn(move || {
            let mut piece = vec![0; capacity];
            let length = slowly.read(&mut piece).expect("memory can be read");
            piece.truncate(length);
            (length > 0).then_some(piece)
        });
        let mut given = Pieces { next: &mut slowly, piece: Vec::new() };
        assert_eq!(read(&mut given), whole, "{capacity}");
    }
    if let Err(refusal) = &whole {
        assert!(!refusal.contains('\n') && refusal.len() < 2_000, "{refusal}");
    }
    whole
}

struct Pieces<'a> {
    next: &'a mut dyn Iterator<Item = Vec<u8>>,
    piece: Vec<u8>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.next.next().unwrap_or_default();
        }
        let length = self.piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.piece[..length]);
        self.piece.drain(..length);
        Ok(length)
    }
}

fn check_statement(flags: u8, data: &[u8]) {
    let format = Format {
        separator: if flags & 4 == 0 { b',' } else { b';' },
        amounts: (flags & 8 != 0).then_some(Unit::Cents),
        decimal_point: if flags & 16 == 0 { '.' } else { ',' },
        thousands_separator: (flags & 32 != 0).then_some(if flags & 16 == 0 { ',' } else { '.' }),
        open_end: flags & 64 != 0,
        ..Format::default()
    };
    let whole = read_anyhow(data, |source| read(source, &format));
    if let Ok(rows) = &whole {
        // Each has an id, an amount and a time.
        assert!(rows.len() * (36 + 1 + 19) <= data.len());
        check_cuts(data, rows, &format);
    }
}

/// Half a file tells what the whole one does, as far as it goes, or nothing.
fn check_cuts(data: &[u8], rows: &[Row], format: &Format) {
    if format.open_end {
        return;
    }
    for cut in cuts(data.len()) {
        if let Ok(part) = read(&data[..cut], format) {
            assert!(rows.starts_with(&part), "cut at {cut}");
        }
    }
}

fn check_exported(data: &[u8]) {
    if read_anyhow(data, |source| read_exported(source)).is_ok() {
        let last = data.iter().rposition(|it| !b"\r\n".contains(it)).unwrap_or(0);
        for cut in cuts(last) {
            assert!(read_exported(&data[..cut]).is_err(), "cut at {cut}");
        }
    }
}

fn rows(source: &mut Source) -> Vec<Row> {
    let settlement = |source: &mut Source| {
        let attempt = source.attempt();
        let requested_at = attempt.requested_at;
        let (amount, processor) = (attempt.payment.amount, Processor::FALLBACK);
        Row::Held(Some(attempt.payment.id), Settlement { processor, amount, requested_at })
    };
    (0..source.below(6)).map(|_| settlement(source)).collect()
}

/// As somebody writes them, in quotes or not, with anything in another column.
fn check_written(source: &mut Source) {
    let rows = rows(source);
    let (is_european, is_quoted, ends) = (source.bool(), source.bool(), source.bool());
    let end = if ends { "\n" } else { "\r\n" };
    let (separator, point) = if is_european { (';', ',') } else { (',', '.') };
    let other = source.text(40).replace('"', "\"\"").replace('\r', "");
    let mut text = ["amount", "note", "id", "requestedAt"].join(&separator.to_string()) + end;
    for row in &rows {
        let Row::Held(Some(id), settlement) = row else { continue };
        let amount = settlement.amount.to_string().replace('.', &point.to_string());
        let mut fields = [amount, id.to_string(), settlement.requested_at.to_string()];
        if is_quoted {
            fields = fields.map(|it| format!("\"{it}\""));
        }
        let [amount, id, at] = fields;
        text += &[amount, format!("\"{other}\""), id, at].join(&separator.to_string());
        text += end;
    }
    let format = Format { separator: separator as u8, decimal_point: point, ..Format::default() };
    let read = read_anyhow(text.as_bytes(), |source| self::read(source, &format));
    assert_eq!(read.as_ref(), Ok(&rows));
    check_cuts(text.as_bytes(), &rows, &format);
}

fn check_export_written(source: &mut Source) {
    let rows = rows(source);
    let mut text = format!("{COLUMNS}\n");
    let mut cents = 0;
    for row in &rows {
        let Row::Held(Some(id), Settlement { amount, requested_at, .. }) = row else { continue };
        cents += i128::from(amount.0);
        text += &format!("settled,{id},fallback,{amount},{requested_at},,,,\n");
    }
    let total = galo::base::money::Total(cents);
    text += &format!("total,0,default,0.00,,,,,\ntotal,{},fallback,{total},,,,,\n", rows.len());
    text += &format!("digest,crc32c:{:08x},,,,,,,\n", crc32c::crc32c(text.as_bytes()));
    assert_eq!(read_exported(text.as_bytes()).as_ref(), Ok(&rows));
    check_exported(text.as_bytes());
}

/// What is an amount in two countries is the same in both, unless it was said how thousands look.
fn check_amount(data: &[u8]) {
    let amounts = |decimal_point, thousands_separator| Amounts {
        unit: None,
        decimal_point,
        thousands_separator,
    };
    let read = [amounts('.', None), amounts(',', None)].map(|it| it.read(data));
    if let [Ok(one), Ok(other)] = read {
        assert_eq!(one, other);
    }
    for (point, separator) in [('.', ','), (',', '.'), ('.', '\''), (',', ' ')] {
        if let Ok(read) = amounts(point, Some(separator)).read(data) {
            // Without its thousands separators it is the same, and never a hundredth of it.
            let text = String::from_utf8_lossy(data).replace(separator, "");
            let again = amounts(point, Some(separator)).read(text.as_bytes());
            assert_eq!(again, Ok(read));
            let digits = text.bytes().filter(u8::is_ascii_digit).count();
            assert!(read.has_point == text.contains(point) && digits > 0);
        }
    }
}
