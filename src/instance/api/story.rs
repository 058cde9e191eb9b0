//! `GET /payments/{id}`: where one payment is. Exact over both instances; 404 only if neither knows
//! it.

use super::{Call, Frame, Then, error, message, turn_away, unreadable};
use crate::cluster::peer::PeerError;
use crate::instance::node::Node;
use crate::net::http::request::{Method, Request};
use crate::net::http::response::{self, Response};
use crate::payments::PaymentId;
use crate::payments::Processor;
use crate::payments::story::{Story, StoryMessage};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Where old settlements leave the books.
const NOT_KEPT: &str =
    "No such payment has been accepted, or it was settled so long ago that it is archived.";

/// Reads which payment is asked for.
pub fn handle(path: &[u8], request: &Request<'_>, frame: Frame, out: &mut Vec<u8>) -> Then {
    if path.is_empty() {
        error(out, frame, 404, None, "There is nothing at this path.");
        return Then::Answered;
    }
    if !matches!(request.method, Method::Get | Method::Head) {
        super::wrong_method(out, frame, "GET, HEAD");
        return Then::Answered;
    }
    match PaymentId::parse(path) {
        Some(id) => Then::Call(Call::Story(id)),
        None => {
            error(out, frame, 400, None, "The id of a payment is a UUID of 36 characters.");
            Then::Answered
        }
    }
}

/// Asks both instances, and answers.
pub async fn answer(node: &Arc<Node>, id: PaymentId, frame: Frame, out: &mut Vec<u8>) {
    let own = match node.payments.story_of(id) {
        Ok(own) => own,
        Err(error) => return turn_away(out, frame, unreadable(&error).0),
    };
    let mut told = own.map(|story| describe(node, id, &story));
    if let Some(peer) = node.cluster.peer()
        && !told.as_ref().is_some_and(StoryMessage::is_last)
    {
        match (peer.story(id).await, &mut told) {
            (Ok(Some(theirs)), None) => told = Some(theirs),
            (Ok(Some(theirs)), Some(own)) if theirs.is_further(own) => *own = theirs,
            (Ok(_), _) => {}
            // It may know more.
            (Err(PeerError(reason)), Some(own)) => own.other_instance = Some(reason.into()),
            (Err(PeerError(reason)), None) => return turn_away(out, frame, reason),
        }
    }
    match told {
        Some(story) => message(out, frame, &story),
        None if node.payments.journal.archived_until().is_some() => {
            error(out, frame, 404, None, NOT_KEPT);
        }
        None => error(out, frame, 404, None, "No such payment has been accepted."),
    }
}

/// What the other instance is told.
pub fn answer_peer(node: &Node, path: &[u8], frame: Frame, out: &mut Vec<u8>) {
    let Some(id) = PaymentId::parse(path) else {
        return error(out, frame, 400, None, "The id of a payment is a UUID of 36 characters.");
    };
    match node.payments.story_of(id) {
        Ok(Some(story)) => message(out, frame, &describe(node, id, &story)),
        // Not 404, which an instance of before this question was there answers, too.
        Ok(None) => response::write(out, &Response::empty(204, frame.connection)),
        Err(error) => turn_away(out, frame, unreadable(&error).0),
    }
}

pub fn describe(node: &Node, id: PaymentId, story: &Story) -> StoryMessage {
    let message = node.tell(id, story, why_it_waits(node, id, story));
    message.with(node.payments.resolution_of(id).as_deref(), &node.names)
}

/// As far as can be seen from outside of the dispatcher.
fn why_it_waits(node: &Node, id: PaymentId, story: &Story) -> &'static str {
    let Story::Waiting { amount, .. } = *story else { return "" };
    let is_up = |it: &Processor| node.stats.up[it.index()].load(Ordering::Relaxed) > 0;
    if !node.cluster.is_home(id) {
        return "the instance that decides about it is away";
    }
    if node.stats.held_back.load(Ordering::Relaxed) == 1 {
        return "a journal was restored, or fees were changed, less than 24 h ago: nothing is paid for a \
                while after a start";
    }
    let order = node.switchboard.current().offers.cheapest_first(amount);
    match order.as_slice() {
        [] => "no processor takes this amount",
        all if !all.iter().any(is_up) => "no processor is up",
        [first, ..] if is_up(first) => "its turn has not come",
        _ => "the cheaper processor is down, and it is waited for a while",
    }
}
