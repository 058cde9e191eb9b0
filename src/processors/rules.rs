//! The rules of a file, read: what each answer of a processor means, and what none may mean.
//!
//! What a file may not say, since money hangs on it:
//!
//! - *booked* of a status other than 2xx, unless a pointer shows it.
//! - *rejected* of a status other than 4xx, nor of 408, 409, 423, 425, 429 and 499, unless the body
//!   shows it. These say that somebody gave up waiting, that another request is in the way, or that
//!   something broke: the payment may have been, or may yet be, booked.
//! - *not-booked* of any status, unless the body shows it: it is believed at once, where a rejected
//!   payment is looked for first, and a status may come from any gateway on the way, a document only
//!   from the processor. `empty` is enough: a failure switch answers so.
//! - *absent* of a status other than 404, 410 and 204, unless a pointer shows it.
//! - *pause* of a status other than 429, unless a pointer shows it.
//!
//! What a rule says counts for the answers that no rule before it has taken without a condition.

use super::answers::{Condition, Literal, Meaning, Proof, Rule, Unit};
use super::fault::Faults;
use super::pointer::Pointer;
use super::table::{Table, Text, Value};
use std::ops::RangeInclusive;
use toml::de::DeValue;

/// To one question.
const RULES_MAX: usize = 32;
/// Of one rule.
const STATUSES_MAX: usize = 32;
const VALUES_MAX: usize = 32;
/// The final statuses of HTTP (RFC 9110, 15).
const STATUSES: RangeInclusive<u16> = 200..=599;
/// 4xx that say nothing about what became of a request.
const UNDECIDED: [u16; 6] = [408, 409, 423, 425, 429, 499];

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Pay,
    Look,
    Health,
}

impl Question {
    /// What an answer to it may mean.
    pub fn meanings(self) -> &'static [Meaning] {
        use Meaning::{Absent, Booked, Failing, NotBooked, Pause, Rejected, Unknown, Well};
        match self {
            Question::Pay => &[Booked, NotBooked, Rejected, Pause, Unknown],
            Question::Look => &[Booked, Absent, Pause, Unknown],
            Question::Health => &[Well, Failing, Unknown],
        }
    }
}

/// Who wrote the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    User,
    /// The contest's rules are ours, and are more daring than a file may be: its processors are known.
    Galo,
}

