//! The admin door: what an operator looks at, on a listener of its own. Never reachable through the
//! entry, and closed without its token.
//!
//! What it tells is of this instance; the other one has a door of its own. A payment by its id, and
//! the summary, are told over both as at the entry.

use super::{Call, Frame, Then, error, healthz, message, page, resolution, story, wrong_method};
use crate::base::clock;
use crate::cluster::peer::PeerError;
use crate::instance::node::Node;
use crate::instance::status::{InstanceStatus, Status};
use crate::net::http::request::{Method, Request};
use crate::net::http::response::{self, Extra, Response};
use crate::payments::PaymentId;
use crate::payments::story::{Story, StoryMessage};
use serde::Serialize;

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
        b"/" | b"/healthz" | b"/metrics" | b"/status.json" | b"/payments"
        | b"/payments-summary"
            if !reads =>
        {
            wrong_method(out, frame, "GET, HEAD");
        }
        b"/metrics" => metrics(node, frame, out),
        b"/status.json" => return Then::Call(Call::Status),
        b"/payments" => match Wanted::read(request.query) {
            Ok(wanted) => list(node, &wanted, frame, out),
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
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    InDoubt,
    Rejected,
    Cancelled,
}

impl Wanted {
    fn read(query: Option<&[u8]>) -> Result<Wanted, String> {
        let (mut state, mut after, mut limit) = (None, None, PAGE);
        let query = std::str::from_utf8(query.unwrap_or_default());
        let query = query.map_err(|_| "The query is not text.")?;
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match (name, value) {
                ("state", "waiting") => state = Some(State::Waiting),
                ("state", "inDoubt") => state = Some(State::InDoubt),
                ("state", "rejected") => state = Some(State::Rejected),
                ("state", "cancelled") => state = Some(State::Cancelled),
                ("after", id) => match PaymentId::parse(id.as_bytes()) {
                    Some(id) => after = Some(id),
                    None => return Err("The parameter after is not the id of a payment.".into()),
                },
                ("limit", count) => match count.parse() {
                    Ok(count @ 1..=PAGE_MAX) => limit = count,
                    _ => return Err(format!("The parameter limit is not from 1 to {PAGE_MAX}.")),
                },
                _ => return Err(format!("There is no {name}={value} here.")),
            }
        }
        let state =
            state.ok_or("The parameter state must be waiting, inDoubt, rejected or cancelled.")?;
        Ok(Wanted { state, after, limit })
    }
}

/// A page, in the order of the ids.
#[derive(Serialize)]
struct Page {
    payments: Vec<StoryMessage>,
    /// What the next page is asked for after, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

fn list(node: &Node, wanted: &Wanted, frame: Frame, out: &mut Vec<u8>) {
    let Wanted { state, after, limit } = *wanted;
    let found = match state {
        State::Rejected => node.payments.rejected_after(after, limit),
        State::Cancelled => node.payments.cancelled_after(after, limit),
        State::Waiting | State::InDoubt if !node.has_journal() => {
            let reason = "Without a journal (--data) these are not listed.";
            return error(out, frame, 501, None, reason);
        }
        _ => {
            let is_in_doubt = state == State::InDoubt;
            node.payments.journal.open_after(after, limit, is_in_doubt)
        }
    };
    let last = found.last().filter(|_| found.len() == limit).map(|(id, _)| id.to_string());
    let tell = |(id, story): &(PaymentId, Story)| story::describe(node, *id, story);
    message(out, frame, &Page { payments: found.iter().map(tell).collect(), after: last });
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
        assert_eq!(wanted, Wanted { state: State::InDoubt, after, limit: 7 });
        for (query, named) in [
            (&b""[..], "parameter state"),
            (b"state=lost", "no state=lost"),
            (b"state=waiting&limit=0", "from 1 to 1000"),
            (b"state=waiting&limit=1001", "from 1 to 1000"),
            (b"state=waiting&limit=x", "from 1 to 1000"),
            (b"state=waiting&after=7", "not the id"),
            (b"state=waiting&page=2", "no page=2"),
            (b"state=\xff", "not text"),
        ] {
            let reason = Wanted::read(Some(query)).unwrap_err();
            assert!(reason.contains(named), "{reason}");
        }
    }
}
