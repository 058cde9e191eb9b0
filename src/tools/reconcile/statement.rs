//! A processor's statement as a file: a table whose first record names the columns, and which of them
//! are the id, the amount and the time.
//!
//! The invariant: a line is a payment or an error that names it; none is left out, and a file that may
//! have been cut off is refused.

use super::amounts::{Amounts, Unit};
use super::side::Row;
use super::table::{Flaw, Record, Table, shown};
use crate::payments::processor::read_time;
use crate::payments::{PaymentId, Processor, Settlement};
use std::io::Read;

/// The flags that say how a statement is written.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "How statements are written")]
pub struct Format {
    /// The column with the payment's id, a UUID
    #[arg(long, value_name = "NAME", default_value = "id")]
    pub id_column: String,

    /// The column with the amount
    #[arg(long, value_name = "NAME", default_value = "amount")]
    pub amount_column: String,

    /// The column with the time: ISO 8601, in UTC if it has no offset
    #[arg(long, value_name = "NAME", default_value = "requestedAt")]
    pub time_column: String,

    /// What stands between columns: one character, or `tab`
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = read_separator)]
    pub separator: u8,

    /// Whether amounts are decimals or cents. If nothing is said they are decimals, and a statement
    /// without a single decimal point is refused
    #[arg(long, value_name = "UNIT")]
    pub amounts: Option<Unit>,

    /// What stands before the cents
    #[arg(long, value_name = "CHARACTER", default_value = ".")]
    pub decimal_point: char,

    /// What may stand between groups of three digits
    #[arg(long, value_name = "CHARACTER")]
    pub thousands_separator: Option<char>,

    /// A statement whose last line has no end is whole all the same
    #[arg(long)]
    pub open_end: bool,
}

impl Default for Format {
    fn default() -> Format {
        Format {
            id_column: "id".into(),
            amount_column: "amount".into(),
            time_column: "requestedAt".into(),
            separator: b',',
            amounts: None,
            decimal_point: '.',
            thousands_separator: None,
            open_end: false,
        }
    }
}

impl Format {
    /// # Errors
    /// See [`Amounts::check`].
    pub fn read_amounts(&self) -> Result<Amounts, String> {
        let Format { amounts: unit, decimal_point, thousands_separator, .. } = *self;
        Amounts { unit, decimal_point, thousands_separator }.check()
    }
}

/// # Errors
/// If it is not one character that can stand between columns.
pub fn read_separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" | b"\t" => Ok(b'\t'),
        [byte] if byte.is_ascii_punctuation() && *byte != b'"' => Ok(*byte),
        [b' '] => Ok(b' '),
        _ => Err("it must be one of the ASCII punctuation, as ; or |, or tab".into()),
    }
}

/// The payments of a statement, one by one. After an error nothing follows.
pub struct Statement<R> {
    name: String,
    processor: Processor,
    table: Table<R>,
    amounts: Amounts,
    open_end: bool,
    /// Where id, amount and time are.
    columns: [usize; 3],
    width: usize,
    rows: u64,
    has_point: bool,
    is_over: bool,
}

impl<R: Read> Statement<R> {
    /// Reads the names of the columns. `name` is what messages call it.
    ///
    /// # Errors
    /// If it has no such columns.
    pub fn open(
        source: R,
        name: &str,
        processor: Processor,
        format: &Format,
    ) -> Result<Statement<R>, String> {
        let amounts = format.read_amounts()?;
        let in_file = |flaw: Flaw| flaw.of_file(name);
        let mut table = Table::new(source, format.separator).map_err(in_file)?;
        let header = table.read_record().map_err(in_file)?;
        let header = header.ok_or_else(|| in_file(Flaw::of_all("it is empty")))?;
        let (columns, width) = (find_columns(header, format).map_err(in_file)?, header.columns());
        check_end(header, format.open_end).map_err(in_file)?;
        Ok(Statement {
            name: name.to_owned(),
            processor,
            table,
            amounts,
            open_end: format.open_end,
            columns,
            width,
            rows: 0,
            has_point: false,
            is_over: false,
        })
    }

    fn read(&mut self) -> Result<Option<Row>, Flaw> {
        let Some(record) = self.table.read_record()? else {
            let is_clear = self.has_point || self.amounts.unit.is_some() || self.rows == 0;
            return if is_clear {
                Ok(None)
            } else {
                Err(Flaw::of_all(
                    "no amount has a decimal point: say --amounts cents if they are cents, or \
                     --amounts decimal if they are not",
                ))
            };
        };
        check_end(record, self.open_end)?;
        let at = |what: String| Flaw::at(record.line, what);
        check_width(record, self.width)?;
        let [id, amount, time] = self.columns.map(|column| record.get(column));
        let amount = self.amounts.read(amount).map_err(at)?;
        self.rows += 1;
        self.has_point |= amount.has_point;
        let (id, processor) = (read_id(id).map_err(at)?, self.processor);
        let requested_at =
            read_time(time).ok_or_else(|| at(format!("{} is no time of ISO 8601", shown(time))))?;
        let settlement = Settlement { processor, amount: amount.cents, requested_at };
        Ok(Some(Row::Held(Some(id), settlement)))
    }
}

