//! What an operator says, read; and the rule of what he may decide, standing by standing.

use super::*;
use crate::payments::{Attempts, Line, each};

const NOW: Timestamp = Timestamp(1_752_000_000_000);
const AT: Timestamp = Timestamp(1_700_000_000_123);
const EARLIER: Timestamp = Timestamp(1_600_000_000_000);

#[test]
fn what_is_decided_is_read() {
    for (text, action) in [
        (r#""as":"retry""#, Action::Retry),
        (r#""as":"cancelled""#, Action::Cancelled),
        (
            r#""as":"settled","processor":"fallback","requestedAt":"2023-11-14T22:13:20.123Z""#,
            Action::Settled { processor: Processor::FALLBACK, requested_at: AT },
        ),
        (
            r#""as":"notBooked","processor":"default","requestedAt":"2023-11-14T22:13:20.123Z""#,
            Action::NotBooked { processor: Processor::DEFAULT, requested_at: AT },
        ),
    ] {
        let body = format!(r#"{{{text},"by":"ana","reason":"João asked"}}"#);
        let asked = read(body.as_bytes(), NOW, &Names::contest()).unwrap();
        let (by, reason) = ("ana".into(), "João asked".into());
        assert_eq!(asked, Asked { action, by, reason });
    }
}

#[test]
fn what_says_nothing_is_refused() {
    let long = |count| "x".repeat(count);
    for (body, named) in [
        ("".into(), "JSON"),
        ("[]".into(), "fields as, by"),
        (r#"{"as":"retry","by":"ana"}"#.into(), "fields as, by"),
        (r#"{"as":"retry","by":"ana","reason":7}"#.into(), "fields as, by"),
        (r#"{"as":"retry","by":"ana","reason":"x","more":1}"#.into(), "fields as, by"),
        (r#"{"as":"paid","by":"ana","reason":"x"}"#.into(), "field as"),
        (r#"{"as":"retry","by":"","reason":"x"}"#.into(), "field by"),
        (r#"{"as":"retry","by":"a\nb","reason":"x"}"#.into(), "field by"),
        (format!(r#"{{"as":"retry","by":"{}","reason":"x"}}"#, long(65)), "field by"),
        (r#"{"as":"retry","by":"ana","reason":"\u0000"}"#.into(), "field reason"),
        (format!(r#"{{"as":"retry","by":"a","reason":"{}"}}"#, long(256)), "field reason"),
        (r#"{"as":"settled","by":"ana","reason":"x"}"#.into(), "are needed"),
        (r#"{"as":"settled","processor":"default","by":"a","reason":"x"}"#.into(), "belong"),
    ]
    .into_iter()
    .chain(
        [
            ("retry", "default", "2023-11-14T22:13:20Z", "no processor"),
            ("settled", "other", "2023-11-14T22:13:20Z", "field processor"),
            ("settled", "default", "yesterday", "field requestedAt is not"),
            ("settled", "default", "2999-01-01T00:00:00Z", "in the future"),
        ]
        .map(|(word, processor, at, named)| {
            let names = format!(r#""processor":"{processor}","requestedAt":"{at}""#);
            (format!(r#"{{"as":"{word}",{names},"by":"a","reason":"x"}}"#), named)
        }),
    ) {
        match read(body.as_bytes(), NOW, &Names::contest()) {
            Err(Refused::NotJson) => assert_eq!(named, "JSON", "{body}"),
            Err(Refused::Field(reason)) => assert!(reason.contains(named), "{body}: {reason}"),
            Ok(asked) => panic!("{body}: {asked:?}"),
        }
    }
}

fn settled_at(processor: Processor, requested_at: Timestamp) -> Action {
    Action::Settled { processor, requested_at }
}

fn not_booked(processor: Processor, requested_at: Timestamp) -> Action {
    Action::NotBooked { processor, requested_at }
}

/// Of each standing all that may be done; anything else is refused.
#[test]
fn what_may_be_decided_depends_on_how_things_stand() {
    use Held::{Disowned, Free, InDoubt, Nowhere, Posted, Unverified};
    let (id, amount, accepted_at) = (PaymentId(1), Cents(5), Timestamp(1_650_000_000_000));
    let attempts = Attempts(1);
    let (default, fallback) = (Processor::DEFAULT, Processor::FALLBACK);
    let waiting = Story::Waiting { amount, accepted_at, attempts };
    let (processor, requested_at) = (default, AT);
    let in_doubt = Story::InDoubt { amount, accepted_at, processor, requested_at, attempts };
    let rejected = |statuses| Story::Rejected(Rejection { id, amount, statuses, accepted_at });
    let settlement = Settlement { processor, amount, requested_at };
    let settled = Story::Settled(Line { id: Some(id), settlement, attempts });
    let all = [
        ("retry", Action::Retry),
        ("cancel", Action::Cancelled),
        ("here", settled_at(default, AT)),
        ("there", settled_at(fallback, AT)),
        ("before", settled_at(default, EARLIER)),
        ("not", not_booked(default, AT)),
        ("other", not_booked(default, Timestamp(AT.0 + 1))),
        ("elsewhere", not_booked(fallback, AT)),
    ];
    let cases: [(Option<Story>, Held, bool, &str); 21] = [
        (None, Nowhere, true, ""),
        (None, Nowhere, false, ""),
        (Some(Story::Known { amount }), Nowhere, true, ""),
        (Some(Story::Cancelled { amount, accepted_at }), Nowhere, true, ""),
        (Some(settled), Nowhere, true, "here"),
        (Some(rejected(each([400, 404]))), Nowhere, true, "retry cancel here there"),
        (Some(rejected(each([400, 404]))), Nowhere, false, "cancel here there"),
        (Some(rejected(each([200, 0]))), Nowhere, true, "cancel there"),
        (Some(rejected(each([0, 200]))), Nowhere, true, "cancel here"),
        (Some(waiting), Free, true, "cancel"),
        (Some(waiting), Free, false, "cancel"),
        (Some(waiting), Unverified, true, ""),
        (Some(waiting), Unverified, false, ""),
        (Some(waiting), Nowhere, true, ""),
        (Some(waiting), Nowhere, false, ""),
        (Some(waiting), Posted, true, ""),
        (Some(in_doubt), InDoubt, true, "here not"),
        (Some(in_doubt), InDoubt, false, "here not"),
        (Some(in_doubt), Posted, true, ""),
        (Some(in_doubt), Disowned, true, ""),
        (Some(in_doubt), Nowhere, true, ""),
    ];
    for (story, held, is_home, possible) in cases {
        let standing = Standing { story, held, is_home, is_paired: false, last: None };
        let may = |(_, action): &(&str, Action)| decide(*action, &standing).is_ok();
        let found: Vec<&str> = all.iter().filter(|it| may(it)).map(|(name, _)| *name).collect();
        assert_eq!(found.join(" "), possible, "{standing:?}");
    }
}

#[test]
fn what_was_decided_before_is_not_done_again() {
    let (by, reason): (Box<str>, Box<str>) = ("ana".into(), "x".into());
    let (id, amount, accepted_at, at) = (PaymentId(1), Cents(5), EARLIER, NOW);
    for (action, attempt) in [
        (Action::Retry, None),
        (not_booked(Processor::DEFAULT, AT), None),
        // Released, and sent again since: the lost request speaks of the attempt of before.
        (not_booked(Processor::DEFAULT, AT), Some((Processor::DEFAULT, NOW))),
    ] {
        let (by, reason) = (by.clone(), reason.clone());
        let last = Resolution { id, amount, accepted_at, action, at, by, reason };
        let attempts = Attempts(2);
        let (story, held) = match attempt {
            None => (Story::Waiting { amount, accepted_at, attempts }, Held::Free),
            Some((processor, requested_at)) => (
                Story::InDoubt { amount, accepted_at, processor, requested_at, attempts },
                Held::InDoubt,
            ),
        };
        let standing = Standing {
            story: Some(story),
            held,
            is_home: true,
            is_paired: false,
            last: Some(&last),
        };
        assert_eq!(decide(action, &standing), Ok(Verdict::Repeated), "{action:?}");
        let other = settled_at(Processor::FALLBACK, EARLIER);
        assert!(decide(other, &standing).is_err(), "{action:?}");
    }
    // Settled just so: who says it is written down once.
    let (processor, requested_at) = (Processor::DEFAULT, AT);
    let settlement = Settlement { processor, amount, requested_at };
    let line = Line { id: Some(id), settlement, attempts: Attempts(1) };
    let story = Some(Story::Settled(line));
    let standing =
        Standing { story, held: Held::Nowhere, is_home: true, is_paired: false, last: None };
    let action = settled_at(processor, requested_at);
    assert_eq!(decide(action, &standing), Ok(Verdict::Note { amount }));
    let last = Resolution { id, amount, accepted_at, action, at, by, reason };
    let standing = Standing { last: Some(&last), ..standing };
    assert_eq!(decide(action, &standing), Ok(Verdict::Repeated));
}

/// One booking is counted by one of two instances, whichever of them is told of it.
#[test]
fn of_a_pair_each_counts_what_was_booked_under_its_own_milliseconds() {
    let (id, amount, processor) = (PaymentId(1), Cents(5), Processor::DEFAULT);
    let (even, odd) = (Timestamp(AT.0 & !1), Timestamp(AT.0 | 1));
    let rejection = Rejection { id, amount, statuses: each([400; 2]), accepted_at: EARLIER };
    let rejected = (Story::Rejected(rejection), Held::Nowhere);
    for (requested_at, is_home, is_paired, may_be) in [
        (even, true, true, true),
        (odd, true, true, false),
        (even, false, true, false),
        (odd, false, true, true),
        (odd, true, false, true),
    ] {
        let attempts = Attempts(1);
        let accepted_at = EARLIER;
        let attempted = Timestamp(requested_at.0 - 20);
        let doubt =
            Story::InDoubt { amount, accepted_at, processor, requested_at: attempted, attempts };
        for (story, held) in [rejected, (doubt, Held::InDoubt)] {
            let standing = Standing { story: Some(story), held, is_home, is_paired, last: None };
            let decided = decide(settled_at(processor, requested_at), &standing);
            assert_eq!(decided.is_ok(), may_be, "{standing:?}: {decided:?}");
        }
        // What was sent before there was a pair is known by its very time.
        let doubt = Story::InDoubt { amount, accepted_at, processor, requested_at, attempts };
        let (story, held) = (Some(doubt), Held::InDoubt);
        let standing = Standing { story, held, is_home, is_paired, last: None };
        assert!(decide(settled_at(processor, requested_at), &standing).is_ok());
    }
}
