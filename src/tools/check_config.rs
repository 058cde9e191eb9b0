//! `galo check-config FILE`: what is wrong with a file of processors, or what it would have galo do.
//!
//! Nothing is opened but the file and what it names, nothing is sent, and no secret is shown.

use crate::base::clock::{Rounding, Timestamp};
use crate::base::money::Cents;
use crate::payments::PaymentId;
use crate::processors::answers::{Meaning, Rule, Unit};
use crate::processors::exchange::Exchange;
use crate::processors::request::Secrets;
use crate::processors::template::Filling;
use crate::processors::{Described, Processors};
use crate::tools::text::{COLUMNS, say, say_aside, wrapped};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// When the example is to be booked.
const EXAMPLE_AT: &[u8] = b"2025-07-10T12:34:56.123Z";
const EXIT_REFUSED: u8 = 2;

/// Say what is wrong with a file of processors, or what would be sent by it
///
/// Opens nothing but the file and what it names, and sends nothing. Exit code 0: the file is right;
/// 2: it is not, with a line FILE:LINE:COLUMN: REASON for each fault.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckConfigArgs {
    /// The file (TOML): docs/processors.md has it key by key
    pub file: PathBuf,

    /// The amount of the example payment
    #[arg(long, default_value = "19.90", value_parser = read_amount)]
    pub amount: Cents,

    /// The id of the example payment
    #[arg(long, default_value = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3", value_parser = read_id)]
    pub id: PaymentId,
}

fn read_amount(text: &str) -> Result<Cents, String> {
    let amount = Cents::parse(text.as_bytes()).ok().filter(|it| it.0 > 0);
    amount.ok_or_else(|| "it must be an amount above 0, such as 19.90".into())
}

fn read_id(text: &str) -> Result<PaymentId, String> {
    PaymentId::parse(text.as_bytes()).ok_or_else(|| "it must be a UUID of 36 characters".into())
}

/// Runs the command.
///
/// # Errors
/// None: what is wrong with the file is said, and told by the exit code.
pub fn run(args: &CheckConfigArgs) -> Result<ExitCode, String> {
    let processors = match load(&args.file) {
        Ok(processors) => processors,
        Err(code) => return Ok(code),
    };
    let requested_at = Timestamp::parse(EXAMPLE_AT, Rounding::Down).unwrap_or_default();
    let example = Filling { id: args.id, amount: args.amount, requested_at };
    for line in report(&processors, &example) {
        say(harmless(&line));
    }
    Ok(ExitCode::SUCCESS)
}

/// The processors of a file. What is wrong with it is said, a line each.
///
/// # Errors
/// The exit code of a file that is wrong.
pub fn load(file: &Path) -> Result<Processors, ExitCode> {
    Processors::load(file).map_err(|refused| {
        refused.lines().for_each(|line| say_aside(format_args!("{}", harmless(line))));
        ExitCode::from(EXIT_REFUSED)
    })
}

/// A line without what a terminal would take for a command.
fn harmless(line: &str) -> String {
    line.chars().map(|it| if it.is_control() { '?' } else { it }).collect()
}

fn report(processors: &Processors, example: &Filling) -> Vec<String> {
    let mut lines = overview(processors, example.amount);
    for processor in processors.iter() {
        lines.push(String::new());
        lines.push(format!("{} ({})", processor.name, processor.kind.name()));
        tell(&mut lines, processor);
        let exchanges = &processor.exchanges;
        for (what, exchange) in [
            ("to pay it", Some(&exchanges.pay)),
            ("to ask whether it is booked", Some(&exchanges.look)),
            ("to ask how it is", exchanges.health.as_ref()),
        ] {
            let Some(exchange) = exchange else { continue };
            lines.push(format!("  what is sent {what}"));
            dry_run(&mut lines, processor, exchange, example);
            lines.push("  what its answers mean".into());
            meanings(&mut lines, exchange);
        }
    }
    lines
}

/// A line for each, the cheapest first, those that do not take the amount last.
fn overview(processors: &Processors, amount: Cents) -> Vec<String> {
    let taking: Vec<_> = processors.cheapest_first(amount).collect();
    let others = processors.iter().filter(|it| !it.limits.takes(amount));
    let row = |it: &Described| {
        let costs = match it.limits.takes(amount) {
            true => in_decimals(it.fee.on(amount)),
            false => "does not take it".into(),
        };
        [it.name.clone(), it.kind.name().into(), it.fee.to_string(), costs]
    };
    let head = ["processor".into(), "kind".into(), "fee".into(), format!("of {amount}")];
    let rows = taking.iter().copied().chain(others).map(row);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let widths: [usize; 4] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let line = |[name, kind, fee, costs]: &[String; 4]| {
        let [w0, w1, w2, _] = widths;
        format!("{name:w0$}  {kind:w1$}  {fee:w2$}  {costs}")
    };
    rows.iter().map(line).collect()
}

/// Millionths of a cent as a decimal with four places, the last one rounded up from a half.
fn in_decimals(millionths: i128) -> String {
    let ten_thousandths = (millionths + 5_000) / 10_000;
    format!("{}.{:04}", ten_thousandths / 10_000, ten_thousandths % 10_000)
}

