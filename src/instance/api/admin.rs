//! The admin door: what an operator looks at, on a listener of its own. Never reachable through the
//! entry, and closed without its token.
//!
//! What it tells is of this instance; the other one has a door of its own. A payment by its id, and
//! the summary, are told over both as at the entry.

use super::{
    Call, Frame, Then, error, events, healthz, message, page, resolution, story, turn_away,
    unreadable, wrong_method,
};
use crate::base::clock::{self, Rounding, Timestamp};
use crate::base::limits::READS_MAX;
use crate::cluster::peer::PeerError;
use crate::instance::node::{Node, Reply};
use crate::instance::status::{InstanceStatus, Status};
use crate::net::http::request::{Method, Request};
use crate::net::http::response::{self, Extra, Response};
use crate::payments::story::{Story, StoryMessage};
use crate::payments::{Line, PaymentId};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// So many payments a page has at most, and if nothing is said.
const PAGE_MAX: usize = 1_000;
const PAGE: usize = 100;

pub fn handle(node: &Node, request: &Request<'_>, frame: Frame, out: &mut Vec<u8>) -> Then {
    let reads = matches!(request.method, Method::Get | Method::Head);
    match request.path {
        b"/healthz" if reads => healthz(node, frame, out),
        // It tells nothing by itself, and asks for the token.
        b"/" if reads => page::answer(frame, out),
        _ if !is_authorized(node, request) => {
            error(out, frame, 401, Some(Extra::Authenticate), super::NO_TOKEN);
        }
        b"/" | b"/healthz" | b"/metrics" | b"/status.json" | b"/events" | b"/payments"
        | b"/payments-summary"
            if !reads =>
        {
            wrong_method(out, frame, "GET, HEAD");
        }
        b"/metrics" => metrics(node, frame, out),
        b"/status.json" => return Then::Call(Call::Status),
        b"/events" => return events::handle(node, request, frame, out),
        b"/payments" => match Wanted::read(request.query) {
            Ok(wanted) => return list(node, &wanted, frame, out),
            Err(reason) => error(out, frame, 400, None, &reason),
        },
        b"/payments-summary" => match super::query::read_window(request.query) {
            Ok(window) => return Then::Call(Call::Summary(window)),
            Err(reason) => error(out, frame, 400, None, &reason),
        },
        path if path.ends_with(b"/resolution") && path.starts_with(b"/payments/") => {
            return resolution::handle(node, request, frame, out);
        }
        path if path.starts_with(b"/payments/") => {
            return story::handle(&path[b"/payments/".len()..], request, frame, out);
        }
        _ => error(out, frame, 404, None, "There is nothing at this path."),
    }
    Then::Answered
}

fn is_authorized(node: &Node, request: &Request<'_>) -> bool {
    node.config.admin_token.as_ref().is_some_and(|token| token.let_in(request))
}

/// `GET /metrics`, in Prometheus text.
pub fn metrics(node: &Node, frame: Frame, out: &mut Vec<u8>) {
    let text = node.metrics();
    let response = Response {
        content_type: "text/plain; version=0.0.4",
        head_only: frame.head_only,
        ..Response::json(200, text.as_bytes(), frame.connection)
    };
    response::write(out, &response);
}

/// Which payments are asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    state: State,
    after: Option<PaymentId>,
    /// Of those that are settled: they are listed by their time.
    after_time: Option<Timestamp>,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    InDoubt,
    Rejected,
    Cancelled,
    Settled,
}

impl Wanted {
    fn read(query: Option<&[u8]>) -> Result<Wanted, String> {
        let (mut state, mut after, mut limit) = (None, "", PAGE);
        let query = std::str::from_utf8(query.unwrap_or_default());
        let query = query.map_err(|_| "The query is not text.")?;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (name, value) {
                ("state", "waiting") => state = Some(State::Waiting),
                ("state", "inDoubt") => state = Some(State::InDoubt),
                ("state", "rejected") => state = Some(State::Rejected),
                ("state", "cancelled") => state = Some(State::Cancelled),
                ("state", "settled") => state = Some(State::Settled),
                ("after", value) => after = value,
                ("limit", count) => match count.parse() {
                    Ok(count @ 1..=PAGE_MAX) => limit = count,
                    _ => return Err(format!("The parameter limit is not from 1 to {PAGE_MAX}.")),
                },
                _ => return Err(format!("There is no {name}={value} here.")),
            }
        }
        let state = state.ok_or(
            "The parameter state must be waiting, inDoubt, rejected, cancelled or settled.",
        )?;
        let (after, after_time) = read_after(state, after)?;
        Ok(Wanted { state, after, after_time, limit })
    }
}

/// An id; of those that are settled a time, or a time and an id with `_` between them.
fn read_after(state: State, after: &str) -> Result<(Option<PaymentId>, Option<Timestamp>), String> {
    if after.is_empty() {
        return Ok((None, None));
    }
    let (time, id) = match state {
        State::Settled => {
            after.split_once('_').map_or((Some(after), None), |(time, id)| (Some(time), Some(id)))
        }
        _ => (None, Some(after)),
    };
    let time = match time.map(|time| Timestamp::parse(time.as_bytes(), Rounding::Down)) {
        Some(None) => return Err("The parameter after does not begin with a time.".into()),
        time => time.flatten(),
    };
    match id.map(|id| PaymentId::parse(id.as_bytes())) {
        Some(None) => Err("The parameter after is not the id of a payment.".into()),
        id => Ok((id.flatten(), time)),
    }
}

