//! The processors' books, payment by payment, against what was posted: nothing accepted may be
//! missing, nothing held twice, nothing made up.
//!
//! The same judgement as perf/contest/books.py. It reads the whole list of a processor, which only
//! a simulated one gives (`GET /admin/payments`).

use super::client::ADMIN_TOKEN;
use super::text::grouped;
use crate::base::clock::{Rounding, Timestamp};
use crate::base::money::{Cents, Total};
use crate::payments::{PaymentId, Processor, Totals, Window};
use serde::Deserialize;
use sonic_rs::LazyValue;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A payment as a processor holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub id: PaymentId,
    pub amount: Cents,
    pub requested_at: Timestamp,
}

/// What the client knows of a payment that it has posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Accepted,
    Refused,
    /// No answer: it may be held or not.
    Unknown,
}

/// Everything a processor holds. Blocks this thread; some 10 MB for a whole contest.
///
/// # Errors
/// If the processor cannot be asked, or what it says cannot be read to its end.
pub fn read(processor: SocketAddr) -> io::Result<Vec<Held>> {
    let mut stream = TcpStream::connect_timeout(&processor, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET /admin/payments HTTP/1.1\r\nHost: {processor}\r\nX-Rinha-Token: {ADMIN_TOKEN}\r\n\
         Connection: close\r\n\r\n"
    )?;
    let listing = read_chunked(BufReader::new(stream))?;
    let lines = listing.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| read_line(line).ok_or_else(|| unreadable("a line of the books"))).collect()
}

fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} cannot be read"))
}

