//! What the judge of a contest reads: score sheets, consoles, summaries and books; and that books
//! which agree with what is known give no difference.

#![no_main]

use galo::base::clock::Timestamp;
use galo::base::money::Cents;
use galo::payments::{Processor, Window};
use galo::tools::ask::{read_books, read_summary, read_totals};
use galo::tools::compare::{Booking, Fate, Known, compare};
use galo::tools::judge::k6::{Failed, Sheet};
use galo::tools::judge::score::Excused;
use galo::tools::judge::windows::{compare_totals, totals};
use galo_fuzz::{Source, cuts, fuzz_target};
use std::io::BufReader;

/// So many posts are gone through.
const POSTS_MAX: u64 = 1_000;

fuzz_target!(|data: &[u8]| {
    match data.split_first() {
        Some((0, rest)) => check_books(rest),
        Some((1, rest)) => check_comparison(&mut Source::new(rest)),
        Some((2, rest)) => check_written(&mut Source::new(rest)),
        _ => check_sheet(data),
    }
});

fn check_sheet(data: &[u8]) {
    let console = String::from_utf8_lossy(data);
    let failed = Failed::read(&console);
    if let Ok(sheet) = Sheet::read(data) {
        let excused = Excused { posts: 1, audits: 1 };
        let findings = sheet.findings(excused);
        assert!(findings.iter().all(|it| !it.contains('\n')));
        let value: serde_json::Value = serde_json::from_slice(data).expect("JSON");
        let attempted = value["posts"]["attempted"].as_u64().expect("a number of posts");
        if attempted <= POSTS_MAX {
            let known = sheet.known(&failed);
            assert!(known.is_empty() || known.len() as u64 == attempted);
        }
        sheet.compare_failed(&failed);
    }
    if let Some(one) = read_totals(data) {
        let text = format!(r#"{{"totalRequests":{},"totalAmount":{}}}"#, one.count, one.amount);
        assert_eq!(read_totals(text.as_bytes()), Some(one));
        let both = format!(r#"{{"default":{text},"fallback":{text}}}"#);
        assert_eq!(read_summary(both.as_bytes()), Some([one, one]));
    }
    read_summary(data);
}

/// However its bytes come, a listing is the same, and one that is cut off is none.
fn check_books(data: &[u8]) {
    let whole = read_books(data).ok();
    assert_eq!(read_books(BufReader::with_capacity(1, data)).ok(), whole);
    assert_eq!(read_books(BufReader::with_capacity(7, data)).ok(), whole);
    if let Some(books) = whole {
        assert!(books.len() * 36 <= data.len());
        let end = data.windows(4).rposition(|it| it == b"\r\n\r\n").unwrap_or(0);
        for cut in cuts(end + 4).filter(|cut| *cut < data.len()) {
            let read = read_books(&data[..cut]).ok();
            assert!(read.is_none() || read.as_ref() == Some(&books), "cut at {cut}");
        }
    }
}

fn bookings(source: &mut Source) -> [Vec<Booking>; 2] {
    let mut books = [Vec::new(), Vec::new()];
    for _ in 0..source.below(12) {
        let attempt = source.attempt();
        let (id, amount) = (attempt.payment.id, attempt.payment.amount);
        let booking = Booking { id, amount, requested_at: attempt.requested_at };
        books[source.below(2)].push(booking);
    }
    books
}

/// Bookings as a processor lists them, in chunks of any size.
fn check_written(source: &mut Source) {
    let [books, _] = bookings(source);
    let lines = books.iter().map(|Booking { id, amount, requested_at }| {
        format!("{{\"correlationId\":\"{id}\",\"amount\":{amount},\"requestedAt\":\"{requested_at}\"}}\n")
    });
    let text = lines.collect::<String>();
    let mut listing = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(rest.len().min(16 + source.below(256)));
        listing.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        listing.extend_from_slice(chunk);
        listing.extend_from_slice(b"\r\n");
        rest = after;
    }
    listing.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(read_books(&listing[..]).ok(), Some(books));
    for cut in cuts(listing.len()).filter(|cut| *cut < listing.len()) {
        assert!(read_books(&listing[..cut]).is_err(), "cut at {cut}");
    }
}

fn check_comparison(source: &mut Source) {
    let books = bookings(source);
    let [default, fallback] = &books;
    let sides = [&default[..], &fallback[..]];
    let known = Processor::CONTEST.into_iter().zip(&books).flat_map(|(which, books)| {
        books.iter().map(move |it| {
            let fate = Fate::Settled(which, it.requested_at);
            Known { id: it.id, amount: it.amount, fate }
        })
    });
    let known: Vec<_> = known.collect();
    let mut ids: Vec<_> = known.iter().map(|it| it.id).collect();
    ids.sort();
    ids.dedup();
    let differences = compare(known.iter().copied(), sides);
    assert_eq!(differences.is_empty(), ids.len() == known.len(), "{differences:?}");
    // One amount that differs by a cent is seen.
    if let Some(first) = default.first()
        && ids.len() == known.len()
    {
        let mut wrong = default.clone();
        wrong[0].amount = Cents(first.amount.0.wrapping_add(1));
        assert_eq!(compare(known, [&wrong, fallback]).len(), 1);
        let window = Window { from: Some(first.requested_at), to: Some(first.requested_at) };
        assert!(compare_totals(totals(sides, window), [&wrong, fallback], window).is_some());
    }
    let window = Window { from: Some(Timestamp(source.i64())), to: Some(Timestamp(source.i64())) };
    assert!(compare_totals(totals(sides, window), sides, window).is_none());
}
