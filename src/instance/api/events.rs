//! `GET /events`, at the admin door: the feed as JSON in pages, or as server-sent events for whoever
//! accepts `text/event-stream`
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use super::{Frame, Then, error, message, turn_away};
use crate::instance::feed::{EventMessage, Feed, PageMessage, Start, Untold};
use crate::instance::node::Node;
use crate::journal::Position;
use crate::net::http::request::{Method, Request};
use std::io::Write;

/// So many events a page has at most, and if nothing is said.
const PAGE_MAX: usize = 1_000;
const PAGE: usize = 100;

pub fn handle(node: &Node, request: &Request<'_>, frame: Frame, out: &mut Vec<u8>) -> Then {
    let (from, limit) = match read(request.query) {
        Ok(wanted) => wanted,
        Err(reason) => {
            error(out, frame, 400, None, &reason);
            return Then::Answered;
        }
    };
    let accepts = request.header("accept").unwrap_or_default();
    let is_stream = request.method == Method::Get
        && accepts.windows(STREAM.len()).any(|it| it.eq_ignore_ascii_case(STREAM));
    // A browser that has lost the connection says what it has heard last.
    let last = is_stream.then(|| request.header("last-event-id").and_then(start)).flatten();
    let from = last.unwrap_or(from);
    let ask = || {
        let mut feed = Feed::new(node, from)?;
        let (events, _) = feed.read(node, if is_stream { 0 } else { limit })?;
        Ok((feed, events))
    };
    let answer = match ask() {
        // The oldest was given up just when it was found.
        Err(Untold::Gone) if from == Start::Oldest => ask(),
        answer => answer,
    };
    match answer {
        Ok((feed, _)) if is_stream => return Then::Stream(Box::new(feed)),
        Ok((feed, events)) => message(out, frame, &PageMessage::new(node, events, feed.place())),
        Err(untold) => {
            let (status, sentence) = (status_of(&untold), untold.sentence());
            match status {
                503 => turn_away(out, frame, &sentence),
                _ => error(out, frame, status, None, &sentence),
            }
        }
    }
    Then::Answered
}

const STREAM: &[u8] = b"text/event-stream";

fn status_of(untold: &Untold) -> u16 {
    match untold {
        Untold::NoJournal => 501,
        Untold::Gone => 410,
        Untold::NoPlace | Untold::NoRecord { is_damaged: false, .. } => 400,
        Untold::NoRecord { is_damaged: true, .. } => 410,
        Untold::Unreadable(_) => 503,
    }
}

/// Of digits alone: `parse` would take a sign, too.
fn start(value: &[u8]) -> Option<Start> {
    let is_number = value.iter().all(u8::is_ascii_digit);
    match std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()? {
        0 => Some(Start::Oldest),
        number => Some(Start::After(Position::from_number(number))),
    }
}

fn read(query: Option<&[u8]>) -> Result<(Start, usize), String> {
    let (mut from, mut limit) = (None, None);
    for pair in query.unwrap_or_default().split(|byte| *byte == b'&').filter(|it| !it.is_empty()) {
        let split = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = (&pair[..split], pair.get(split + 1..).unwrap_or_default());
        let is_second = match (name, value) {
            (b"after", b"end") => from.replace(Start::End).is_some(),
            (b"after", value) => match start(value) {
                Some(start) => from.replace(start).is_some(),
                None => return Err("The parameter after is neither a number nor end.".into()),
            },
            (b"limit", value) => match std::str::from_utf8(value).map(str::parse) {
                Ok(Ok(count @ 1..=PAGE_MAX)) => limit.replace(count).is_some(),
                _ => return Err(format!("The parameter limit is not from 1 to {PAGE_MAX}.")),
            },
            _ => return Err(format!("There is no {} here.", String::from_utf8_lossy(name))),
        };
        if is_second {
            return Err(format!("There are two {}.", String::from_utf8_lossy(name)));
        }
    }
    Ok((from.unwrap_or(Start::Oldest), limit.unwrap_or(PAGE)))
}

/// The head of the answer that does not end. A comment comes first, so that it goes through proxies.
pub fn stream_head(out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
          X-Accel-Buffering: no\r\nConnection: close\r\n\r\n:\n\n",
    );
}

/// Appends each of them as it goes over the wire.
pub fn frames(events: &[EventMessage], out: &mut Vec<u8>) {
    for event in events {
        if let Ok(data) = sonic_rs::to_string(event) {
            let kind = event.r#type;
            let written = write!(out, "id: {}\nevent: {kind}\ndata: {data}\n\n", event.n);
            written.expect("a Vec takes all that is written to it");
        }
    }
}

/// Why the stream ends.
pub fn last_frame(untold: &Untold, out: &mut Vec<u8>) {
    let written = write!(out, "event: end\ndata: {}\n\n", untold.sentence());
    written.expect("a Vec takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        let after = Start::After(Position::from_number(7));
        for (query, wanted) in [
            (&b""[..], (Start::Oldest, 100)),
            (b"after=0", (Start::Oldest, 100)),
            (b"after=end&limit=1", (Start::End, 1)),
            (b"limit=1000&after=7", (after, 1000)),
            (b"after=18446744073709551615", (Start::After(Position::LAST), 100)),
            (b"after=00", (Start::Oldest, 100)),
        ] {
            assert_eq!(read(Some(query)).unwrap(), wanted);
        }
        for query in [
            &b"after=-1"[..],
            b"after=",
            b"after=18446744073709551616",
            b"after=+7",
            b"after=7&after=7",
            b"limit=7&after=7&limit=8",
            b"limit=0",
            b"limit=1001",
            b"limit",
            b"x=1",
            b"\xff",
        ] {
            read(Some(query)).unwrap_err();
        }
    }
}