/// The rules of `[[….answer]]`. A fault if there are none, too many, or any that may not be.
pub fn read(table: &mut Table<'_>, question: Question, author: Author) -> Vec<Rule> {
    let (at, faults) = (table.at, table.faults());
    let is_there = table.has("answer");
    let answers = table.tables("answer");
    let count = answers.len();
    if !is_there {
        faults.add(at, "there is no [[….answer]]: what its answers mean is missing");
    }
    if count > RULES_MAX {
        faults.add(at, format!("there are more than {RULES_MAX} answers"));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for answer in answers.into_iter().take(RULES_MAX) {
        let place = answer.at;
        let Some(rule) = read_rule(answer, question) else { continue };
        if let Some(reason) = fault_of(&rule, &rules, author) {
            faults.add(place, reason);
        }
        rules.push(rule);
    }
    let needed = match question {
        Question::Pay | Question::Look => Meaning::Booked,
        Question::Health => Meaning::Well,
    };
    if count > 0 && rules.len() == count && !rules.iter().any(|rule| rule.meaning == needed) {
        faults.add(at, format!("no answer means \"{}\"", needed.name()));
    }
    rules
}

fn read_rule(mut table: Table<'_>, question: Question) -> Option<Rule> {
    let faults = table.faults();
    let statuses = table.need("status");
    let (shown, statuses) = statuses.map(|it| read_statuses(it, faults)).unwrap_or_default();
    let condition = read_condition(&mut table);
    let meaning = read_meaning(&mut table, question);
    // Of a meaning that is none nobody knows which keys it has.
    let is_booked = meaning.is_none_or(|it| it == Meaning::Booked);
    let proof = if is_booked { read_proof(&mut table) } else { Proof::default() };
    let is_health = matches!(meaning, Some(Meaning::Well | Meaning::Failing));
    let delay = if is_health { read_pointer(&mut table, "delay-ms") } else { None };
    table.end();
    let (condition, meaning) = (condition?, meaning?);
    let shown = format!("{shown}{}", show(&condition));
    Some(Rule { shown, statuses, condition, meaning, proof, delay })
}

fn read_meaning(table: &mut Table<'_>, question: Question) -> Option<Meaning> {
    let Text { at, text } = table.need_text("means")?;
    let known = question.meanings();
    let meaning = known.iter().find(|it| it.name() == text).copied();
    if meaning.is_none() {
        let names = known.iter().map(|it| it.name()).collect::<Vec<_>>().join(", ");
        table.faults().add(at, format!("an answer to this question means one of: {names}"));
    }
    meaning
}

fn read_proof(table: &mut Table<'_>) -> Proof {
    let (id, time) = (read_pointer(table, "id"), read_pointer(table, "time"));
    let amount = read_pointer(table, "amount");
    let unit = table.text("unit");
    let faults = table.faults();
    let amount = match (amount, unit) {
        (None, Some(unit)) => {
            faults.add(unit.at, "a `unit` without an `amount`");
            None
        }
        (Some(_), None) => {
            faults.add(table.at, "`amount` needs its `unit`");
            None
        }
        (Some(pointer), Some(unit)) => {
            let found = Unit::ALL.iter().find(|(_, name)| *name == unit.text);
            if found.is_none() {
                let names = Unit::ALL.map(|(_, name)| name).join(", ");
                faults.add(unit.at, format!("`unit` must be one of: {names}"));
            }
            found.map(|(unit, _)| (pointer, *unit))
        }
        (None, None) => None,
    };
    Proof { id, amount, time }
}

fn read_pointer(table: &mut Table<'_>, key: &'static str) -> Option<Pointer> {
    let Text { at, text } = table.text(key)?;
    Pointer::parse(text).map_err(|reason| table.faults().add(at, reason)).ok()
}

/// `None` is a fault that was told.
fn read_condition(table: &mut Table<'_>) -> Option<Condition> {
    let is_pointed = table.text("at");
    let pointer = is_pointed.map(|Text { at, text }| {
        Pointer::parse(text).map_err(|reason| table.faults().add(at, reason)).ok()
    });
    let values = table.take("is").map(|it| read_values(it, table.faults()));
    let (is_text, is_empty) = (table.is_set("text"), table.is_set("empty"));
    let wanted = usize::from(values.is_some()) + usize::from(is_text) + usize::from(is_empty);
    if wanted > 1 || (pointer.is_some() && wanted == 0) {
        let reason = "what is wanted `at` a place is one of `is`, `text = true`, `empty = true`";
        table.faults().add(table.at, reason);
        return None;
    }
    match (pointer, values) {
        (Some(pointer), Some(values)) => Some(Condition::OneOf(pointer?, values?)),
        (Some(pointer), None) if is_text => Some(Condition::Text(pointer?)),
        (Some(pointer), None) => Some(Condition::Empty(pointer?)),
        (None, None) if is_empty => Some(Condition::NoBody),
        (None, None) if !is_text => Some(Condition::Any),
        _ => {
            table.faults().add(table.at, "`at` is missing: where this is wanted");
            None
        }
    }
}

fn read_values(value: &Value<'_>, faults: &Faults) -> Option<Vec<Literal>> {
    let literal = |value: &Value<'_>| match value.get_ref() {
        DeValue::String(text) => Some(Literal::Text(text.clone().into_owned())),
        DeValue::Boolean(truth) => Some(Literal::Boolean(*truth)),
        DeValue::Integer(number) if number.radix() == 10 => {
            number.as_str().parse().ok().map(Literal::Integer)
        }
        _ => None,
    };
    let literals: Option<Vec<Literal>> = match value.get_ref().as_array() {
        Some(array) => array.iter().map(literal).collect(),
        None => literal(value).map(|it| vec![it]),
    };
    let literals = literals.filter(|it| (1..=VALUES_MAX).contains(&it.len()));
    if literals.is_none() {
        let reason = format!("`is` has 1 to {VALUES_MAX} texts, whole numbers or truth values");
        faults.add(value.span().start, reason);
    }
    literals
}

