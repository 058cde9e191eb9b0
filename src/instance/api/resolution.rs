//! `POST /payments/{id}/resolution`, at the admin door: an operator decides about a payment that
//! galo cannot decide about, or is not to.

use super::{Call, Frame, Then, error, message, story, turn_away, unreadable};
use crate::base::clock;
use crate::instance::node::{Control, Node, Reply};
use crate::instance::resolve::Unresolved;
use crate::net::http::request::{Method, Request};
use crate::payments::PaymentId;
use crate::payments::resolution::{self, Asked, Refused};
use std::sync::Arc;

/// Reads what is decided.
pub fn handle(node: &Node, request: &Request<'_>, frame: Frame, out: &mut Vec<u8>) -> Then {
    let id = request.path.strip_prefix(b"/payments/");
    let id = id.and_then(|path| path.strip_suffix(b"/resolution")).unwrap_or_default();
    if request.method != Method::Post {
        super::wrong_method(out, frame, "POST");
        return Then::Answered;
    }
    if !node.has_journal() {
        let reason = "Without a journal (--data) a resolution would not outlive the process.";
        error(out, frame, 501, None, reason);
        return Then::Answered;
    }
    let Some(id) = PaymentId::parse(id) else {
        error(out, frame, 400, None, "The id of a payment is a UUID of 36 characters.");
        return Then::Answered;
    };
    match resolution::read(request.body, clock::now(), &node.names) {
        Ok(asked) => return Then::Call(Call::Resolve(id, asked)),
        Err(Refused::NotJson) => error(out, frame, 400, None, "The body is not JSON."),
        Err(Refused::Field(reason)) => error(out, frame, 422, None, &reason),
    }
    Then::Answered
}

/// Has the dispatcher decide, and answers when it is written down.
pub async fn answer(
    node: &Arc<Node>,
    id: PaymentId,
    asked: Asked,
    frame: Frame,
    out: &mut Vec<u8>,
) {
    let reply = Reply::new();
    if !node.control(Control::Resolve(id, asked, reply.clone())) {
        return turn_away(out, frame, "Too many resolutions at once: nothing was changed.");
    }
    match reply.wait().await {
        Ok(()) => {}
        Err(Unresolved::Conflict(reason)) => return error(out, frame, 409, None, reason),
        Err(Unresolved::Unable(reason)) => return turn_away(out, frame, reason),
    }
    // Also of one that was decided before: its record may be on its way to the disk still.
    let journal = &node.payments.journal;
    journal.wait(journal.appended()).await;
    match node.payments.story_of(id) {
        Ok(Some(told)) => message(out, frame, &story::describe(node, id, &told)),
        Ok(None) => error(out, frame, 409, None, "The payment was purged meanwhile."),
        Err(error) => turn_away(out, frame, unreadable(&error).0),
    }
}