/// The body of a chunked 200, which is how a processor lists its books.
fn read_chunked(mut stream: impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    let mut next_line = |stream: &mut dyn BufRead| {
        line.clear();
        stream.read_line(&mut line)?;
        // Without its end it may be half a line.
        let whole = line.strip_suffix("\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok::<_, io::Error>(whole.to_ascii_lowercase())
    };
    if !next_line(&mut stream)?.starts_with("http/1.1 200") {
        return Err(unreadable("the status"));
    }
    let mut chunked = false;
    loop {
        match next_line(&mut stream)?.as_str() {
            "" => break,
            header => chunked |= header == "transfer-encoding: chunked",
        }
    }
    if !chunked {
        return Err(unreadable("the framing"));
    }
    let mut body = Vec::new();
    loop {
        let length = usize::from_str_radix(&next_line(&mut stream)?, 16);
        let length = length.map_err(|_| unreadable("a chunk's length"))? as u64;
        let read = (&mut stream).take(length).read_to_end(&mut body)?;
        if read as u64 != length || !next_line(&mut stream)?.is_empty() {
            return Err(unreadable("a chunk"));
        }
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_line(line: &[u8]) -> Option<Held> {
    #[derive(Deserialize)]
    struct Row<'a> {
        #[serde(rename = "correlationId")]
        id: &'a str,
        #[serde(borrow)]
        amount: LazyValue<'a>,
        #[serde(rename = "requestedAt")]
        requested_at: &'a str,
    }
    let row: Row = sonic_rs::from_slice(line).ok()?;
    Some(Held {
        id: PaymentId::parse(row.id.as_bytes())?,
        amount: Cents::parse(row.amount.as_raw_str().as_bytes()).ok()?,
        requested_at: Timestamp::parse(row.requested_at.as_bytes(), Rounding::Down)?,
    })
}

/// What the books say of a window.
pub fn totals(books: &[Vec<Held>; 2], window: Window) -> [Totals; 2] {
    books.each_ref().map(|held| {
        let mut totals = Totals::default();
        for payment in held {
            let at = payment.requested_at;
            if window.from.is_none_or(|from| from <= at) && window.to.is_none_or(|to| at <= to) {
                totals += Totals { count: 1, amount: Total(payment.amount.0.into()) };
            }
        }
        totals
    })
}

/// How many payments are held more than once, and what else is wrong, a sentence each.
pub fn compare(
    sent: &[(PaymentId, Fate)],
    amount: Cents,
    books: &[Vec<Held>; 2],
) -> (usize, Vec<String>) {
    let mut times: HashMap<PaymentId, u32> = HashMap::new();
    let mut found = Vec::new();
    let mut check = |what: &str, ids: Vec<PaymentId>| {
        if let Some(example) = ids.first() {
            found.push(format!("{what}: {} ({example})", grouped(ids.len())));
        }
    };
    for (which, held) in Processor::ALL.into_iter().zip(books) {
        let wrong = held.iter().filter(|it| it.amount != amount).map(|it| it.id).collect();
        check(&format!("held by {} with a wrong amount", which.name()), wrong);
        for payment in held {
            *times.entry(payment.id).or_default() += 1;
        }
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).map(|(id, _)| *id).collect();
    let duplicates = twice.len();
    check("held more than once", twice);
    let of = |fate, is_held| {
        let ids = sent.iter().filter(|(_, known)| *known == fate).map(|(id, _)| *id);
        ids.filter(|id| times.contains_key(id) == is_held).collect()
    };
    check("accepted but held by none", of(Fate::Accepted, false));
    check("refused but held", of(Fate::Refused, true));
    for (id, _) in sent {
        times.remove(id);
    }
    check("held but never sent", times.into_keys().collect());
    (duplicates, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(id: u128, at_ms: i64) -> Held {
        Held { id: PaymentId(id), amount: Cents(1_990), requested_at: Timestamp(at_ms) }
    }

    #[test]
    fn a_listing_is_read_and_a_broken_one_is_not() {
        let row = concat!(
            r#"{"correlationId":"00000000-0000-0000-0000-000000000007","#,
            r#""amount":19.90,"requestedAt":"1970-01-01T00:00:01.5Z"}"#
        );
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let chunk = format!("{:x}\r\n{row}\r\n", row.len());
        let whole = format!("{head}{chunk}0\r\n\r\n");
        let body = read_chunked(whole.as_bytes()).unwrap();
        assert_eq!(read_line(&body), Some(held(7, 1_500)));
        for end in 0..whole.len() {
            assert!(read_chunked(&whole.as_bytes()[..end]).is_err(), "{end}");
        }
        assert!(read_chunked(&b"HTTP/1.1 401 Unauthorized\r\n\r\n"[..]).is_err());
        assert_eq!(read_line(b"{}"), None);
    }

    #[test]
    fn every_fault_is_found_and_a_good_run_passes() {
        let sent: Vec<_> = (0..4).map(|id| (PaymentId(id), Fate::Accepted)).collect();
        let good = || [vec![held(0, 1), held(1, 2)], vec![held(2, 3), held(3, 4)]];
        let judge = |sent: &[_], books| compare(sent, Cents(1_990), &books);
        assert_eq!(judge(&sent, good()), (0, vec![]));
        let mut books = good();
        books[0].push(held(3, 5));
        let (duplicates, found) = judge(&sent, books);
        assert_eq!((duplicates, found.len()), (1, 1));
        let finds = |sent: &[_], books, word: &str| {
            let (_, found) = judge(sent, books);
            assert!(found.len() == 1 && found[0].contains(word), "{word}: {found:?}");
        };
        let mut books = good();
        books[1].pop();
        finds(&sent, books, "held by none");
        let mut books = good();
        books[1].push(held(9, 5));
        finds(&sent, books, "never sent");
        let mut books = good();
        books[1][0].amount = Cents(1);
        finds(&sent, books, "wrong amount");
        let mut refused = sent.clone();
        refused[0].1 = Fate::Refused;
        finds(&refused, good(), "refused but held");
        refused[0].1 = Fate::Unknown;
        assert_eq!(judge(&refused, good()), (0, vec![]));
    }

    #[test]
    fn windows_include_their_bounds() {
        let books = [vec![held(0, 1), held(1, 2)], vec![held(2, 3)]];
        let count = |from, to| {
            let window = Window { from: Some(Timestamp(from)), to: Some(Timestamp(to)) };
            totals(&books, window).map(|totals| totals.count)
        };
        assert_eq!(count(1, 2), [2, 0]);
        assert_eq!(count(2, 3), [1, 1]);
        assert_eq!(totals(&books, Window::default()).map(|it| it.amount.0), [3_980, 1_990]);
    }
}