/// A page, in the order of the ids; of those that are settled, of their times.
#[derive(Serialize)]
struct Page {
    payments: Vec<StoryMessage>,
    /// What the next page is asked for after, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

fn list(node: &Node, wanted: &Wanted, frame: Frame, out: &mut Vec<u8>) -> Then {
    let Wanted { state, after, after_time, limit } = *wanted;
    let found = match state {
        State::Rejected => node.payments.rejected_after(after, limit),
        State::Cancelled => node.payments.cancelled_after(after, limit),
        _ if !node.has_journal() => {
            let reason = "Without a journal (--data) these are not listed.";
            error(out, frame, 501, None, reason);
            return Then::Answered;
        }
        State::Settled => {
            let place = after_time.map(|time| (time, after.unwrap_or(PaymentId(0))));
            return Then::Call(Call::Settled(place, limit));
        }
        _ => {
            let is_in_doubt = state == State::InDoubt;
            node.payments.journal.open_after(after, limit, is_in_doubt)
        }
    };
    let last = found.last().filter(|_| found.len() == limit).map(|(id, _)| id.to_string());
    let tell = |(id, story): &(PaymentId, Story)| story::describe(node, *id, story);
    message(out, frame, &Page { payments: found.iter().map(tell).collect(), after: last });
    Then::Answered
}

/// Read on a thread of its own: it may take long.
pub async fn settled(
    node: &Arc<Node>,
    after: Option<(Timestamp, PaymentId)>,
    limit: usize,
    frame: Frame,
    out: &mut Vec<u8>,
) {
    if node.reads.fetch_add(1, Ordering::Relaxed) >= READS_MAX {
        node.reads.fetch_sub(1, Ordering::Relaxed);
        return turn_away(out, frame, "Too many lists are read at once.");
    }
    let (reply, reader) = (Reply::new(), node.clone());
    let told = reply.clone();
    let started = std::thread::Builder::new().name("galo-reader".into()).spawn(move || {
        told.finish(reader.payments.journal.settled_after(after, limit));
        reader.reads.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        node.reads.fetch_sub(1, Ordering::Relaxed);
        return turn_away(out, frame, "There can be no more threads.");
    }
    match reply.wait().await {
        Ok(lines) => {
            let last = lines
                .last()
                .filter(|_| lines.len() == limit)
                .and_then(|line| Some(format!("{}_{}", line.settlement.requested_at, line.id?)));
            let tell = |line: Line| Some(story::describe(node, line.id?, &Story::Settled(line)));
            let payments = lines.into_iter().filter_map(tell).collect();
            message(out, frame, &Page { payments, after: last });
        }
        Err(error) => turn_away(out, frame, unreadable(&error).0),
    }
}

/// `GET /status.json`: asks the other instance, too.
pub async fn status(node: &Node, frame: Frame, out: &mut Vec<u8>) {
    let theirs = match node.cluster.peer() {
        Some(peer) => {
            let told = peer.ask_for::<InstanceStatus>("/peer/status").await;
            Some(told.map_err(|PeerError(reason)| reason))
        }
        None => None,
    };
    message(out, frame, &Status::new(InstanceStatus::of(node), theirs, clock::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_or_refused() {
        let id = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
        let query = format!("state=inDoubt&after={id}&limit=7");
        let wanted = Wanted::read(Some(query.as_bytes())).unwrap();
        let after = PaymentId::parse(id.as_bytes());
        let after_time = None;
        assert_eq!(wanted, Wanted { state: State::InDoubt, after, after_time, limit: 7 });
        let (time, at) = ("2026-01-31T10:00:00.123Z", Some(Timestamp(1_769_853_600_123)));
        for (text, expected) in
            [(time.to_owned(), (None, at)), (format!("{time}_{id}"), (after, at))]
        {
            assert_eq!(read_after(State::Settled, &text), Ok(expected));
        }
        for (query, named) in [
            (&b""[..], "parameter state"),
            (b"state=lost", "no state=lost"),
            (b"state=waiting&limit=0", "from 1 to 1000"),
            (b"state=waiting&limit=1001", "from 1 to 1000"),
            (b"state=waiting&limit=x", "from 1 to 1000"),
            (b"state=waiting&after=7", "not the id"),
            (b"state=waiting&after=2026-01-31T10:00:00Z", "not the id"),
            (b"state=settled&after=7", "begin with a time"),
            (b"state=settled&after=2026-01-31T10:00:00Z_7", "not the id"),
            (b"state=waiting&page=2", "no page=2"),
            (b"state=\xff", "not text"),
        ] {
            let reason = Wanted::read(Some(query)).unwrap_err();
            assert!(reason.contains(named), "{reason}");
        }
    }
}