impl<R: Read> Iterator for Statement<R> {
    type Item = Result<Row, String>;

    fn next(&mut self) -> Option<Result<Row, String>> {
        if self.is_over {
            return None;
        }
        let read = self.read().transpose()?;
        self.is_over = read.is_err();
        Some(read.map_err(|flaw| flaw.of_file(&self.name)))
    }
}

fn find_columns(header: Record, format: &Format) -> Result<[usize; 3], Flaw> {
    let find = |name: &str| {
        let mut places = header.all().enumerate().filter(|(_, it)| *it == name.as_bytes());
        match (places.next(), places.next()) {
            (Some((place, _)), None) => Ok(place),
            (Some(_), Some(_)) => {
                Err(Flaw::at(header.line, format!("there are two columns \"{name}\"")))
            }
            (None, _) => Err(Flaw::at(header.line, no_column(header, name))),
        }
    };
    Ok([find(&format.id_column)?, find(&format.amount_column)?, find(&format.time_column)?])
}

fn no_column(header: Record, name: &str) -> String {
    const NAMED_MAX: usize = 12;
    let names: Vec<_> = header.all().take(NAMED_MAX).map(shown).collect();
    let more = if header.columns() > NAMED_MAX { ", …" } else { "" };
    let all = header.all().next().unwrap_or_default();
    let help = match [b';', b'\t', b'|', b','].into_iter().find(|it| all.contains(it)) {
        Some(b'\t') if header.columns() == 1 => "; is it --separator tab?".into(),
        Some(other) if header.columns() == 1 => {
            format!("; is it --separator '{}'?", char::from(other))
        }
        _ if all.contains(&0) || std::str::from_utf8(all).is_err() => {
            "; it is no text in UTF-8".into()
        }
        _ => String::new(),
    };
    format!("there is no column \"{name}\" but {}{more}{help}", names.join(", "))
}

/// # Errors
/// If another number of columns stands there than has names.
pub fn check_width(record: Record, width: usize) -> Result<(), Flaw> {
    let columns = record.columns();
    if columns == width {
        return Ok(());
    }
    let what = if record.is_open { ": was it cut off?" } else { "" };
    Err(Flaw::at(record.line, format!("{columns} columns instead of {width}{what}")))
}

fn check_end(record: Record, open_end: bool) -> Result<(), Flaw> {
    if !record.is_open || open_end {
        return Ok(());
    }
    Err(Flaw::at(
        record.line,
        "the last line has no end: it may have been cut off; if it is whole, say --open-end",
    ))
}

