//! Tables of a TOML file, taken key by key: what is missing, of another type, out of its range or
//! known to nobody becomes a fault at its place.
//!
//! Knows nothing of processors. The invariant: a key that was not asked for is a fault.

use super::fault::Faults;
use crate::base::money::Cents;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value with its place in the file.
pub type Value<'a> = Spanned<DeValue<'a>>;

/// Some text of the file, or made from it, and the byte of the file where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub at: usize,
    pub text: &'a str,
}

/// See the module. Ended by [`Table::end`].
pub struct Table<'a> {
    pub at: usize,
    entries: &'a DeTable<'a>,
    asked_for: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Table<'a> {
    /// The whole of a file.
    pub fn whole(document: &'a Spanned<DeTable<'a>>, faults: &'a Faults) -> Table<'a> {
        Table { at: 0, entries: document.get_ref(), asked_for: Vec::new(), faults }
    }

    /// `None`, and a fault, if the value is none.
    pub fn of(value: &'a Value<'a>, faults: &'a Faults) -> Option<Table<'a>> {
        let at = value.span().start;
        let entries = value.get_ref().as_table();
        if entries.is_none() {
            faults.add(at, "this must be a table");
        }
        Some(Table { at, entries: entries?, asked_for: Vec::new(), faults })
    }

    pub fn faults(&self) -> &'a Faults {
        self.faults
    }

    pub fn take(&mut self, key: &'static str) -> Option<&'a Value<'a>> {
        self.asked_for.push(key);
        self.entries.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.entries.keys().any(|name| name.get_ref() == key)
    }

    /// As [`Table::take`], and a fault if it is not there.
    pub fn need(&mut self, key: &'static str) -> Option<&'a Value<'a>> {
        let value = self.take(key);
        if value.is_none() {
            self.faults.add(self.at, format!("`{key}` is missing"));
        }
        value
    }

    pub fn text(&mut self, key: &'static str) -> Option<Text<'a>> {
        let value = self.take(key)?;
        self.as_text(key, value)
    }

    pub fn need_text(&mut self, key: &'static str) -> Option<Text<'a>> {
        let value = self.need(key)?;
        self.as_text(key, value)
    }

    fn as_text(&self, key: &str, value: &'a Value<'a>) -> Option<Text<'a>> {
        let at = value.span().start;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.faults.add(at, format!("`{key}` must be text, in quotes"));
        }
        Some(Text { at, text: text? })
    }

    /// `true` if it is there and true.
    pub fn is_set(&mut self, key: &'static str) -> bool {
        let Some(value) = self.take(key) else { return false };
        let set = value.get_ref().as_bool();
        if set != Some(true) {
            self.faults.add(value.span().start, format!("`{key}` can only be true, or left out"));
        }
        set == Some(true)
    }

    pub fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.take(key)?;
        let number = value.get_ref().as_integer().filter(|it| it.radix() == 10);
        let number = number.and_then(|it| it.as_str().parse().ok());
        let number = number.filter(|it| range.contains(it));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            let reason = format!("`{key}` must be a whole number from {least} to {most}");
            self.faults.add(value.span().start, reason);
        }
        number
    }

    /// A decimal as it stands in the file, as a number or in quotes.
    pub fn decimal(&mut self, key: &'static str) -> Option<Text<'a>> {
        let value = self.take(key)?;
        let at = value.span().start;
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Float(float) => Some(float.as_str()),
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
            _ => None,
        };
        if text.is_none() {
            self.faults.add(at, format!("`{key}` must be a decimal number"));
        }
        Some(Text { at, text: text? })
    }

    /// Money above zero, with two places at most.
    pub fn amount(&mut self, key: &'static str) -> Option<Cents> {
        let Text { at, text } = self.decimal(key)?;
        let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
        let is_plain = fraction.len() <= 2 && !text.contains(['e', 'E']);
        let amount = Cents::parse(text.as_bytes()).ok().filter(|it| is_plain && it.0 > 0);
        if amount.is_none() {
            let reason = format!("`{key}` must be an amount above 0 with two decimals at most");
            self.faults.add(at, reason);
        }
        amount
    }

    /// A duration as people write it: `10s`, `250ms`.
    pub fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Text { at, text } = self.text(key)?;
        let duration = humantime::parse_duration(text).ok().filter(|it| range.contains(it));
        if duration.is_none() {
            let [least, most] =
                [range.start(), range.end()].map(|it| humantime::format_duration(*it));
            let reason = format!("`{key}` must be a time from {least} to {most}, such as \"2s\"");
            self.faults.add(at, reason);
        }
        duration
    }

    /// `None` if it is not there, or, with a fault, is none.
    pub fn table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let value = self.take(key)?;
        Table::of(value, self.faults)
    }

    pub fn need_table(&mut self, key: &'static str) -> Option<Table<'a>> {
        let value = self.need(key)?;
        Table::of(value, self.faults)
    }

    /// The tables of `[[key]]`, none if there are none.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        match value.get_ref().as_array() {
            Some(array) => array.iter().filter_map(|it| Table::of(it, self.faults)).collect(),
            None => {
                self.faults.add(value.span().start, format!("write [[{key}]], in two brackets"));
                Vec::new()
            }
        }
    }

    /// All that is in it, whatever its keys, in the order of the file.
    pub fn into_entries(self) -> Vec<(Text<'a>, &'a Value<'a>)> {
        let named = self.entries.iter().map(|(key, value)| {
            (Text { at: key.span().start, text: key.get_ref().as_ref() }, value)
        });
        let mut entries: Vec<_> = named.collect();
        entries.sort_by_key(|(key, _)| key.at);
        entries
    }

    /// What nobody has asked for is a fault.
    pub fn end(self) {
        for key in self.entries.keys() {
            if self.asked_for.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let known = self.asked_for.join("`, `");
            let name = key.get_ref().escape_debug();
            self.faults.add(key.span().start, format!("`{name}` is none of `{known}`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_of(text: &str, read: impl FnOnce(&mut Table<'_>)) -> Vec<String> {
        let faults = Faults::default();
        let document = DeTable::parse(text).unwrap();
        let mut table = Table::whole(&document, &faults);
        read(&mut table);
        table.end();
        let found = faults.in_lines(text).into_iter();
        found.map(|it| format!("{}:{}: {}", it.line, it.column, it.reason)).collect()
    }

    #[test]
    fn what_is_asked_for_is_read() {
        let text =
            "name = \"n\"\ncount = 3\nfee = 1.25\nwhole = 7\nsum = 0.5\nwait = '2s'\nyes = true";
        let faults = faults_of(text, |table| {
            assert_eq!(table.need_text("name").map(|it| it.text), Some("n"));
            assert_eq!(table.integer("count", 1..=3), Some(3));
            assert_eq!(table.decimal("fee").map(|it| it.text), Some("1.25"));
            assert_eq!(table.decimal("whole").map(|it| it.text), Some("7"));
            assert_eq!(table.amount("sum"), Some(Cents(50)));
            let range = Duration::ZERO..=Duration::from_secs(2);
            assert_eq!(table.duration("wait", range), Some(Duration::from_secs(2)));
            assert!(table.is_set("yes") && !table.is_set("no"));
            assert!(table.text("absent").is_none() && table.tables("absent").is_empty());
        });
        assert_eq!(faults, Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let text = "a = 1\n  b = 'x'\n[c]\n[d.e]\n";
        let faults = faults_of(text, |table| {
            assert!(table.text("a").is_none());
            assert!(table.integer("b", 1..=9).is_none());
            assert!(table.tables("c").is_empty());
            assert!(table.need("f").is_none());
        });
        assert_eq!(
            faults,
            [
                "1:1: `f` is missing",
                "1:5: `a` must be text, in quotes",
                "2:7: `b` must be a whole number from 1 to 9",
                "3:1: write [[c]], in two brackets",
                "4:2: `d` is none of `a`, `b`, `c`, `f`",
            ]
        );
        for wrong in ["0", "-1", "0.001", "1e1", "inf", "'x'", "true", "9999999999999999999999"] {
            let faults = faults_of(&format!("a = {wrong}"), |table| {
                assert_eq!(table.amount("a"), None, "{wrong}");
            });
            assert_eq!(faults.len(), 1, "{wrong}");
        }
    }
}
