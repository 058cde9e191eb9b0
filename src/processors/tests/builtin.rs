//! The built-in descriptions: the contest's says and reads just what `payments/processor.rs` does.

use super::{Made, attempt, one};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::payments::{Attempt, Outcome, Payment, PaymentId, Refusal, processor};
use crate::processors::Described;
use proptest::prelude::*;
use std::sync::LazyLock;

static CONTEST: LazyLock<Described> = LazyLock::new(|| built_in("contest"));
static IDEMPOTENT: LazyLock<Described> = LazyLock::new(|| built_in("idempotent"));

fn built_in(kind: &str) -> Described {
    let text = format!(
        "[[processor]]\nname = 'a'\nkind = '{kind}'\nurl = 'http://a'\nfee = {{ percent = 5 }}"
    );
    one(&text, &Made::default())
}

fn check_contest(status: u16, body: &[u8], is_whole: bool, attempt: &Attempt, paired: bool) {
    let shown = || format!("{status} {} {is_whole} {paired}", body.escape_ascii());
    for retry_after_s in [None, Some(7)] {
        assert_eq!(
            CONTEST.read_pay(status, body, retry_after_s, is_whole, attempt, paired),
            processor::read_pay(status, body, retry_after_s, is_whole, attempt),
            "{}",
            shown()
        );
        assert_eq!(
            CONTEST.read_look(status, body, retry_after_s, attempt, paired),
            processor::read_look(status, body, retry_after_s, attempt, paired),
            "{}",
            shown()
        );
    }
    assert_eq!(
        CONTEST.read_health(status, body),
        processor::read_health(status, body),
        "{}",
        shown()
    );
}

/// What is an answer, and what only looks like one.
const BODIES: &[&str] = &[
    "",
    "{}",
    "[]",
    "null",
    "7",
    "\"message\"",
    "<html>",
    r#"{"message":"payment processed successfully"}"#,
    r#" {"more":[{}],"message":"\u0041"} "#,
    r#"{"message":7}"#,
    r#"{"message":null}"#,
    r#"{"message":"a","message":"b"}"#,
    r#"{"message":"a","m\u0065ssage":"b"}"#,
    r#"["message"]"#,
    r#"["a"]"#,
    r#"{"message":"cut o"#,
    r#"{"message":"a"}{}"#,
    r#"{"message":"a"},"#,
    r#"{"message":"\ud83d"}"#,
    r#"{"message":"a","b":1.}"#,
    r#"{"message":"a","b":01}"#,
    r#"{"message":"a","b":tru}"#,
    r#"{"message":"a","b":"\x"}"#,
    r#"{"message":"a","b":[}"#,
    r#"{"message":"a","b":1e999}"#,
    r#"{"message":"a","b":99999999999999999999}"#,
    r#"{"failing":true,"minResponseTime":120}"#,
    r#"{"failing":false,"minResponseTime":0}"#,
    r#"[true,120]"#,
    r#"{"failing":true}"#,
    r#"{"failing":true,"minResponseTime":-1}"#,
    r#"{"failing":true,"minResponseTime":4294967295}"#,
    r#"{"failing":1,"minResponseTime":1}"#,
    r#"{"failing":true,"minResponseTime":4294967296}"#,
    r#"{"failing":true,"minResponseTime":1.0}"#,
    r#"{"failing":true,"minResponseTime":1e1}"#,
    r#"{"failing":true,"minResponseTime":-0}"#,
    r#"{"failing":"true","minResponseTime":1}"#,
    r#"{"failing":true,"failing":false,"minResponseTime":1}"#,
];

