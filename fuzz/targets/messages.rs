//! What the other instance says: each message is read as it was written, and nothing that it says,
//! in whatever order, makes this instance fall over or trust it for longer than it may.

#![no_main]

use galo::base::clock::Moment;
use galo::base::instance::Instance;
use galo::base::json;
use galo::base::limits::ADOPTED_PAGE;
use galo::base::money::{Cents, Total};
use galo::cluster::membership::{Duty, Greeting, Membership, Presence, Recovered};
use galo::cluster::messages::{
    AdoptedMessage, HealthMessage, Hello, OfferMessage, OfferedMessage, Setting, TotalsMessage,
    disagreements,
};
use galo::payments::names::ByName;
use galo::payments::{Accepted, Payment, Totals};
use galo_fuzz::{Source, fuzz_target};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, body)) => check_talk(&mut Source::new(body)),
        Some((1, body)) => check_written(&mut Source::new(body)),
        _ => check_read(data),
    }
});

fn check_read(body: &[u8]) {
    if let Some(hello) = again::<Hello>(body) {
        assert!(disagreements(&hello.settings, &hello.settings).len() <= hello.settings.len());
    }
    let read = |message: TotalsMessage| message.read(["default", "fallback"]);
    if let Some(totals) = again::<TotalsMessage>(body).and_then(read) {
        // Any two can be added, and shown.
        let mut sum = totals.clone();
        totals.0.iter().for_each(|(name, it)| *sum.entry(name) += *it);
        assert!(sum.0.iter().all(|(_, it)| !it.amount.to_string().contains('-')));
        let written = serde_json::to_vec(&message_of(&totals)).expect("JSON");
        assert_eq!(json::read::<TotalsMessage>(&written).ok().and_then(read), Some(totals));
    }
    again::<HealthMessage>(body);
    again::<OfferMessage>(body);
    again::<OfferedMessage>(body);
    again::<AdoptedMessage>(body);
}

fn message_of(totals: &ByName<Totals>) -> TotalsMessage {
    TotalsMessage::new(totals.0.iter().map(|(name, it)| (&name[..], *it)))
}

/// A message that is read is written as the same.
fn again<T: Serialize + DeserializeOwned>(body: &[u8]) -> Option<T> {
    let message: T = json::read(body).ok()?;
    let written = serde_json::to_value(&message).expect("JSON");
    let bytes = serde_json::to_vec(&message).expect("JSON");
    let read: T = json::read(&bytes).expect("what was written");
    assert_eq!(serde_json::to_value(&read).expect("JSON"), written);
    Some(message)
}

fn hello(source: &mut Source) -> Hello {
    let setting = |source: &mut Source| Setting {
        name: source.text(8),
        value: source.text(8),
        must: source.bool(),
    };
    Hello {
        version: source.text(8),
        instance: source.u8() % 4,
        process: source.i64() as u64,
        now_us: source.u64(),
        journal: source.bool().then(|| source.text(8)),
        is_copy: source.bool(),
        settings: (0..source.below(4)).map(|_| setting(source)).collect(),
        adopted_first: source.i64() as u64,
        adopted: source.i64() as u64,
        adopting: source.bool(),
        learned_of: source.i64() as u64,
        learned: source.i64() as u64,
        rival: source.bool().then(|| (source.u64(), source.i64() as u64)),
    }
}

fn check_written(source: &mut Source) {
    let (one, other) = (hello(source), hello(source));
    for hello in [&one, &other] {
        let body = serde_json::to_vec(hello).expect("JSON");
        assert_eq!(json::read::<Hello>(&body).as_ref(), Ok(hello));
    }
    let (ours, theirs) = (&one.settings, &other.settings);
    let differing = disagreements(ours, theirs);
    assert!(differing.len() <= ours.len() + theirs.len());
    assert!(differing.iter().all(|(own, value)| own.value != *value));
    let mut total = || {
        let count = source.u64() >> 1;
        let most = i128::from(count as i64) * i128::from(i64::MAX);
        Totals { count, amount: Total(i128::from(source.u64() >> 1).min(most)) }
    };
    let all = ["default", "fallback", "other"].map(|name| (name.to_string(), total()));
    let totals = ByName(all.into());
    let body = serde_json::to_vec(&message_of(&totals)).expect("JSON");
    let message = json::read::<TotalsMessage>(&body).ok();
    assert_eq!(message.and_then(|it| it.read(["default", "fallback"])), Some(totals));
}

/// A membership whose peer says anything.
fn check_talk(source: &mut Source) {
    const ADOPT_AFTER: Duration = Duration::from_secs(30);
    const OWN: u64 = 5;
    let mut now = Moment(1_000_000);
    let mut membership = Membership::new(Instance(1), OWN, ADOPT_AFTER, Recovered::default(), now);
    let mut last_answer = None;
    for _ in 0..64 {
        if source.is_empty() {
            break;
        }
        now = now + Duration::from_millis(u64::from(source.u8()) * 8);
        match source.below(6) {
            0 => membership.take_in(Payment { guest: true, ..source.attempt().payment }),
            1 => {
                let mut ours = Hello::default();
                membership.heard(&hello(source), &mut ours, now);
                assert!(ours.adopted >= ours.adopted_first);
            }
            2 => {
                let from = source.i64() as u64;
                let (first, page) = membership.adopted_page(from);
                assert!(first >= from && page.len() <= ADOPTED_PAGE);
            }
            3 => membership.over(source.id()),
            _ => do_duty(&mut membership, source, now, &mut last_answer),
        }
        assert!(membership.lease_until() <= last_answer.unwrap_or(Moment(0)) + ADOPT_AFTER / 2);
        assert!(membership.presence() != Presence::Up || last_answer.is_some());
    }
}

/// What is to be done, and how that ends. The last greeting that has an answer is noted.
fn do_duty(
    membership: &mut Membership,
    source: &mut Source,
    now: Moment,
    last_answer: &mut Option<Moment>,
) {
    match membership.next(now) {
        None => {}
        Some(Duty::Greet) if source.below(4) == 0 => membership.missed(now),
        Some(Duty::Greet) => {
            let greeting = membership.answered(now, &hello(source), now);
            let answered = Some(now).filter(|_| greeting == Greeting::Fine);
            *last_answer = answered.or(*last_answer);
        }
        Some(Duty::Learn { from }) => {
            let count = source.below(8);
            let new: Vec<_> = (0..count).map(|_| (source.id(), Cents(source.i64()))).collect();
            membership.to_write(&new);
            let from = if source.bool() { from } else { source.i64() as u64 };
            membership.learned(from, count);
        }
        Some(Duty::Offer(guests)) => {
            let all = [Accepted::New, Accepted::Repeated, Accepted::Conflicting, Accepted::Full];
            let mut outcome = || (source.below(8) > 0).then(|| all[source.below(4)]);
            let outcomes: Vec<_> = guests.iter().map(|_| outcome()).collect();
            assert!(membership.offered(&outcomes, now).len() <= guests.len());
        }
        Some(Duty::Adopt(batch)) if source.below(4) > 0 => {
            assert!(membership.adopted(&batch).iter().all(|it| it.verify && it.guest));
        }
        Some(Duty::Adopt(_)) => membership.not_adopted(now),
        Some(Duty::Forget(told)) if source.bool() => membership.forgot(&told),
        Some(Duty::Forget(_)) => membership.not_forgot(now),
    }
}
