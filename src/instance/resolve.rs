//! Carries out what an operator has decided about a payment, on the dispatcher's thread: between
//! looking and doing nothing else happens to the payment.

use crate::base::clock::{self, Timestamp};
use crate::base::limits::RESOLUTIONS_MAX;
use crate::instance::lifecycle::Phase;
use crate::instance::node::Node;
use crate::payments::dispatcher::Dispatcher;
use crate::payments::event::Event;
use crate::payments::resolution::{self, Action, Asked, Resolution, Standing, Verdict};
use crate::payments::{Attempts, Payment, PaymentId};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unresolved {
    /// What was asked for is not possible.
    Conflict(&'static str),
    /// It may be later.
    Unable(&'static str),
}

/// The other instance may drive it by now.
const UNINFORMED: Unresolved =
    Unresolved::Unable("This instance is starting or has stood still, and asks what it missed.");
const FULL: Unresolved = Unresolved::Unable("The queue is full.");

/// Decides, writes it down, and does it. It is promised when the journal has written.
///
/// # Errors
/// See [`Unresolved`]; nothing was changed then.
pub fn resolve(
    node: &Node,
    dispatcher: &mut Dispatcher,
    id: PaymentId,
    asked: &Asked,
) -> Result<(), Unresolved> {
    if node.phase() == Phase::Starting || !node.cluster.is_current() {
        return Err(UNINFORMED);
    }
    let payments = &node.payments;
    let last = payments.resolution_of(id);
    let verdict = decide(node, dispatcher, id, asked.action, last.as_deref())?;
    let (amount, accepted_at) = match verdict {
        Verdict::Repeated => return Ok(()),
        Verdict::Note { amount } => (amount, Timestamp(0)),
        Verdict::Resolve { amount, accepted_at } => (amount, accepted_at),
    };
    let place = match asked.action {
        Action::Retry => Some(payments.queue.reserve().ok_or(FULL)?),
        _ => None,
    };
    check_room(node, last.is_some())?;
    // Cannot fail past here.
    let Asked { action, by, reason } = asked.clone();
    let resolution = Resolution { id, amount, accepted_at, action, at: clock::now(), by, reason };
    write_down(node, resolution, matches!(verdict, Verdict::Note { .. }));
    if let Some(place) = place {
        let accepted = clock::moment();
        // While the two were cut apart the other one may have paid what was rejected here.
        place.push(Payment { id, amount, accepted, accepted_at, guest: false, verify: true });
    }
    carry_out(node, dispatcher, id, action);
    Ok(())
}

fn decide(
    node: &Node,
    dispatcher: &Dispatcher,
    id: PaymentId,
    action: Action,
    last: Option<&Resolution>,
) -> Result<Verdict, Unresolved> {
    let story = node.payments.story_of(id).map_err(|error| {
        log::error!("{error}");
        Unresolved::Unable("The books of this instance cannot be read: its log says why.")
    })?;
    let (held, is_home) = (dispatcher.held(id), node.cluster.is_home(id));
    let is_paired = node.cluster.peer().is_some();
    let standing = Standing { story, held, is_home, is_paired, last };
    resolution::decide(action, &standing).map_err(Unresolved::Conflict)
}

fn check_room(node: &Node, is_known: bool) -> Result<(), Unresolved> {
    if !is_known && node.payments.books().resolved.len() >= RESOLUTIONS_MAX {
        return Err(Unresolved::Unable("As many payments are resolved as can be kept."));
    }
    match node.payments.journal.has_room_to_resolve() {
        true => Ok(()),
        false => Err(Unresolved::Unable(node.payments.journal.lack().sentence())),
    }
}

fn write_down(node: &Node, resolution: Resolution, is_settled: bool) {
    let (id, action) = (resolution.id, resolution.action);
    if let Some(settlement) = resolution.settlement().filter(|_| !is_settled) {
        // First: what a crash may tear off behind it is only who has said so.
        let attempts = Attempts::default();
        node.payments.happened(&Event::Settled { id, settlement, attempts });
        let settled = &node.stats.settled[settlement.processor.index()];
        settled.fetch_add(1, Ordering::Relaxed);
    }
    log::warn!("payment {}", resolution.show(&node.names));
    let rejected = node.payments.books().rejected.len();
    node.payments.happened(&Event::Resolved(Arc::new(resolution)));
    if is_settled && node.payments.books().rejected.len() < rejected {
        // The end of the process came between the two: since then it was counted in both places.
        node.stats.given_away.fetch_add(1, Ordering::Relaxed);
    }
    node.stats.resolved[action.index()].fetch_add(1, Ordering::Relaxed);
}

fn carry_out(node: &Node, dispatcher: &mut Dispatcher, id: PaymentId, action: Action) {
    let is_over = match action {
        Action::Retry => false,
        Action::NotBooked { .. } => {
            dispatcher.release_by_hand(id);
            false
        }
        Action::Settled { .. } | Action::Cancelled => dispatcher.let_go(id),
        Action::Elsewhere => false,
    };
    if is_over {
        node.payments.queue.release(1);
        // Behind its end in the journal, so that nothing is told for good that is still to be paid.
        node.cluster.with(|membership| membership.over(id));
    }
}