#[test]
fn the_contests_answers_mean_what_they_always_did() {
    let attempt = attempt();
    let booking = |amount: &str, at: &str| {
        format!(
            r#"{{"correlationId":"{}","amount":{amount},"requestedAt":"{at}"}}"#,
            attempt.payment.id
        )
    };
    let mut bodies: Vec<Vec<u8>> = BODIES.iter().map(|it| it.as_bytes().to_vec()).collect();
    for amount in [
        "19.90",
        "19.9",
        "1990e-2",
        "19.899",
        "19.91",
        "-19.90",
        "0",
        "1e300",
        "null",
        "\"19.90\"",
        "[]",
    ] {
        for at in [
            "2020-07-10T12:34:56.123Z",
            "2020-07-10T12:34:56.124",
            "2020-07-10T12:34:55.123",
            "yesterday",
            "",
        ] {
            bodies.push(booking(amount, at).into());
        }
    }
    let good = booking("19.90", "2020-07-10T12:34:56.123Z");
    bodies.push(good.replace('4', "5").into());
    bodies.push(good.to_uppercase().replace("CORRELATIONID", "correlationId").into());
    bodies.push(good.replace("-", "\\u002d").into());
    bodies.push(good.replace("\"amount\"", "\"amount\":1,\"amount\"").into());
    bodies.push(format!("[{good}]").into());
    bodies.push(b"\xff\xfe{\0".to_vec());
    bodies.push(b"{\"message\":\"\xff\"}".to_vec());
    bodies.push([br#"{"message":"a","b":"#.as_slice(), &[b'['; 40], &[b']'; 40], b"}"].concat());
    for body in &bodies {
        for status in 102..1_000 {
            check_contest(status, body, true, &attempt, false);
            check_contest(status, body, false, &attempt, status % 2 == 0);
        }
    }
}

fn payment() -> impl Strategy<Value = Attempt> {
    let times = (0..4_102_444_800_000_i64, 0..5_000_i64);
    (any::<u128>(), any::<i64>(), times, any::<bool>()).prop_map(
        |(id, cents, (at, later), guest)| {
            let (id, amount) = (PaymentId(id), Cents(cents));
            let accepted_at = Timestamp(at);
            let payment = Payment { id, amount, accepted_at, guest, ..attempt().payment };
            Attempt { payment, requested_at: Timestamp(at + later), ..attempt() }
        },
    )
}

/// Documents that nearly are answers.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        Just("message"),
        Just("correlationId"),
        Just("amount"),
        Just("requestedAt"),
        Just("failing"),
        Just("minResponseTime"),
        Just("m\\u0065ssage"),
        Just("id"),
        Just("status"),
    ];
    let value = prop_oneof![
        Just("\"x\""),
        Just("true"),
        Just("false"),
        Just("19.90"),
        Just("1990"),
        Just("null"),
        Just("{}"),
        Just("\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\""),
        Just("\"2020-07-10T12:34:56.123Z\""),
        Just("[1,{\"message\":1}]"),
        Just("\"\\ud83d\""),
        Just("-0"),
        Just("1."),
        Just("\"booked\""),
        Just("\"rejected\""),
        Just("\"not-booked\""),
        Just("\"\\u0062ooked\""),
    ];
    let fields = proptest::collection::vec((key, value), 0..6).prop_map(|fields| {
        let fields: Vec<_> =
            fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    });
    prop_oneof![fields.clone(), fields.prop_map(|it| it[..it.len() / 2].to_vec()), any::<Vec<u8>>()]
}

