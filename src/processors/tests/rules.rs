//! Rules made up, and answers made up: what is made of them is what another reader makes of them, and
//! without a rule that fits nothing is said about money.

use super::{Made, attempt, one};
use crate::payments::{Outcome, Refusal};
use proptest::prelude::*;
use serde_json::Value;

/// A rule as it stands in a file.
#[derive(Clone, Debug)]
struct Rule {
    first: u16,
    last: u16,
    condition: Wanted,
    meaning: &'static str,
}

#[derive(Clone, Debug)]
enum Wanted {
    Nothing,
    NoBody,
    Is(&'static str, Vec<Value>),
    Text(&'static str),
    Empty(&'static str),
}

const POINTERS: [&str; 5] = ["", "/a", "/a/b", "/a/0", "/c~1d"];

fn literal() -> impl Strategy<Value = Value> {
    prop_oneof![Just(Value::from("x")), Just("é\"\\".into()), Just(7.into()), Just(true.into())]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let pointer = || proptest::sample::select(&POINTERS[..]);
    prop_oneof![
        Just(Wanted::Nothing),
        Just(Wanted::NoBody),
        (pointer(), proptest::collection::vec(literal(), 1..3))
            .prop_map(|(at, is)| Wanted::Is(at, is)),
        pointer().prop_map(Wanted::Text),
        pointer().prop_map(Wanted::Empty),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    const MEANINGS: [&str; 5] = ["booked", "not-booked", "rejected", "pause", "unknown"];
    let statuses = (200..600_u16, prop_oneof![Just(0_u16), 0..200_u16]);
    (statuses, wanted(), proptest::sample::select(&MEANINGS[..])).prop_map(
        |((first, more), condition, meaning)| Rule {
            first,
            last: (first + more).min(599),
            condition,
            meaning,
        },
    )
}

impl Rule {
    fn in_file(&self) -> String {
        let condition = match &self.condition {
            Wanted::Nothing => String::new(),
            Wanted::NoBody => "empty = true".into(),
            // JSON's texts, numbers and truth values are TOML's.
            Wanted::Is(at, values) => format!("at = '{at}'\nis = {}", Value::from(values.clone())),
            Wanted::Text(at) => format!("at = '{at}'\ntext = true"),
            Wanted::Empty(at) => format!("at = '{at}'\nempty = true"),
        };
        let Rule { first, last, meaning, .. } = self;
        format!(
            "[[processor.pay.answer]]\nstatus = '{first}-{last}'\n{condition}\nmeans = '{meaning}'\n"
        )
    }

    fn fits(&self, status: u16, body: &[u8], is_whole: bool) -> bool {
        let document: Option<Value> = serde_json::from_slice(body).ok();
        let found = |at: &str| document.as_ref().and_then(|it| it.pointer(at));
        let is_met = match &self.condition {
            Wanted::Nothing => true,
            Wanted::NoBody => body.is_empty() && is_whole,
            Wanted::Is(at, values) => found(at).is_some_and(|it| values.contains(it)),
            Wanted::Text(at) => found(at).is_some_and(Value::is_string),
            Wanted::Empty(at) => found(at).is_some_and(|it| match it {
                Value::String(text) => text.is_empty(),
                Value::Array(array) => array.is_empty(),
                Value::Object(object) => object.is_empty(),
                _ => false,
            }),
        };
        (self.first..=self.last).contains(&status) && is_met
    }
}

fn file(rules: &[Rule]) -> String {
    let rules: String = rules.iter().map(Rule::in_file).collect();
    format!(
        "[[processor]]\nname = 'a'\nurl = 'http://a'\nfee = {{ percent = 1 }}\n\
         [processor.pay]\npath = '/p'\nbody = '{{\"a\":{{cents}},\"b\":\"{{id}}\"}}'\n{rules}\
         [[processor.pay.answer]]\nstatus = 200\nat = '/never'\nis = 'this'\nmeans = 'booked'\n\
         [processor.look]\npath = '/l/{{id}}'\n[[processor.look.answer]]\nstatus = 200\nmeans = 'booked'\n"
    )
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        literal(),
        Just(Value::Null),
        Just("".into()),
        Just(7.0.into()),
        Just(Value::from("7")),
    ];
    let value = leaf.prop_recursive(2, 8, 3, |inner| {
        let keys = proptest::sample::select(&["a", "b", "c/d", "never"][..]);
        let fields =
            proptest::collection::btree_map(keys.prop_map(String::from), inner.clone(), 0..3);
        prop_oneof![
            proptest::collection::vec(inner, 0..3).prop_map(Value::from),
            fields.prop_map(|it| it.into_iter().collect()),
        ]
    });
    let text = value.prop_map(|it| it.to_string().into_bytes());
    prop_oneof![4 => text, 1 => Just(Vec::new()), 1 => any::<Vec<u8>>()]
}

proptest! {
    #[test]
    fn the_first_rule_that_fits_decides(
        rules in proptest::collection::vec(rule(), 0..5),
        answers in proptest::collection::vec((200..620_u16, body(), any::<bool>()), 8),
    ) {
        // A file that says too much is refused, which other tests are about.
        let text = file(&rules);
        let Ok(read) = crate::processors::Processors::read("f", &text, &Made::default()) else {
            return Ok(());
        };
        let described = read.iter().next().unwrap();
        let attempt = attempt();
        for (status, body, is_whole) in answers {
            let fitting = rules.iter().find(|rule| rule.fits(status, &body, is_whole));
            let expected = match fitting.map_or("unknown", |rule| rule.meaning) {
                "booked" => Outcome::Recorded(attempt.requested_at),
                "not-booked" => Outcome::NotRecorded(Refusal::Failing),
                "rejected" => {
                    let is_refusal = (400..500).contains(&status)
                        && ![408, 409, 423, 425, 429, 499].contains(&status);
                    Outcome::Declined { status: if is_refusal { status } else { 400 } }
                }
                "pause" => Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: 1_000 }),
                _ => Outcome::Unknown,
            };
            let read = described.read_pay(status, &body, None, is_whole, &attempt, false);
            prop_assert_eq!(read, expected, "{} {} {}", status, body.escape_ascii(), text);
        }
    }
}

#[test]
fn an_answer_that_is_too_large_says_nothing() {
    let described = one(&file(&[]).replace("'/never'", "'/a'"), &Made::default());
    let answer = |length: usize| {
        let body = format!("{{\"a\":\"this\",\"b\":\"{}\"}}", "x".repeat(length));
        described.read_pay(200, body.as_bytes(), None, true, &attempt(), false)
    };
    assert_eq!(answer(60_000), Outcome::Recorded(attempt().requested_at));
    assert_eq!(answer(70_000), Outcome::Unknown);
    let look = |body: &[u8]| described.read_look(200, body, None, &attempt(), false);
    assert_eq!(look(b""), Outcome::Recorded(attempt().requested_at));
    assert_eq!(look(&vec![b' '; 1 << 20]), Outcome::Unknown);
}
