//! galo's own books: what journals hold, read from their directories, or from a file as `galo export`
//! writes it.
//!
//! Such a file has a line a payment, and the last lines are for whoever reads it: `total` says how many
//! payments and how much money were settled at a processor, `digest` the CRC-32C of all bytes before
//! its own line. The invariant: half a file is an error, whatever was read before that shows.

use super::side::Row;
use super::statement::{check_width, read_id};
use super::table::{Flaw, Record, Table, shown};
use crate::base::clock::{Rounding, Timestamp};
use crate::base::money::{Cents, Total};
use crate::journal::inspect::expect_journal;
use crate::journal::reading::Reading;
use crate::payments::names::is_name;
use crate::payments::resolution::Action;
use crate::payments::{Each, PaymentId, Processor, Settlement, Totals};
use crate::tools::compare::{Fate, Known};
use crate::tools::export::{ARCHIVED, COLUMNS};
use crate::tools::numbers::Numbers;
use std::io::Read;
use std::path::Path;

/// Gives everything that the journal of a directory tells of payments to `each`.
///
/// # Errors
/// If it is no journal, a damaged one, or cannot be read; or what `each` answers.
pub fn read_journal<T>(
    directory: &Path,
    numbers: &mut Numbers,
    each: impl FnOnce(&mut dyn Iterator<Item = Result<Row, String>>) -> Result<T, String>,
) -> Result<T, String> {
    expect_journal(directory)?;
    let reading = Reading::new(directory).map_err(|error| error.to_string())?;
    let common = numbers.common(&reading.names)?;
    let settled = reading.settled().map(|line| match line {
        Ok(line) => {
            let processor = common.of(line.settlement.processor);
            Ok(Row::Held(line.id, Settlement { processor, ..line.settlement }))
        }
        Err(error) => Err(error.to_string()),
    });
    let open = reading.open.iter().map(|(id, open)| (*id, open.amount, Fate::Unknown));
    let rejected = reading.rejected.iter().map(|it| (it.id, it.amount, Fate::Refused));
    let cancelled = reading.resolved.values().filter(|it| it.action == Action::Cancelled);
    let cancelled = cancelled.map(|it| (it.id, it.amount, Fate::Refused));
    let others = open.chain(rejected).chain(cancelled);
    let others = others.map(|(id, amount, fate)| Ok(Row::Open(Known { id, amount, fate })));
    let absent = reading.absent.iter().map(|it| {
        let file = directory.join(it.name()).display().to_string();
        Ok(Row::Absent { file, from: it.from, to: it.to })
    });
    each(&mut absent.chain(settled).chain(others))
}

/// What an export tells of payments, one by one. After an error nothing follows.
pub struct Exported<'a, R> {
    name: String,
    numbers: &'a mut Numbers,
    table: Table<R>,
    read: Each<Totals>,
    said: Each<Option<Totals>>,
    is_whole: bool,
    is_over: bool,
}

