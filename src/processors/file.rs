//! A file of processors, read: all that is wrong with it, or what it says.

use super::endpoint::Endpoint;
use super::exchange::{self, Common};
use super::fault::Faults;
use super::headers;
use super::outside::{Machine, Outside};
use super::rules::Author;
use super::table::{Table, Text};
use super::tls;
use super::{Described, Kind, PROCESSORS_MAX, Processors, Timeouts};
use crate::base::money::Cents;
use crate::payments::fee::FeeSchedule;
use crate::payments::terms::Limits;
use std::path::Path;
use std::time::Duration;
use toml::de::DeTable;

const NAME_BYTES_MAX: usize = 32;
const CONTEST: &str = include_str!("builtin/contest.toml");
const IDEMPOTENT: &str = include_str!("builtin/idempotent.toml");

/// What no two processors may share, as far as it was read.
#[derive(Default)]
struct Taken {
    names: Vec<String>,
    fees: Vec<FeeSchedule>,
}

/// The processors of a file's text. Whatever is wrong goes to `faults`; without a fault there are
/// processors.
pub fn read(text: &str, outside: &dyn Outside, faults: &Faults) -> Option<Processors> {
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        faults.add(error.span().map_or(0, |it| it.start), error.message());
    }
    if !errors.is_empty() {
        return None;
    }
    let mut whole = Table::whole(&document, faults);
    let tables = whole.tables("processor");
    whole.end();
    if tables.is_empty() && faults.are_none() {
        faults.add(0, "there is no [[processor]]");
    }
    if let Some(table) = tables.get(PROCESSORS_MAX) {
        faults.add(table.at, format!("there are more than {PROCESSORS_MAX} processors"));
    }
    let mut taken = Taken::default();
    let tables = tables.into_iter().take(PROCESSORS_MAX);
    let read: Vec<_> = tables.map(|it| read_processor(it, outside, &mut taken)).collect();
    let all: Option<Vec<Described>> = read.into_iter().collect();
    all.filter(|_| faults.are_none()).map(|all| Processors { all })
}

fn read_processor(
    mut table: Table<'_>,
    outside: &dyn Outside,
    taken: &mut Taken,
) -> Option<Described> {
    let (at, faults) = (table.at, table.faults());
    let name = read_name(&mut table, taken);
    let kind = read_kind(&mut table);
    let endpoint = table.need_text("url").and_then(|Text { at, text }| {
        Endpoint::parse(text).map_err(|reason| faults.add(at, reason)).ok()
    });
    let fee = read_fee(&mut table, taken);
    let limits = read_limits(&mut table);
    let timeouts = read_timeouts(&mut table);
    let tls_table = table.table("tls");
    let is_tls = endpoint.as_ref().is_none_or(|it| it.is_tls);
    let tls = tls::read(tls_table, is_tls, outside);
    let headers = headers::read(table.table("headers"), &[], outside);
    let prefix = endpoint.as_ref().map_or("", |it| &it.prefix);
    let author = if kind == Some(Kind::Contest) { Author::Galo } else { Author::User };
    let common = Common { prefix, headers, author, outside };
    for key in ["pay", "look", "health"] {
        let builtin = kind.filter(|it| *it != Kind::Described);
        if let Some((kind, own)) = builtin.and_then(|kind| Some((kind, table.take(key)?))) {
            let reason = format!("kind = \"{}\" brings its own `{key}`", kind.name());
            faults.add(own.span().start, reason);
        }
    }
    let exchanges = match kind {
        Some(Kind::Described) => exchange::read(&mut table, &common),
        Some(Kind::Contest) => read_builtin(CONTEST, &common, (at, faults)),
        Some(Kind::Idempotent) => read_builtin(IDEMPOTENT, &common, (at, faults)),
        None => None,
    };
    // Of an unknown kind nobody knows which keys it has.
    if kind.is_some() {
        table.end();
    }
    Some(Described {
        name: name?,
        kind: kind?,
        endpoint: endpoint?,
        fee: fee?,
        limits: limits?,
        timeouts: timeouts?,
        tls,
        exchanges: exchanges?,
    })
}

/// The contest's API, without anything of a user's.
pub fn plain_contest() -> Option<exchange::Exchanges> {
    let document = DeTable::parse(CONTEST).ok()?;
    let (faults, outside) = (Faults::default(), Machine::beside(Path::new("")));
    let common =
        Common { prefix: "", headers: Vec::new(), author: Author::Galo, outside: &outside };
    exchange::read(&mut Table::whole(&document, &faults), &common)
}