/// # Errors
/// If it is not a UUID as RFC 9562 writes it.
pub fn read_id(text: &[u8]) -> Result<PaymentId, String> {
    PaymentId::parse(text).ok_or_else(|| format!("{} is no payment id, a UUID", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::money::Cents;

    const HEADER: &str = "id,amount,requestedAt\n";
    const ID: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

    fn read_as(text: &[u8], format: &Format) -> Result<Vec<Row>, String> {
        Statement::open(text, "default.csv", Processor::DEFAULT, format)?.collect()
    }

    fn read(text: &str) -> Result<Vec<Row>, String> {
        read_as(text.as_bytes(), &Format::default())
    }

    fn row(cents: i64, at_ms: i64) -> Row {
        let (processor, amount) = (Processor::DEFAULT, Cents(cents));
        let requested_at = Timestamp(at_ms);
        let id = PaymentId::parse(ID.as_bytes());
        Row::Held(id, Settlement { processor, amount, requested_at })
    }

    #[test]
    fn a_statement_is_read_by_the_names_of_its_columns() {
        let line = format!("{ID},19.90,1970-01-01T00:00:01.5Z\n");
        assert_eq!(read(&format!("{HEADER}{line}{line}")), Ok(vec![row(1_990, 1_500); 2]));
        assert_eq!(read(HEADER), Ok(vec![]));
        let format = Format {
            id_column: "Vorgang".into(),
            amount_column: "Betrag".into(),
            time_column: "Zeit".into(),
            separator: b';',
            decimal_point: ',',
            thousands_separator: Some('.'),
            ..Format::default()
        };
        let text = format!(
            "\u{feff}Zeit;Status;Betrag;\"Vorgang\"\r\n\
             1970-01-01 01:00:01.500+01:00;\"ok; \"\"gut\"\"\";1.234,56;{}\r\n\
             \"1970-01-01T00:00:02\";;\"-0,05\";{ID}\r\n",
            ID.to_uppercase()
        );
        let expected = vec![row(123_456, 1_500), row(-5, 2_000)];
        assert_eq!(read_as(text.as_bytes(), &format), Ok(expected));
        let cents = Format { amounts: Some(Unit::Cents), ..Format::default() };
        let text = format!("{HEADER}{ID},1990,1970-01-01T00:00:01.5Z\n");
        assert_eq!(read_as(text.as_bytes(), &cents), Ok(vec![row(1_990, 1_500)]));
        let tabs = Format { separator: read_separator("tab").unwrap(), ..Format::default() };
        let text = text.replace(',', "\t").replace("1990", "19.90");
        assert_eq!(read_as(text.as_bytes(), &tabs), Ok(vec![row(1_990, 1_500)]));
    }

    #[test]
    fn each_flaw_is_told_with_file_and_line() {
        let good = format!("{ID},19.90,1970-01-01T00:00:01Z\n");
        let cases: &[(&str, &str)] = &[
            ("no-id,19.90,1970-01-01T00:00:01Z\n", "\"no-id\" is no payment id"),
            (",19.90,1970-01-01T00:00:01Z\n", "\"\" is no payment id"),
            (&good.replace("19.90", "\"1.234,56\""), "\"1.234,56\" is no amount; is it --decimal"),
            (&good.replace("19.90", "1.234"), "a thousand times as much"),
            (&good.replace("19.90", "1,99"), "4 columns instead of 3"),
            (&good.replace("1970-01-01T00:00:01Z", "yesterday"), "\"yesterday\" is no time"),
            (&good.replace("1970-01-01T00:00:01Z", "01.02.1970 10:00:00"), "is no time"),
            (&good.replace(",19.90", ""), "2 columns instead of 3"),
            (&good.replace(',', ";"), "1 columns instead of 3"),
            (&good[..good.len() - 5], "it may have been cut off"),
            (&good[..40], "it may have been cut off"),
            (&format!("\"{good}"), "it may have been cut off"),
        ];
        for (line, what) in cases {
            let refusal = read(&format!("{HEADER}{good}{line}")).unwrap_err();
            assert!(refusal.starts_with("default.csv, line 3: "), "{line}: {refusal}");
            assert!(refusal.contains(what), "{line}: {refusal}");
            assert!(!refusal.contains('\n') && refusal.len() < 200, "{refusal}");
        }
    }

    #[test]
    fn a_header_without_the_columns_is_told_with_what_may_help() {
        let cases: &[(&[u8], &str)] = &[
            (b"", "default.csv: it is empty"),
            (b"id;amount;requestedAt\n", "is it --separator ';'?"),
            (b"id\tamount\trequestedAt\n", "is it --separator tab?"),
            (
                b"id,amount,requested_at\n",
                "line 1: there is no column \"requestedAt\" but \"id\", ",
            ),
            (b"id,amount,id,requestedAt\n", "two columns \"id\""),
            (b"id,amount,requestedAt", "it may have been cut off"),
            (b"\xff\xfei\0d\0,\0a\0\n\0", "no text in UTF-8"),
            (b"\x1f\x8b\x08\x00\x00\n", "no text in UTF-8"),
        ];
        for (text, what) in cases {
            let refusal = read_as(text, &Format::default()).unwrap_err();
            assert!(refusal.contains(what), "{what}: {refusal}");
        }
    }

    #[test]
    fn whole_numbers_alone_may_be_cents_and_are_refused_until_it_is_said() {
        let text = format!("{HEADER}{ID},1990,1970-01-01T00:00:01Z\n");
        assert!(read(&text).unwrap_err().contains("--amounts cents"));
        let decimal = Format { amounts: Some(Unit::Decimal), ..Format::default() };
        assert_eq!(read_as(text.as_bytes(), &decimal), Ok(vec![row(199_000, 1_000)]));
        let with_another = format!("{text}{ID},0.05,1970-01-01T00:00:01Z\n");
        assert_eq!(read(&with_another).unwrap()[0], row(199_000, 1_000));
    }

    #[test]
    fn an_open_end_may_be_meant() {
        let text = format!("{HEADER}{ID},19.90,1970-01-01T00:00:01Z");
        assert!(read(&text).unwrap_err().contains("--open-end"));
        let open = Format { open_end: true, ..Format::default() };
        assert_eq!(read_as(text.as_bytes(), &open), Ok(vec![row(1_990, 1_000)]));
        assert_eq!(read_as(b"id,amount,requestedAt", &open), Ok(vec![]));
    }

    #[test]
    fn after_an_error_nothing_follows() {
        let good = format!("{ID},19.90,1970-01-01T00:00:01Z\n");
        let text = format!("{HEADER}{good}x,y,z\n{good}");
        let format = Format::default();
        let rows =
            Statement::open(text.as_bytes(), "default.csv", Processor::DEFAULT, &format).unwrap();
        let read: Vec<_> = rows.map(|row| row.is_ok()).collect();
        assert_eq!(read, [true, false]);
    }

    #[test]
    fn separators_are_one_character() {
        assert_eq!(read_separator(";"), Ok(b';'));
        assert_eq!(read_separator("\\t"), Ok(b'\t'));
        for wrong in ["", ";;", "a", "1", "\"", "\n", "€"] {
            assert!(read_separator(wrong).is_err(), "{wrong}");
        }
    }
}