/// As they are written, and the statuses meant: `404`, `"2xx"`, `"500-599"`, or an array of these.
fn read_statuses(value: &Value<'_>, faults: &Faults) -> (String, Vec<RangeInclusive<u16>>) {
    let one = |value: &Value<'_>| {
        let text = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::String(text) => text.clone().into_owned(),
            _ => return None,
        };
        let range = read_range(&text)?;
        Some((text, range))
    };
    let read: Option<Vec<_>> = match value.get_ref().as_array() {
        Some(array) => array.iter().map(one).collect(),
        None => one(value).map(|it| vec![it]),
    };
    match read.filter(|it| (1..=STATUSES_MAX).contains(&it.len())) {
        Some(read) => {
            let (texts, ranges): (Vec<_>, Vec<_>) = read.into_iter().unzip();
            (texts.join(", "), ranges)
        }
        None => {
            let reason = "`status` is 200 to 599, such as 404, \"2xx\" or \"500-503\", or an array";
            faults.add(value.span().start, reason);
            Default::default()
        }
    }
}

fn read_range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|it| is_number && STATUSES.contains(it))
    };
    if let Some(hundreds) = text.strip_suffix("xx") {
        let first = status(&format!("{hundreds}00"))?;
        return Some(first..=first + 99);
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some(first..=last)
}

/// Why a rule may not stand behind these.
fn fault_of(rule: &Rule, before: &[Rule], author: Author) -> Option<String> {
    let covers = |other: &Rule, status: u16| other.statuses.iter().any(|it| it.contains(&status));
    let is_taken = |status: &u16| {
        before.iter().any(|it| it.condition == Condition::Any && covers(it, *status))
    };
    let mut left = STATUSES.filter(|it| covers(rule, *it) && !is_taken(it)).peekable();
    if left.peek().is_none() && !rule.statuses.is_empty() {
        return Some("this is never reached: what stands before it decides".into());
    }
    if author == Author::Galo {
        return None;
    }
    let mut offending = left.filter(|it| !may_mean(rule.meaning, *it, &rule.condition));
    let first = offending.next()?;
    let more = offending.count();
    let and_more = if more == 0 { String::new() } else { format!(" (and of {more} more)") };
    let name = rule.meaning.name();
    let wanted = match rule.meaning {
        Meaning::NotBooked => "a value `at` a place, or `empty = true`",
        _ => "a value `at` a place",
    };
    Some(format!("{first}{and_more} does not mean \"{name}\" by itself: say by {wanted} what does"))
}

/// Whether a status alone can say that a request was refused.
pub fn is_refusal(status: u16) -> bool {
    status / 100 == 4 && !UNDECIDED.contains(&status)
}

/// Whether a file may say so. See the module.
fn may_mean(meaning: Meaning, status: u16, condition: &Condition) -> bool {
    match condition {
        Condition::OneOf(..) | Condition::Text(_) | Condition::Empty(_) => return true,
        Condition::NoBody if meaning == Meaning::NotBooked => return true,
        Condition::NoBody | Condition::Any => {}
    }
    match meaning {
        Meaning::Booked => status / 100 == 2,
        Meaning::NotBooked => false,
        Meaning::Rejected => is_refusal(status),
        Meaning::Absent => [404, 410, 204].contains(&status),
        Meaning::Pause => status == 429,
        Meaning::Unknown | Meaning::Well | Meaning::Failing => true,
    }
}

/// The condition for people, behind the statuses.
fn show(condition: &Condition) -> String {
    match condition {
        Condition::Any => String::new(),
        Condition::NoBody => " without a body".into(),
        Condition::Text(pointer) => format!(" with a text at {pointer}"),
        Condition::Empty(pointer) => format!(" with nothing in {pointer}"),
        Condition::OneOf(pointer, values) => {
            let value = |it: &Literal| match it {
                Literal::Text(text) => format!("{text:?}"),
                Literal::Integer(number) => number.to_string(),
                Literal::Boolean(truth) => truth.to_string(),
            };
            let values = values.iter().map(value).collect::<Vec<_>>().join(" or ");
            format!(" with {pointer} = {values}")
        }
    }
}