/// What is built in is right by itself; only a user's headers may be in its way, which is told at the
/// processor that wants it.
fn read_builtin(
    text: &str,
    common: &Common<'_>,
    (at, faults): (usize, &Faults),
) -> Option<exchange::Exchanges> {
    let document = DeTable::parse(text).ok()?;
    let own = Faults::default();
    let mut table = Table::whole(&document, &own);
    let read = exchange::read(&mut table, common);
    table.end();
    for fault in own.in_lines(text) {
        faults.add(at, fault.reason);
    }
    read
}

fn read_name(table: &mut Table<'_>, taken: &mut Taken) -> Option<String> {
    let Text { at, text } = table.need_text("name")?;
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(1..=NAME_BYTES_MAX).contains(&text.len()) || !text.bytes().all(is_part) {
        let reason = format!("a name is 1 to {NAME_BYTES_MAX} of a to z, 0 to 9 and -");
        table.faults().add(at, reason);
        return None;
    }
    if taken.names.iter().any(|it| it == text) {
        table.faults().add(at, format!("there is a processor {text} before"));
    }
    taken.names.push(text.into());
    Some(text.into())
}

fn read_kind(table: &mut Table<'_>) -> Option<Kind> {
    let Some(Text { at, text }) = table.text("kind") else { return Some(Kind::Described) };
    let kind = Kind::ALL.into_iter().find(|it| it.name() == text);
    if kind.is_none() {
        let names = Kind::ALL.map(Kind::name).join(", ");
        table.faults().add(at, format!("`kind` must be one of: {names}"));
    }
    kind
}

fn read_fee(table: &mut Table<'_>, taken: &mut Taken) -> Option<FeeSchedule> {
    let mut fee = table.need_table("fee")?;
    let (at, faults) = (fee.at, fee.faults());
    let percent = fee.decimal("percent");
    let share = percent.map(|Text { at, text }| {
        let share = FeeSchedule::read_percent(text);
        if share.is_none() {
            let reason = "`percent` must be from 0 to below 100, with at most four decimals";
            faults.add(at, reason);
        }
        share
    });
    let fixed = fee.integer("fixed", 0..=FeeSchedule::FIXED_MAX);
    if !fee.has("percent") && !fee.has("fixed") {
        faults.add(at, "a fee has `percent`, or `fixed` in cents, or both");
    }
    let is_fixed_wrong = fee.has("fixed") && fixed.is_none();
    fee.end();
    if is_fixed_wrong {
        return None;
    }
    let fixed = Cents(fixed.unwrap_or_default().into());
    let schedule = FeeSchedule { share: share.unwrap_or(Some(Default::default()))?, fixed };
    if taken.fees.contains(&schedule) {
        let reason = "a processor before has the same fee: which of them is to be preferred?";
        faults.add(at, reason);
    }
    taken.fees.push(schedule);
    Some(schedule)
}

fn read_limits(table: &mut Table<'_>) -> Option<Limits> {
    let Some(mut limits) = table.table("limits") else { return Some(Limits::default()) };
    let read = Limits {
        concurrency: limits.integer("concurrency", 1..=10_000).unwrap_or(Limits::CONCURRENCY),
        per_second: limits.integer("per-second", 1..=100_000),
        smallest: limits.amount("smallest"),
        largest: limits.amount("largest"),
        day: limits.amount("day"),
    };
    let (at, faults) = (limits.at, limits.faults());
    limits.end();
    let exceeds = |a: Option<Cents>, b: Option<Cents>| a.zip(b).is_some_and(|(a, b)| a > b);
    for (is_wrong, reason) in [
        (exceeds(read.smallest, read.largest), "`smallest` is above `largest`"),
        (exceeds(read.smallest, read.day), "`smallest` is above `day`: nothing could be paid"),
        (exceeds(read.largest, read.day), "`largest` is above `day`: it could never be paid"),
    ] {
        if is_wrong {
            faults.add(at, reason);
        }
    }
    Some(read)
}

fn read_timeouts(table: &mut Table<'_>) -> Option<Timeouts> {
    let Some(mut timeouts) = table.table("timeouts") else { return Some(Timeouts::default()) };
    let (at, faults) = (timeouts.at, timeouts.faults());
    let default = Timeouts::default();
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(120));
    let read = Timeouts {
        connect: timeouts.duration("connect", least..=most).unwrap_or(default.connect),
        answer: timeouts.duration("answer", least..=most).unwrap_or(default.answer),
    };
    timeouts.end();
    if read.connect > read.answer {
        faults.add(at, "connecting may not take longer than the whole answer");
    }
    Some(read)
}