/// What there is to know of a processor beside its requests.
fn tell(lines: &mut Vec<String>, processor: &Described) {
    let limits = &processor.limits;
    let mut said = vec![format!("{} at once", limits.concurrency)];
    said.extend(limits.per_second.map(|it| format!("{it} requests a second")));
    said.extend(limits.smallest.map(|it| format!("{it} a payment at least")));
    said.extend(limits.largest.map(|it| format!("{it} a payment at most")));
    said.extend(limits.day.map(|it| format!("{it} a day (UTC)")));
    fact(lines, "where", &processor.endpoint.to_string());
    fact(lines, "limits", &said.join(", "));
    let [connect, answer] =
        [processor.timeouts.connect, processor.timeouts.answer].map(humantime::format_duration);
    fact(lines, "waits", &format!("{connect} to connect, {answer} for the whole answer"));
    if processor.endpoint.is_tls {
        let authorities = processor.tls.authorities.as_ref();
        let trusts = authorities.map_or("the system's authorities".to_owned(), |it| {
            format!("the authorities in {}, and no others", it.path.display())
        });
        fact(lines, "trusts", &trusts);
    }
    if let Some((certificate, key)) = &processor.tls.identity {
        let (certificate, key) = (certificate.path.display(), key.path.display());
        fact(lines, "shows", &format!("the certificate in {certificate}, by the key in {key}"));
    }
    for (name, source) in &processor.exchanges.secrets {
        fact(lines, "secret", &format!("{name}, from {source}"));
    }
    for remark in remarks(processor) {
        fact(lines, "mind", remark);
    }
}

/// A word, and what there is to say of it, in as many lines as it takes.
fn fact(lines: &mut Vec<String>, word: &str, text: &str) {
    const INDENT: usize = 10;
    let text = wrapped(text, INDENT);
    let text = text.get(INDENT..).unwrap_or_default();
    lines.extend(format!("  {word:8}{text}").lines().map(String::from));
}

/// What is not wrong, and may not be meant.
fn remarks(processor: &Described) -> Vec<&'static str> {
    let exchanges = &processor.exchanges;
    let has_pause = exchanges.pay.rules.iter().any(|it| it.meaning == Meaning::Pause);
    let is_open = !processor.endpoint.is_tls && !exchanges.secrets.is_empty();
    let remarks = [
        (
            !exchanges.tell_whose(),
            "a booking does not show the requestedAt it was sent with: two instances cannot tell \
             whose it is, so only one may use this processor",
        ),
        (
            !exchanges.check_amounts(),
            "a look does not show the amount: another one under the same id goes unnoticed",
        ),
        (!has_pause, "429 is not described: it is unknown, and each one costs a look"),
        (is_open, "http://: secrets go out for all to read"),
    ];
    remarks.into_iter().filter(|(is_so, _)| *is_so).map(|(_, text)| text).collect()
}

/// The request as it would be sent, but for secrets.
fn dry_run(lines: &mut Vec<String>, processor: &Described, exchange: &Exchange, example: &Filling) {
    let mut request = Vec::new();
    let host = processor.endpoint.authority();
    exchange.request.write(&mut request, &host, example, Secrets::Hidden);
    let text = String::from_utf8_lossy(&request);
    lines.extend(text.trim_end().lines().map(|line| format!("    {line}").trim_end().to_owned()));
}

/// What each answer that is described means, and all else.
fn meanings(lines: &mut Vec<String>, exchange: &Exchange) {
    for rule in &exchange.rules {
        let meaning = rule.meaning.name();
        let text = wrapped(&format!("{}{}", rule.shown, proofs(rule)), 16);
        let text = text.get(16..).unwrap_or_default();
        lines.extend(format!("    {meaning:12}{text}").lines().map(String::from));
    }
    lines.push("    unknown     all else, and none".into());
}

fn proofs(rule: &Rule) -> String {
    let mut said = Vec::new();
    said.extend(rule.proof.id.as_ref().map(|it| format!("its id at {it}")));
    said.extend(rule.proof.amount.as_ref().map(|(pointer, unit)| {
        let name = Unit::ALL.iter().find(|(it, _)| it == unit).map_or("", |(_, name)| name);
        format!("its amount at {pointer} ({name})")
    }));
    said.extend(rule.proof.time.as_ref().map(|it| format!("its time at {it}")));
    said.extend(rule.delay.as_ref().map(|it| format!("milliseconds at {it}")));
    if said.is_empty() { String::new() } else { format!("; {}", said.join(", ")) }
}

// A name, a kind, a fee and what it comes to fit beside each other.
const _: () = assert!(32 + 2 + 10 + 2 + 19 + 2 + 12 <= COLUMNS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fees_are_shown_to_the_hundredth_of_a_cent() {
        for (millionths, shown) in [
            (0, "0.0000"),
            (4_999, "0.0000"),
            (5_000, "0.0001"),
            (87_710_000, "0.8771"),
            (12_345_678_900_000, "123456.7890"),
        ] {
            assert_eq!(in_decimals(millionths), shown);
        }
    }

    #[test]
    fn facts_have_80_columns_and_nothing_for_the_terminal() {
        let mut lines = Vec::new();
        fact(&mut lines, "secret", &"word ".repeat(40));
        assert!(lines.len() == 3 && lines.iter().all(|it| it.len() <= COLUMNS), "{lines:?}");
        assert!(lines[0].starts_with("  secret  word ") && lines[1].starts_with("          word"));
        assert_eq!(harmless("a\u{1b}[2Jb\tc"), "a?[2Jb?c");
    }
}
