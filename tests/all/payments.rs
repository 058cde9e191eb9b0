//! Payments through one instance, on the real binary with real processors: which are the same, what
//! they are worth, when they were made, and how they are forgotten. To the cent and the millisecond.

use crate::support::system::{
    Booking, Instance, Processor, Summary, addresses, assert_books_balance, cents, decimal, id,
    iso, payment,
};
use crate::support::{request, wait_until};
use std::collections::HashMap;

fn start(args: &[&str]) -> ([Processor; 2], Instance) {
    let processors = Processor::both();
    let instance = Instance::start(addresses(&processors), args);
    (processors, instance)
}

#[test]
fn the_same_payment_again_is_accepted_and_paid_once() {
    let (mut processors, instance) = start(&[]);
    let mut client = instance.client();
    // At once, before it can be settled; on another connection; and after it is settled.
    client.send(payment(&id(1), "19.90").repeat(10));
    for _ in 0..10 {
        assert_eq!(client.receive().unwrap().status, 202);
    }
    assert_eq!(instance.pay(&id(1), "19.9").status, 202, "the same amount in other words");
    instance.settle();
    assert_eq!(instance.pay(&id(1), "1990e-2").status, 202);
    assert_eq!(instance.metric(r#"galo_payments_total{outcome="repeated"}"#), 11);
    let accepted = HashMap::from([(id(1), 1990)]);
    assert_books_balance(&accepted, &mut processors, &[instance]);
    assert!(processors[0].counters().contains(r#""repeatsRefused":0"#), "sent once");
}

#[test]
fn the_same_id_with_another_amount_is_refused() {
    let (mut processors, instance) = start(&[]);
    assert_eq!(instance.pay(&id(1), "19.90").status, 202);
    for amount in ["19.91", "1990", "0.01"] {
        let answer = instance.pay(&id(1), amount);
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.body.contains("amount differs"), "{answer:?}");
    }
    assert_eq!(instance.pay(&id(1), "19.90").status, 202, "the first amount stands");
    assert_books_balance(&HashMap::from([(id(1), 1990)]), &mut processors, &[instance]);
}

#[test]
fn the_letter_case_of_an_id_means_nothing() {
    let (mut processors, instance) = start(&[]);
    let lower = "abcdefab-cdef-4abc-8def-abcdefabcdef";
    let mixed = "aBcDeFaB-CDEF-4aBc-8dEf-aBcDeFaBcDeF";
    for id in [&lower.to_uppercase(), lower, mixed] {
        assert_eq!(instance.pay(id, "1.00").status, 202);
    }
    assert_eq!(instance.pay(mixed, "2.00").status, 422);
    assert_books_balance(&HashMap::from([(lower.into(), 100)]), &mut processors, &[instance]);
}

#[test]
fn many_threads_that_send_the_same_payments_pay_each_once() {
    const PAYMENTS: u64 = 200;
    let (mut processors, instance) = start(&["--threads", "4"]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mut client = instance.client();
            scope.spawn(move || {
                for number in 0..PAYMENTS {
                    // Each in an order of its own, so that each is sometimes the first.
                    let number = (number * 7 + thread * 50) % PAYMENTS;
                    assert_eq!(client.call(payment(&id(number), "0.07")).status, 202);
                }
            });
        }
    });
    let accepted = (0..PAYMENTS).map(|number| (id(number), 7)).collect();
    let counted = |outcome| instance.metric(&format!("galo_payments_total{{outcome={outcome:?}}}"));
    assert_eq!((counted("accepted"), counted("repeated")), (PAYMENTS, 3 * PAYMENTS));
    assert_books_balance(&accepted, &mut processors, &[instance]);
}

#[test]
fn amounts_are_exact_and_more_than_two_places_are_rounded_half_to_even() {
    let (mut processors, instance) = start(&[]);
    let mut accepted = HashMap::new();
    let mut client = instance.client();
    let cases = [
        ("0.01", "0.01"),
        ("19.9", "19.90"),
        ("7", "7.00"),
        ("1e2", "100.00"),
        ("1.5E-1", "0.15"),
        ("0.125", "0.12"),
        ("0.135", "0.14"),
        ("0.005000000000000000000000000001", "0.01"),
        ("0.015", "0.02"),
        ("0.025", "0.02"),
        ("19.905", "19.90"),
        ("19.915", "19.92"),
        ("19.9050000001", "19.91"),
        ("0.994999999999999999999999999999", "0.99"),
        // Beyond what a double can tell apart.
        ("90071992547409.93", "90071992547409.93"),
        ("92233720368547758.07", "92233720368547758.07"),
        ("92233720368547758.0650", "92233720368547758.06"),
    ];
    for (number, (sent, kept)) in (0..).zip(cases) {
        assert_eq!(client.call(payment(&id(number), sent)).status, 202, "{sent}");
        // In the words that are kept it is the same payment.
        assert_eq!(client.call(payment(&id(number), kept)).status, 202, "{sent} is {kept}");
        accepted.insert(id(number), cents(kept).unwrap());
    }
    // Their sum does not fit in 64 bits.
    let total: i128 = accepted.values().sum();
    assert!(total > i128::from(i64::MAX));
    let books = assert_books_balance(&accepted, &mut processors, &[instance]);
    assert_eq!(decimal(books.concat().iter().map(|row| row.cents).sum()), decimal(total));
}

/// Payments of different amounts at distinct milliseconds, through both processors.
fn spread_payments(processors: &mut [Processor; 2], instance: &Instance) -> Vec<Booking> {
    let mut client = instance.client();
    for number in 0..20 {
        if number == 12 {
            processors[0].set_failing(true);
        }
        assert_eq!(client.call(payment(&id(number), &format!("{number}.01"))).status, 202);
        instance.settle();
    }
    let books = processors.each_mut().map(|processor| processor.books());
    assert!(books.iter().all(|rows| rows.len() > 2), "both are used: {books:?}");
    books.concat()
}

#[test]
fn windows_are_inclusive_to_the_millisecond() {
    let (mut processors, instance) = start(&["--patience", "5ms"]);
    let rows = spread_payments(&mut processors, &instance);
    let books = processors.each_mut().map(|processor| processor.books());
    let of = |from, to| Summary::of(books.each_ref().map(Vec::as_slice), from, to);
    let mut times: Vec<i64> = rows.iter().map(|row| row.at_ms).collect();
    times.sort();
    let (first, last) = (times[0], times[times.len() - 1]);
    for row in &rows {
        let at = row.at_ms;
        for (from, to) in [
            (at, at),
            (at - 1, at - 1),
            (at, at + 1),
            (at + 1, last),
            (first, at),
            (first, at - 1),
            (at - 1, at + 1),
        ] {
            if from > to {
                continue;
            }
            let window = (iso(from), iso(to));
            assert_eq!(instance.summary_between(from, to), of(Some(from), Some(to)), "{window:?}");
        }
        let from = instance.summary(&format!("?from={}", iso(at)));
        assert_eq!(from, of(Some(at), None), "a missing bound is open: from {}", iso(at));
        let to = instance.summary(&format!("?to={}", iso(at)));
        assert_eq!(to, of(None, Some(at)), "a missing bound is open: to {}", iso(at));
    }
    assert_eq!(instance.summary("").count(), 20);
    assert_eq!(instance.summary_between(first - 10_000, first - 1), Summary::default());
    assert_eq!(instance.summary_between(last + 1, last + 10_000), Summary::default());
}

#[test]
fn bounds_may_be_written_in_any_way_of_rfc_3339() {
    let (mut processors, instance) = start(&["--patience", "5ms"]);
    let rows = spread_payments(&mut processors, &instance);
    let at = rows[7].at_ms;
    let expected = instance.summary_between(at, at);
    assert!(expected.count() >= 1);
    let exactly = jiff::Timestamp::from_millisecond(at).unwrap();
    let nano = |offset: i64| {
        let nanosecond = exactly.as_nanosecond() + i128::from(offset);
        format!("{:.9}", jiff::Timestamp::from_nanosecond(nanosecond).unwrap())
    };
    let offset = |text: &str| iso(at + 10_800_000).replace('Z', text);
    for (from, to) in [
        (iso(at).replace(':', "%3A"), iso(at).replace(':', "%3a")),
        (iso(at).replace('T', "%20"), iso(at).replace('T', "t")),
        (iso(at).replace('Z', "%2B00:00"), iso(at).replace('Z', "+00:00")),
        (offset("+03:00"), offset("%2B03:00")),
        (iso(at).replace('2', "%32"), iso(at)),
        // Between milliseconds: the lower bound is rounded up, the upper one down.
        (nano(0), nano(0)),
        (nano(-999_999), nano(999_999)),
        (nano(-1), nano(1)),
    ] {
        let query = format!("?from={from}&to={to}");
        assert_eq!(instance.summary(&query), expected, "{query}");
        let other_order = format!("?_=1&to={to}&&from={from}");
        assert_eq!(instance.summary(&other_order), expected, "{other_order}");
    }
    for (from, to) in [(nano(1), nano(2)), (nano(1), nano(999_999))] {
        let query = format!("?from={from}&to={to}");
        let inside_one = instance.summary(&query);
        assert_eq!(inside_one, Summary::default(), "{query}: no millisecond is in it");
    }
}

/// An audit forgives what is under way, but not a payment that is booked under a time before it was
/// made, or after its answer came.
#[test]
fn requested_at_lies_between_acceptance_and_settlement() {
    let (mut processors, instance) = start(&[]);
    for number in 0..20 {
        let before = jiff::Timestamp::now().as_millisecond();
        assert_eq!(instance.pay(&id(number), "1.00").status, 202);
        instance.settle();
        let after = jiff::Timestamp::now().as_millisecond();
        let rows = processors.each_mut().map(|processor| processor.books()).concat();
        let row = rows.iter().find(|row| row.id == id(number)).unwrap();
        assert!((before..=after).contains(&row.at_ms), "{before} {row:?} {after}");
    }
}

#[test]
fn the_cheaper_processor_is_the_one_with_the_lower_fee() {
    for (fees, expected) in [(["0.05", "0.15"], [1, 0]), (["0.15", "0.05"], [0, 1])] {
        let (mut processors, instance) =
            start(&["--default-fee", fees[0], "--fallback-fee", fees[1]]);
        assert_eq!(instance.pay(&id(1), "1.00").status, 202);
        instance.settle();
        assert_eq!(processors.each_mut().map(|processor| processor.books().len()), expected);
    }
}

/// What the processor holds already under this id, from before, is somebody else's: it is not paid
/// again and not counted.
#[test]
fn what_somebody_else_paid_is_not_counted() {
    let (mut processors, instance) = start(&[]);
    let at = iso(jiff::Timestamp::now().as_millisecond() - 5_000);
    let body = format!(r#"{{"correlationId":"{}","amount":1.00,"requestedAt":"{at}"}}"#, id(1));
    let answer = processors[0].client().call(request("POST", "/payments", "", &body));
    assert_eq!(answer.status, 200);
    assert_eq!(instance.pay(&id(1), "1.00").status, 202);
    assert_eq!(instance.pay(&id(2), "1.00").status, 202);
    instance.settle();
    assert_eq!(instance.summary("").default, (1, 100));
    assert_eq!(instance.metric("galo_foreign_total"), 1);
    assert_eq!(processors[1].books(), []);
}

#[test]
fn a_purge_forgets_payments_settled_waiting_and_in_flight() {
    let (mut processors, instance) = start(&["--allow-purge"]);
    let purge = request("POST", "/purge-payments", "", "");
    let mut client = instance.client();
    assert_eq!(client.call(payment(&id(1), "1.00")).status, 202);
    instance.settle();
    assert_eq!(client.call(&purge).body, r#"{"message":"All payments purged."}"#);
    assert_eq!(instance.summary(""), Summary::default());
    assert_eq!(client.call(payment(&id(1), "2.00")).status, 202, "the id is forgotten");
    instance.settle();

    processors[0].set_delay_ms(400);
    assert_eq!(client.call(payment(&id(2), "1.00")).status, 202);
    wait_until("it is with the processor", || processors[0].counters().contains("\"running\":1"));
    assert_eq!(client.call(&purge).status, 200);
    assert_eq!(instance.outstanding(), 0);
    assert_eq!(client.call(&purge).status, 200, "twice does no harm");
    wait_until("it has ended", || instance.metric("galo_in_flight") == 0);
    assert_eq!((instance.outstanding(), instance.summary("")), (0, Summary::default()));

    processors.iter_mut().for_each(|processor| processor.set_failing(true));
    for number in 3..30 {
        assert_eq!(client.call(payment(&id(number), "1.00")).status, 202);
    }
    assert_eq!(client.call(&purge).status, 200);
    assert_eq!(instance.outstanding(), 0);
    wait_until("nothing is in flight", || instance.metric("galo_in_flight") == 0);
    processors.iter_mut().for_each(|processor| {
        processor.set_failing(false);
        processor.set_delay_ms(0);
        processor.admin("POST", "/admin/purge-payments", "");
    });
    assert_eq!(client.call(payment(&id(4), "9.00")).status, 202);
    assert_books_balance(&HashMap::from([(id(4), 900)]), &mut processors, &[instance]);
}
