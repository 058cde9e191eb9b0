//! The examples in deploy/processors/, each against a fake of the API it is for: the fakes read what
//! is written to them, hold payments, and answer in that API's words. No sockets.

use super::{Made, attempt, one};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::net::http::request::{self, Parsed};
use crate::payments::{Attempt, Outcome, Payment, Refusal};
use crate::processors::Described;
use serde_json::{Value, json};
use std::collections::HashMap;

const STRIPE: &str = include_str!("../../../deploy/processors/stripe-style.toml");
const MERCADO: &str = include_str!("../../../deploy/processors/mercadopago-style.toml");

fn described(text: &str) -> Described {
    one(text, &Made::of(&[("CARDS_KEY", "sk_1"), ("WALLET_KEY", "sk_1")]))
}

/// What the next new payment is to become.
#[derive(Clone, Copy)]
enum Next {
    Booked,
    Refused,
    Open,
}

/// A processor of one of the two APIs.
struct Fake {
    is_form: bool,
    next: Next,
    /// By idempotency key: what was sent under it, and what was answered.
    keys: HashMap<String, (Vec<u8>, (u16, Value))>,
    held: Vec<Value>,
}

type Answered = (u16, Vec<u8>);

impl Fake {
    fn new(is_form: bool) -> Fake {
        Fake { is_form, next: Next::Booked, keys: HashMap::new(), held: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> Answered {
        let mut scratch = Vec::new();
        let Parsed::Complete { request, consumed } = request::parse(bytes, &mut scratch) else {
            panic!("no request: {}", bytes.escape_ascii());
        };
        assert_eq!(consumed, bytes.len());
        assert_eq!(request.header("authorization"), Some(&b"Bearer sk_1"[..]));
        let target = bytes.split(|it| *it == b' ').nth(1).unwrap();
        let target = String::from_utf8(target.to_vec()).unwrap();
        let (status, body) = match &target[..] {
            "/v1/payment_intents" | "/v1/payments" => {
                let name = if self.is_form { "idempotency-key" } else { "x-idempotency-key" };
                let key = request.header(name).expect("a key").to_vec();
                self.pay(String::from_utf8(key).unwrap(), request.body)
            }
            look => (200, self.look(look.split_once('?').unwrap().1)),
        };
        (status, body.to_string().into_bytes())
    }

    fn pay(&mut self, key: String, body: &[u8]) -> (u16, Value) {
        if let Some((sent, answered)) = self.keys.get(&key) {
            return match (sent == body, self.is_form) {
                (true, _) => answered.clone(),
                (false, true) => (400, json!({"error": {"type": "idempotency_error"}})),
                (false, false) => (400, json!({"error": "bad_request", "cause": [{"code": 2001}]})),
            };
        }
        let answered = if self.is_form { self.pay_form(body) } else { self.pay_json(body) };
        self.keys.insert(key, (body.to_vec(), answered.clone()));
        answered
    }

    fn pay_form(&mut self, body: &[u8]) -> (u16, Value) {
        let text = std::str::from_utf8(body).unwrap().replace("%3A", ":");
        let fields: HashMap<_, _> = text.split('&').map(|it| it.split_once('=').unwrap()).collect();
        let amount: i64 = fields["amount"].parse().unwrap();
        let charge = |status| {
            json!({"status": status, "amount": amount, "transfer_group": fields["transfer_group"],
                "metadata": {"requested_at": fields["metadata[requested_at]"]}})
        };
        let (held, answered) = match self.next {
            _ if amount < 50 => {
                return (400, json!({"error": {"type": "invalid_request_error"}}));
            }
            Next::Booked => (charge("succeeded"), (200, charge("succeeded"))),
            Next::Open => (charge("pending"), (200, charge("processing"))),
            Next::Refused => (
                charge("failed"),
                (402, json!({"error": {"type": "card_error", "code": "card_declined"}})),
            ),
        };
        self.held.insert(0, held);
        answered
    }

    fn pay_json(&mut self, body: &[u8]) -> (u16, Value) {
        let sent: Value = serde_json::from_slice(body).unwrap();
        let Some(amount) = sent["transaction_amount"].as_f64().filter(|it| *it >= 0.5) else {
            return (400, json!({"error": "bad_request", "cause": [{"code": 4037}]}));
        };
        let status = match self.next {
            Next::Booked => "approved",
            Next::Refused => "rejected",
            Next::Open => "in_process",
        };
        let payment = json!({"id": 7, "status": status, "transaction_amount": amount,
            "external_reference": sent["external_reference"], "metadata": sent["metadata"]});
        self.held.insert(0, payment.clone());
        (201, payment)
    }

    fn look(&self, query: &str) -> Value {
        let (name, list) = match self.is_form {
            true => ("transfer_group", "data"),
            false => ("external_reference", "results"),
        };
        let id = query.strip_prefix(&format!("{name}=")).unwrap().split('&').next().unwrap();
        let found = self.held.iter().filter(|it| it[name] == id).cloned().collect::<Vec<_>>();
        json!({list: found, "paging": {"total": found.len()}})
    }
}

/// A processor as it is described, and the fake that it speaks to.
struct Bench {
    described: Described,
    fake: Fake,
}

impl Bench {
    fn both() -> [Bench; 2] {
        [(STRIPE, true), (MERCADO, false)]
            .map(|(text, is_form)| Bench { described: described(text), fake: Fake::new(is_form) })
    }

    fn pay(&mut self, attempt: &Attempt) -> Outcome {
        let mut out = Vec::new();
        self.described.write_pay(&mut out, &self.described.endpoint.authority(), attempt);
        let (status, body) = self.fake.take(&out);
        self.described.read_pay(status, &body, None, true, attempt, true)
    }

    fn look(&mut self, attempt: &Attempt) -> Outcome {
        let mut out = Vec::new();
        let id = attempt.payment.id;
        self.described.write_look(&mut out, &self.described.endpoint.authority(), id);
        let (status, body) = self.fake.take(&out);
        self.described.read_look(status, &body, None, attempt, true)
    }
}

/// As of the instance that is its home.
fn home() -> Attempt {
    Attempt { requested_at: Timestamp(1_594_384_496_124), ..attempt() }
}

#[test]
fn a_payment_is_booked_once_and_found_again() {
    for mut bench in Bench::both() {
        let attempt = home();
        assert_eq!(bench.look(&attempt), Outcome::Absent);
        let booked = Outcome::Recorded(attempt.requested_at);
        assert_eq!(bench.pay(&attempt), booked);
        // Its answer was lost: asked for, and sent again under the same key.
        assert_eq!(bench.look(&attempt), booked);
        assert_eq!(bench.pay(&attempt), booked);
        assert_eq!(bench.fake.held.len(), 1);
    }
}

#[test]
fn the_other_instance_does_not_take_it_for_its_own() {
    for mut bench in Bench::both() {
        let home = home();
        assert_eq!(bench.pay(&home), Outcome::Recorded(home.requested_at));
        let guest = Payment { guest: true, ..home.payment };
        let guest =
            Attempt { payment: guest, requested_at: Timestamp(home.requested_at.0 + 1), ..home };
        // The same key with another time: neither booked nor refused, so it is looked at.
        assert_eq!(bench.pay(&guest), Outcome::Unknown);
        assert_eq!(bench.look(&guest), Outcome::Foreign);
        let dearer = Payment { amount: Cents(1_991), ..home.payment };
        assert_eq!(bench.look(&Attempt { payment: dearer, ..home }), Outcome::OtherAmount);
    }
}

#[test]
fn what_is_refused_may_go_elsewhere_and_what_is_open_may_not() {
    // A document of a 201 that refuses is known by 400.
    for (mut bench, status) in Bench::both().into_iter().zip([402, 400]) {
        bench.fake.next = Next::Refused;
        let attempt = home();
        assert_eq!(bench.pay(&attempt), Outcome::Declined { status });
        assert_eq!(bench.look(&attempt), Outcome::Absent);
    }
    for mut bench in Bench::both() {
        let small = Payment { amount: Cents(1), ..home().payment };
        let small = Attempt { payment: small, ..home() };
        assert_eq!(bench.pay(&small), Outcome::Declined { status: 400 });
        assert_eq!(bench.look(&small), Outcome::Absent);
    }
    for mut bench in Bench::both() {
        bench.fake.next = Next::Open;
        assert_eq!(bench.pay(&home()), Outcome::Unknown);
        assert_eq!(bench.look(&home()), Outcome::Unknown);
    }
}

#[test]
fn what_a_gateway_says_in_between_decides_nothing() {
    for bench in Bench::both() {
        let described = &bench.described;
        assert!(described.exchanges.tell_whose() && described.exchanges.check_amounts());
        for body in ["", "<html>Bad gateway</html>", "{}", "[]", "null", "{\"status\":7}"] {
            for status in (200..600).filter(|it| *it != 429) {
                let paid = described.read_pay(status, body.as_bytes(), None, true, &home(), false);
                let looked = described.read_look(status, body.as_bytes(), None, &home(), false);
                assert_eq!([paid, looked], [Outcome::Unknown; 2], "{status} {body}");
            }
        }
        let paused = Outcome::NotRecorded(Refusal::TooMany { retry_after_ms: 3_000 });
        assert_eq!(described.read_pay(429, b"", Some(3), true, &home(), false), paused);
    }
}