impl<'a, R: Read> Exported<'a, R> {
    /// Reads the names of the columns. `name` is what messages call it; its processors are numbered by
    /// `numbers`.
    ///
    /// # Errors
    /// If they are others.
    pub fn open(
        source: R,
        name: &str,
        numbers: &'a mut Numbers,
    ) -> Result<Exported<'a, R>, String> {
        let in_file = |flaw: Flaw| flaw.of_file(name);
        let mut table = Table::new(source, b',').map_err(in_file)?;
        let header = table.read_record().map_err(in_file)?;
        let is_ours = header.is_some_and(|it| it.all().eq(COLUMNS.split(',').map(str::as_bytes)));
        if !is_ours {
            let what = format!("it is no export of galo as CSV, which begins with {COLUMNS}");
            return Err(in_file(Flaw::at(1, what)));
        }
        let name = name.to_owned();
        let (read, said) = Default::default();
        Ok(Exported { name, numbers, table, read, said, is_whole: false, is_over: false })
    }

    /// The next line that tells of a payment.
    fn read(&mut self) -> Result<Option<Row>, Flaw> {
        loop {
            let Some(record) = self.table.read_record()? else {
                return match self.is_whole {
                    true => Ok(None),
                    false => {
                        Err(Flaw::of_all("its last line, the digest, is missing: it is cut off"))
                    }
                };
            };
            check_width(record, COLUMNS.split(',').count())?;
            if self.is_whole {
                return Err(Flaw::at(record.line, "something follows the digest"));
            }
            match record.get(0) {
                b"settled" => {
                    let (id, settlement) = read_settled(record, self.numbers)?;
                    let amount = Total(settlement.amount.0.into());
                    self.read[settlement.processor.index()] += Totals { count: 1, amount };
                    return Ok(Some(Row::Held(id, settlement)));
                }
                b"waiting" | b"in_doubt" => return read_open(record, Fate::Unknown).map(Some),
                b"rejected" | b"cancelled" => return read_open(record, Fate::Refused).map(Some),
                b"total" => {
                    let (line, total) = (record.line, read_total(record, self.numbers)?);
                    self.check_total(total, line)?;
                }
                b"digest" => {
                    let line = record.line;
                    check_digest(record)?;
                    self.check_totals(line)?;
                    self.is_whole = true;
                }
                word if word == ARCHIVED.as_bytes() => {
                    let what = format!(
                        "{} was not beside the journal: export again with it, or with --from",
                        shown(record.get(1))
                    );
                    return Err(Flaw::at(record.line, what));
                }
                // The ledger's.
                b"account" | b"entry" => {}
                word => {
                    let what = format!("{} is no record of an export", shown(word));
                    return Err(Flaw::at(record.line, what));
                }
            }
        }
    }

    fn check_total(&mut self, (by, total): (Processor, Totals), line: u64) -> Result<(), Flaw> {
        let read = self.read[by.index()];
        if read != total || self.said[by.index()].replace(total).is_some() {
            let what = format!(
                "it tells of {} payments and {} at {}, and {} and {} stand before it",
                total.count,
                total.amount,
                self.numbers.names().name_of(by),
                read.count,
                read.amount
            );
            return Err(Flaw::at(line, what));
        }
        Ok(())
    }

    /// Nothing may have come after a total.
    fn check_totals(&self, line: u64) -> Result<(), Flaw> {
        for (by, name) in self.numbers.names().iter() {
            let read = self.read[by.index()];
            if self.said[by.index()].unwrap_or_default() != read {
                let what = format!("the total of {name} is missing, or not of all");
                return Err(Flaw::at(line, what));
            }
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Exported<'_, R> {
    type Item = Result<Row, String>;

    fn next(&mut self) -> Option<Result<Row, String>> {
        if self.is_over {
            return None;
        }
        let read = self.read().transpose();
        self.is_over = !matches!(read, Some(Ok(_)));
        Some(read?.map_err(|flaw| flaw.of_file(&self.name)))
    }
}

fn read_open(record: Record, fate: Fate) -> Result<Row, Flaw> {
    let id = read_id(record.get(1)).map_err(|what| Flaw::at(record.line, what))?;
    Ok(Row::Open(Known { id, amount: read_cents(record)?, fate }))
}

fn read_settled(
    record: Record,
    numbers: &mut Numbers,
) -> Result<(Option<PaymentId>, Settlement), Flaw> {
    let at = |what: String| Flaw::at(record.line, what);
    let id = match record.get(1) {
        b"" => None,
        id => Some(read_id(id).map_err(at)?),
    };
    let processor = read_processor(record, numbers)?;
    let amount = read_cents(record)?;
    let time = record.get(4);
    let requested_at = Timestamp::parse(time, Rounding::Down)
        .ok_or_else(|| at(format!("{} is no time of ISO 8601", shown(time))))?;
    Ok((id, Settlement { processor, amount, requested_at }))
}

fn read_total(record: Record, numbers: &mut Numbers) -> Result<(Processor, Totals), Flaw> {
    let count = record.get(1);
    let count =
        std::str::from_utf8(count).ok().and_then(|it| it.parse().ok()).ok_or_else(|| {
            Flaw::at(record.line, format!("{} is no number of payments", shown(count)))
        })?;
    let amount = read_sum(record.get(3)).ok_or_else(|| {
        Flaw::at(record.line, format!("{} is no sum of money", shown(record.get(3))))
    })?;
    Ok((read_processor(record, numbers)?, Totals { count, amount }))
}

/// A sum may be more than 64 bits of cents.
fn read_sum(text: &[u8]) -> Option<Total> {
    let (whole, cents) = std::str::from_utf8(text).ok()?.split_once('.')?;
    let is_exact = cents.len() == 2 && cents.bytes().all(|it| it.is_ascii_digit());
    is_exact.then(|| format!("{whole}{cents}").parse().ok())?.map(Total)
}

fn check_digest(record: Record) -> Result<(), Flaw> {
    let expected = format!("crc32c:{:08x}", record.checksum_before);
    if record.get(1) != expected.as_bytes() {
        let said = shown(record.get(1));
        let what =
            format!("the digest is {said}, and should be {expected}: lines are missing or changed");
        return Err(Flaw::at(record.line, what));
    }
    Ok(())
}

fn read_processor(record: Record, numbers: &mut Numbers) -> Result<Processor, Flaw> {
    let at = |what: String| Flaw::at(record.line, what);
    let none = || at(format!("{} is no processor", shown(record.get(2))));
    let name = std::str::from_utf8(record.get(2)).map_err(|_| none())?;
    if !is_name(name) {
        return Err(none());
    }
    numbers.number(name).map_err(at)
}

fn read_cents(record: Record) -> Result<Cents, Flaw> {
    let amount = record.get(3);
    Cents::parse(amount)
        .map_err(|_| Flaw::at(record.line, format!("{} is no amount", shown(amount))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 6] = [
        "settled,00000000-0000-0000-0000-000000000001,default,19.90,1970-01-01T00:00:01.000Z,0.995,1,,",
        "rejected,00000000-0000-0000-0000-000000000002,,5.00,,,,,default 422; \"\"fallback 422\"\"",
        "settled,00000000-0000-0000-0000-000000000003,fallback,0.05,1970-01-01T00:00:02.000Z,0.01,2,,",
        "in_doubt,00000000-0000-0000-0000-000000000005,default,7.00,1970-01-01T00:00:02.000Z,,1,,",
        "entry,1,,-9.00,1970-01-01T00:00:02.000Z,,,,\"number 1; balance -900; a, b\"",
        "settled,00000000-0000-0000-0000-000000000004,default,0.10,1970-01-01T00:00:03.000Z,0.01,1,,",
    ];
    const TOTALS: [&str; 2] = ["total,2,default,20.00,,,,,", "total,1,fallback,0.05,,,,,"];

    fn with_digest(lines: &[&str]) -> String {
        let lines = [&[COLUMNS], lines].concat();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let digest = crc32c::crc32c(text.as_bytes());
        format!("{text}digest,crc32c:{digest:08x},,,,,,,\n")
    }

    fn export() -> String {
        with_digest(&[&LINES[..], &TOTALS[..]].concat())
    }

    fn read(text: &str) -> Result<Vec<Row>, String> {
        Exported::open(text.as_bytes(), "books.csv", &mut Numbers::default())?.collect()
    }

    #[test]
    fn what_was_settled_is_read() {
        let row = |id, processor, cents, at_ms| {
            let (amount, requested_at) = (Cents(cents), Timestamp(at_ms));
            Row::Held(Some(PaymentId(id)), Settlement { processor, amount, requested_at })
        };
        let open =
            |id, cents, fate| Row::Open(Known { id: PaymentId(id), amount: Cents(cents), fate });
        let expected = vec![
            row(1, Processor::DEFAULT, 1_990, 1_000),
            open(2, 500, Fate::Refused),
            row(3, Processor::FALLBACK, 5, 2_000),
            open(5, 700, Fate::Unknown),
            row(4, Processor::DEFAULT, 10, 3_000),
        ];
        assert_eq!(read(&export()), Ok(expected));
        let without_id = with_digest(&[
            "settled,,default,1.00,1970-01-01T00:00:01.000Z,,,,old",
            "total,1,default,1.00,,0.05,,,",
            "total,0,fallback,0.00,,0,,,",
        ]);
        assert!(matches!(read(&without_id).unwrap()[..], [Row::Held(None, _)]));
        let nothing = ["total,0,fallback,0.00,,,,,", "total,0,default,0.00,,,,,"];
        assert_eq!(read(&with_digest(&nothing)), Ok(vec![]));
    }

    #[test]
    fn half_an_export_is_none() {
        let whole = export();
        for cut in (0..whole.len() - 1).filter(|at| whole.is_char_boundary(*at)) {
            assert!(read(&whole[..cut]).is_err(), "{}", &whole[..cut]);
        }
        // The end of its last line is no part of it.
        assert!(read(&whole[..whole.len() - 1]).is_ok());
        assert!(read("").unwrap_err().contains("no export of galo"));
        let all = [&LINES[..], &TOTALS[..]].concat();
        for missing in 0..all.len() {
            let mut lines = all.clone();
            lines.remove(missing);
            let is_counted = ![1, 3, 4].contains(&missing);
            assert_eq!(read(&with_digest(&lines)).is_err(), is_counted, "{missing}");
        }
    }

    #[test]
    fn what_was_changed_or_does_not_add_up_is_told_with_its_line() {
        let all = [&LINES[..], &TOTALS[..]].concat();
        let with = |line: usize, other: &'static str| {
            let mut lines = all.clone();
            lines[line - 2] = other;
            with_digest(&lines)
        };
        let more = format!("{}{}\n", export(), LINES[0]);
        let cases: &[(String, &str)] = &[
            (export().replace("0.995", "0.996"), "line 10: the digest is"),
            (export().replace("default 422", "default 429"), "line 10: the digest is"),
            (with(8, "total,3,default,20.00,,,,,"), "line 8: it tells of 3 payments"),
            (with(8, "total,2,default,20.01,,,,,"), "line 8: it tells of 2 payments and 20.01"),
            (with(8, "total,x,default,20.01,,,,,"), "line 8: \"x\" is no number"),
            (with(8, TOTALS[1]), "line 9: it tells of 1 payments"),
            (with(7, TOTALS[0]), "line 7: it tells of"),
            (with(9, "settled,x,default,1,,,,,"), "line 9: \"x\" is no payment id"),
            (with(2, "setled,,,,,,,,"), "line 2: \"setled\" is no record"),
            (
                with(2, "archived,0000000001.archive,default,1.00,,,,,"),
                "line 2: \"0000000001.archive\" was not beside the journal",
            ),
            (with(3, "rejected,,,1.00,,,,,"), "line 3: \"\" is no payment id"),
            (with(2, "settled,,"), "line 2: 3 columns instead of 9"),
            (with(2, &LINES[0].replace("default", "bo th").leak()[..]), "line 2: \"bo th\" is no"),
            (
                with(2, &LINES[0].replace("default", "pix").leak()[..]),
                "line 8: it tells of 2 payments",
            ),
            (with(2, &LINES[0].replace("19.90", "19,90").leak()[..]), "line 2: 10 columns"),
            (with(2, &LINES[0].replace("19.90", "019.90").leak()[..]), "is no amount"),
            (with(2, &LINES[0].replace("1970-", "70-").leak()[..]), "is no time"),
            (more, "line 11: something follows the digest"),
        ];
        for (text, what) in cases {
            let refusal = read(text).unwrap_err();
            assert!(refusal.starts_with("books.csv, line "), "{refusal}");
            assert!(refusal.contains(what), "{what}: {refusal}");
        }
    }
}
