//! A file of processors, whatever stands in it: refused with places in the file, or processors whose
//! requests are requests, and that say of an answer only what a rule of theirs means.

#![no_main]

use galo::net::http::request::{self, Parsed};
use galo::payments::Outcome;
use galo::processors::answers::{Meaning, Rule};
use galo::processors::outside::Outside;
use galo::processors::{Described, Processors};
use galo_fuzz::{Source, fuzz_target};
use std::io;
use std::path::Path;

/// There is one file, and one variable.
struct Little;

impl Outside for Little {
    fn file(&self, path: &Path, _: usize) -> io::Result<Vec<u8>> {
        match path.to_str() {
            Some("key") => Ok(b"s3cret\n".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "KEY").then(|| "s3cret".into())
    }
}

// The file, and behind a NUL an answer.
fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, answer) = data.split_at(end);
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Processors::read("f", text, &Little) {
        Err(refused) => {
            assert!(!refused.faults.is_empty());
            for fault in &refused.faults {
                assert!((1..=text.matches('\n').count() + 1).contains(&fault.line), "{fault:?}");
                assert!(fault.column >= 1 && !fault.reason.contains("s3cret"), "{fault:?}");
            }
        }
        Ok(processors) => {
            assert!((1..=8).contains(&processors.iter().count()));
            let mut source = Source::new(answer.get(1..).unwrap_or_default());
            let attempt = source.attempt();
            let status = 200 + (source.u64() % 420) as u16;
            let (is_whole, is_paired) = (source.bool(), source.bool());
            let body = source.rest();
            for processor in processors.iter() {
                assert!(!format!("{processor:?}").contains("s3cret"));
                check_requests(processor, &attempt);
                check(processor, &attempt, status, body, is_whole, is_paired);
            }
        }
    }
});

fn check_requests(processor: &Described, attempt: &galo::payments::Attempt) {
    let host = processor.endpoint.authority();
    for question in 0..3 {
        let mut out = Vec::new();
        match question {
            0 => processor.write_pay(&mut out, &host, attempt),
            1 => processor.write_look(&mut out, &host, attempt.payment.id),
            _ => processor.write_health(&mut out, &host),
        }
        // galo's own reader takes smaller ones only, and no path in another form.
        let (is_small, mut scratch) = (out.len() < 4_096, Vec::new());
        match request::parse(&out, &mut scratch) {
            Parsed::Complete { consumed, .. } => assert_eq!(consumed, out.len()),
            Parsed::Partial(_) => assert!(out.is_empty()),
            Parsed::Invalid(_) => assert!(!is_small, "{}", out.escape_ascii()),
        }
    }
}

fn check(
    processor: &Described,
    attempt: &galo::payments::Attempt,
    status: u16,
    body: &[u8],
    is_whole: bool,
    is_paired: bool,
) {
    let may_mean = |rules: &[Rule], meaning: Meaning| {
        let covers = |rule: &Rule| rule.statuses.iter().any(|it| it.contains(&status));
        rules.iter().any(|rule| rule.meaning == meaning && covers(rule))
    };
    let exchanges = &processor.exchanges;
    let paid = processor.read_pay(status, body, None, is_whole, attempt, is_paired);
    let looked = processor.read_look(status, body, None, attempt, is_paired);
    for (outcome, rules) in [(paid, &exchanges.pay.rules), (looked, &exchanges.look.rules)] {
        let meanings: &[Meaning] = match outcome {
            Outcome::Recorded(_) | Outcome::Foreign | Outcome::OtherAmount => &[Meaning::Booked],
            Outcome::NotRecorded(_) => &[Meaning::NotBooked, Meaning::Pause],
            Outcome::Declined { .. } => &[Meaning::Rejected],
            Outcome::Absent => &[Meaning::Absent],
            Outcome::Unknown => continue,
        };
        assert!(meanings.iter().any(|it| may_mean(rules, *it)), "{outcome:?}");
    }
    processor.read_health(status, body);
}