proptest! {
    #[test]
    fn whatever_the_contests_processors_answer(
        status in prop_oneof![Just(200_u16), Just(404), Just(429), Just(500), 102..1_000_u16],
        body in body(), is_whole: bool, paired: bool,
    ) {
        check_contest(status, &body, is_whole, &attempt(), paired);
    }

    #[test]
    fn the_contests_requests_are_the_same_bytes(attempt in payment()) {
        let (mut described, mut fixed) = (Vec::new(), Vec::new());
        // Room for three digits is what it has there; no amount of a payment has fewer than 0.01.
        CONTEST.write_pay(&mut described, "host:1", &attempt);
        processor::write_pay(&mut fixed, "host:1", &attempt);
        CONTEST.write_look(&mut described, "host:1", attempt.payment.id);
        processor::write_look(&mut fixed, "host:1", attempt.payment.id);
        CONTEST.write_health(&mut described, "host:1");
        processor::write_health(&mut fixed, "host:1");
        prop_assert_eq!(String::from_utf8(described), String::from_utf8(fixed));
    }

    /// What the other built-in one says of money, it says of answers with a word for it.
    #[test]
    fn nothing_is_made_of_answers_that_say_nothing(
        status in prop_oneof![
            Just(200_u16), Just(201), Just(402), Just(404), Just(503), 102..1_000_u16,
        ],
        body in body(), is_whole: bool, paired: bool,
    ) {
        let text = String::from_utf8_lossy(&body).into_owned();
        let says = |word: &str| text.contains(word) || text.contains("\\u0062");
        match IDEMPOTENT.read_pay(status, &body, None, is_whole, &attempt(), paired) {
            Outcome::Recorded(_) | Outcome::Foreign | Outcome::OtherAmount => {
                prop_assert!((200..=201).contains(&status) && says("booked"));
            }
            Outcome::NotRecorded(Refusal::TooMany { .. }) => prop_assert_eq!(status, 429),
            Outcome::NotRecorded(refusal) => {
                prop_assert_eq!((status, refusal), (503, Refusal::Failing));
                prop_assert!(says("not-booked"));
            }
            Outcome::Declined { status: said } => {
                let is_refusal = status / 100 == 4;
                prop_assert_eq!(said, if is_refusal { status } else { 400 });
                prop_assert!(says("rejected"));
                prop_assert!([200, 201, 400, 402, 404, 422].contains(&status));
            }
            Outcome::Unknown => {}
            Outcome::Absent => prop_assert!(false),
        }
        match IDEMPOTENT.read_look(status, &body, None, &attempt(), paired) {
            Outcome::Recorded(_) | Outcome::Foreign | Outcome::OtherAmount => {
                prop_assert!(status == 200 && says("booked"));
            }
            Outcome::NotRecorded(_) => prop_assert_eq!(status, 429),
            Outcome::Absent => prop_assert!(status == 404 || (status == 200 && says("ed\""))),
            Outcome::Unknown => {}
            Outcome::Declined { .. } => prop_assert!(false),
        }
    }
}

#[test]
fn the_idempotent_api() {
    let attempt = attempt();
    let mut out = Vec::new();
    IDEMPOTENT.write_pay(&mut out, "a", &attempt);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "POST /payments HTTP/1.1\r\nHost: a\r\n\
         Idempotency-Key: 4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n\
         {\"id\":\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\",\"amount\":1990,\
         \"requestedAt\":\"2020-07-10T12:34:56.123Z\"}"
    );
    let booked = |at: &str| {
        format!(
            r#"{{"id":"{}","status":"booked","amount":1990,"requestedAt":"{at}"}}"#,
            attempt.payment.id
        )
    };
    let pay = |status, body: &str, paired| {
        IDEMPOTENT.read_pay(status, body.as_bytes(), None, true, &attempt, paired)
    };
    let ours = "2020-07-10T12:34:56.124Z";
    assert_eq!(pay(201, &booked(ours), true), Outcome::Recorded(Timestamp(1_594_384_496_124)));
    // Replayed: what the other instance has booked, and what was there before.
    assert_eq!(pay(200, &booked("2020-07-10T12:34:56.125Z"), true), Outcome::Foreign);
    assert_eq!(pay(200, &booked("2020-07-10T12:34:55.999Z"), false), Outcome::Foreign);
    assert_eq!(pay(200, &booked(ours).replace("1990", "1991"), false), Outcome::OtherAmount);
    assert_eq!(pay(200, &booked(ours).replace("1990", "19.90"), false), Outcome::Unknown);
    assert_eq!(pay(200, &booked(ours).replace("booked", "pending"), false), Outcome::Unknown);
    assert_eq!(pay(402, r#"{"status":"rejected"}"#, false), Outcome::Declined { status: 402 });
    assert_eq!(pay(201, r#"{"status":"rejected"}"#, false), Outcome::Declined { status: 400 });
    assert_eq!(pay(402, "", false), Outcome::Unknown);
    assert_eq!(pay(409, r#"{"status":"rejected"}"#, false), Outcome::Unknown);
    assert_eq!(
        pay(503, r#"{"status":"not-booked"}"#, false),
        Outcome::NotRecorded(Refusal::Failing)
    );
    assert_eq!(pay(503, "", false), Outcome::Unknown);
    assert!(IDEMPOTENT.exchanges.tell_whose() && CONTEST.exchanges.tell_whose());
    assert!(IDEMPOTENT.read_health(200, b"").is_some_and(|it| !it.failing));
    assert!(IDEMPOTENT.read_health(503, b"").is_some_and(|it| it.failing));
    assert_eq!(IDEMPOTENT.read_health(404, b""), None);
}
