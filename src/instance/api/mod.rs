//! The only place with URLs: what each request means, and the bytes that answer it. Those of the
//! ledger are in a file of their own.
//!
//! Three doors. The entry is for clients; the peer's door, on a listener of its own, is for the
//! other instance and for whoever watches this one; the admin door, on another, is for operators.
//! Nothing of these is known at the entry.

mod admin;
pub mod events;
mod ledger;
pub mod page;
pub mod query;
mod resolution;
pub mod routes;
mod story;

use crate::base::clock::Timestamp;
use crate::base::json;
use crate::base::limits::RETRY_AFTER_S;
use crate::base::money::Cents;
use crate::cluster::messages::{
    AdoptedMessage, HealthMessage, Hello, OfferMessage, OfferedMessage, TotalsMessage,
};
use crate::cluster::peer::{BAD_ANSWER, PeerError, PurgeError};
use crate::instance::feed::Feed;
use crate::instance::lifecycle::Phase;
use crate::instance::node::{Control, Node, Reply};
use crate::instance::status::InstanceStatus;
use crate::journal::JournalError;
use crate::ledger::{AccountId, Transaction};
use crate::net::http::Connection;
use crate::net::http::request::{Method, Request};
use crate::net::http::response::{self, Extra, Response};
use crate::payments::intake::{self, Refused};
use crate::payments::names::{ByName, Names};
use crate::payments::observed::Report;
use crate::payments::resolution::Asked;
use crate::payments::{Accepted, Each, PaymentId, Processor, Totals, Window};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The answer of `GET /healthz` while nothing moves.
#[derive(serde::Serialize)]
struct HealthzMessage<'a> {
    status: &'static str,
    stuck: &'a str,
}

/// How soon totals are told that had to wait.
const PAST_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Which listener a connection came in through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Entry,
    Peer,
    Admin,
}

/// What the connection has to do after a request was looked at.
pub enum Then {
    /// Nothing: the answer is in the buffer.
    Answered,
    /// Likewise, but it makes a promise: it must not go out before the journal has what was
    /// appended so far, and the dispatcher is to be woken after.
    Accepted,
    /// Likewise, but there is nothing for the dispatcher to do.
    Promised,
    /// The answer needs others, and comes from [`Call::answer`].
    Call(Call),
    /// The answer goes on for as long as the client listens.
    Stream(Box<Feed>),
}

/// A request whose answer takes waiting for somebody.
pub enum Call {
    Summary(Window),
    Story(PaymentId),
    /// Those settled by this instance, behind that place, at most so many.
    Settled(Option<(Timestamp, PaymentId)>, usize),
    /// How both instances stand.
    Status,
    Resolve(PaymentId, Asked),
    /// Those of this instance.
    Totals(Window),
    Purge {
        pass_on: bool,
    },
    /// To the home instance of the payment.
    Offer(PaymentId, Cents),
    /// To the home instance of the account.
    Transact(AccountId, Transaction),
    Statement(AccountId),
}

/// How an answer is to be framed.
#[derive(Clone, Copy)]
pub struct Frame {
    pub connection: Connection,
    pub head_only: bool,
}

const NO_TOKEN: &str = "The token is missing or wrong.";

/// Answers a request into `out`, or says who must be asked.
pub fn handle(
    node: &Node,
    door: Door,
    request: &Request<'_>,
    frame: Frame,
    out: &mut Vec<u8>,
) -> Then {
    if let (Door::Entry, Some(tokens)) = (door, &node.config.entry_tokens)
        // A balancer that asks for the health has none.
        && request.path != b"/healthz"
        && !tokens.let_in(request)
    {
        error(out, frame, 401, Some(Extra::Authenticate), NO_TOKEN);
        return Then::Answered;
    }
    // The way of nearly every request; what follows is for all the others.
    if let (Door::Entry, Method::Post, b"/payments") = (door, request.method, request.path) {
        return take_payment(node, request.body, frame, out);
    }
    if request.method == Method::Unknown {
        error(out, frame, 501, None, "This method is not known.");
        return Then::Answered;
    }
    if request.path.contains(&b'%') {
        let path = query::decode_unreserved(request.path);
        return route(node, door, &request.at(&path), frame, out);
    }
    route(node, door, request, frame, out)
}

fn route(node: &Node, door: Door, request: &Request<'_>, frame: Frame, out: &mut Vec<u8>) -> Then {
    if request.path == b"*" {
        return options(frame, out);
    }
    match door {
        Door::Entry => handle_entry(node, request, frame, out),
        Door::Peer => handle_peer(node, request, frame, out),
        Door::Admin => admin::handle(node, request, frame, out),
    }
}

/// `OPTIONS *`: what the server as a whole can do (RFC 9110, 9.3.7).
fn options(Frame { connection, .. }: Frame, out: &mut Vec<u8>) -> Then {
    let extra = Some(Extra::Allow("GET, HEAD, POST, OPTIONS"));
    response::write(out, &Response { extra, ..Response::empty(204, connection) });
    Then::Answered
}

fn handle_entry(node: &Node, request: &Request<'_>, frame: Frame, out: &mut Vec<u8>) -> Then {
    use Method::{Get, Head, Post};
    if let Some(path) = request.path.strip_prefix(b"/clientes/") {
        return ledger::handle_entry(node, path, request, frame, out);
    }
    if let Some(path) = request.path.strip_prefix(b"/payments/") {
        return story::handle(path, request, frame, out);
    }
    match (request.path, request.method) {
        // Only if it was written with percent signs.
        (b"/payments", Post) => return take_payment(node, request.body, frame, out),
        (b"/payments-summary", Get | Head) => match query::read_window(request.query) {
            Ok(window) => return Then::Call(Call::Summary(window)),
            Err(reason) => error(out, frame, 400, None, &reason),
        },
        (b"/healthz", Get | Head) => healthz(node, frame, out),
        (b"/purge-payments", Post) if node.config.allow_purge => {
            return Then::Call(Call::Purge { pass_on: true });
        }
        (b"/payments", _) => wrong_method(out, frame, "POST"),
        (b"/payments-summary" | b"/healthz", _) => wrong_method(out, frame, "GET, HEAD"),
        (b"/purge-payments", _) if node.config.allow_purge => wrong_method(out, frame, "POST"),
        _ => error(out, frame, 404, None, "There is nothing at this path."),
    }
    Then::Answered
}

fn take_payment(node: &Node, body: &[u8], frame: Frame, out: &mut Vec<u8>) -> Then {
    let stats = &node.stats;
    let (id, amount) = match intake::read(body) {
        Ok(payment) => payment,
        Err(refused) => {
            stats.refused.fetch_add(1, Ordering::Relaxed);
            let (status, reason) = match refused {
                Refused::NotJson => (400, "The body is not JSON."),
                Refused::TooDeep => (400, "The body is nested too deeply."),
                Refused::Field(reason) => (422, reason),
            };
            error(out, frame, status, None, reason);
            return Then::Answered;
        }
    };
    if !node.switchboard.takes(amount) {
        stats.refused.fetch_add(1, Ordering::Relaxed);
        error(out, frame, 422, None, "No processor takes a payment of this amount.");
        return Then::Answered;
    }
    let is_home = node.cluster.is_home(id);
    if !is_home && node.cluster.peer_up().is_some() {
        return Then::Call(Call::Offer(id, amount));
    }
    answer_payment(node, accept(node, id, amount), frame, out)
}

/// Accepts a payment here, if it is the other instance's in that one's place.
fn accept(node: &Node, id: PaymentId, amount: Cents) -> Accepted {
    let is_guest = !node.cluster.is_home(id);
    if is_guest && !node.cluster.takes_guests() {
        return Accepted::Full;
    }
    node.payments.accept(id, amount, is_guest)
}

fn answer_payment(node: &Node, outcome: Accepted, frame: Frame, out: &mut Vec<u8>) -> Then {
    let stats = &node.stats;
    let (counter, then) = match outcome {
        Accepted::New => {
            accepted(out, frame);
            (&stats.accepted, Then::Accepted)
        }
        // The first request's record may be on its way to the disk still; a repeat promises as much.
        Accepted::Repeated => {
            accepted(out, frame);
            (&stats.repeated, Then::Accepted)
        }
        Accepted::Conflicting => {
            let reason = "The field amount differs from an earlier payment of this correlationId.";
            error(out, frame, 422, None, reason);
            (&stats.refused, Then::Answered)
        }
        Accepted::Full => {
            turn_away(out, frame, "The queue is full.");
            (&stats.turned_away, Then::Answered)
        }
        Accepted::DiskFull => {
            turn_away(out, frame, node.payments.journal.lack().sentence());
            (&stats.turned_away, Then::Answered)
        }
        Accepted::TooManyRejected => {
            turn_away(out, frame, TOO_MANY_REJECTED);
            (&stats.turned_away, Then::Answered)
        }
        Accepted::Closed => {
            turn_away(out, frame, "This instance is starting or stopping.");
            (&stats.turned_away, Then::Answered)
        }
    };
    counter.fetch_add(1, Ordering::Relaxed);
    then
}

/// The answer to nearly every request, and so the one that is ready made.
fn accepted(out: &mut Vec<u8>, frame: Frame) {
    if frame.connection == Connection::KeepAlive {
        out.extend_from_slice(response::ACCEPTED);
    } else {
        response::write(out, &Response::empty(202, frame.connection));
    }
}

fn healthz(node: &Node, frame: Frame, out: &mut Vec<u8>) {
    match node.phase() {
        Phase::Serving if !node.cluster.is_current() => {
            turn_away(out, frame, "This instance has stood still, and asks what it missed.");
        }
        // It can take work all the same.
        Phase::Serving => match rejected_too_many(node).or_else(|| node.stuck()) {
            None => json(out, frame, 200, b"{\"status\":\"ok\"}"),
            Some(why) => {
                message(out, frame, &HealthzMessage { status: "ok", stuck: &why });
            }
        },
        Phase::Starting => turn_away(out, frame, "This instance is starting."),
        Phase::Leaving | Phase::Draining => turn_away(out, frame, "This instance is stopping."),
    }
}

const TOO_MANY_REJECTED: &str =
    "As many payments are rejected as can be kept: an operator has to resolve some.";

fn rejected_too_many(node: &Node) -> Option<String> {
    node.payments.has_too_many_rejected().then(|| TOO_MANY_REJECTED.into())
}

/// Where the other instance finds the accounts kept here.
const ACCOUNTS: &[u8] = b"/peer/accounts/";

/// Where it finds what is known here of a payment.
const STORIES: &[u8] = b"/peer/payments/";

fn handle_peer(node: &Node, request: &Request<'_>, frame: Frame, out: &mut Vec<u8>) -> Then {
    use Method::{Get, Head, Post};
    match (request.path, request.method) {
        (b"/healthz", Get | Head) => healthz(node, frame, out),
        (b"/metrics", Get | Head) => admin::metrics(node, frame, out),
        (path, _) if !path.starts_with(b"/peer/") => {
            error(out, frame, 404, None, "There is nothing at this path.");
        }
        _ if !is_authorized(node, request) => {
            let reason = "The peer's token is missing or wrong.";
            error(out, frame, 401, Some(Extra::Authenticate), reason);
        }
        (path, _) if path.starts_with(ACCOUNTS) => {
            return ledger::handle_peer(node, &path[ACCOUNTS.len()..], request, frame, out);
        }
        (path, Get) if path.starts_with(STORIES) => {
            story::answer_peer(node, &path[STORIES.len()..], frame, out);
        }
        (b"/peer/status", Get) => message(out, frame, &InstanceStatus::of(node)),
        (b"/peer/hello", Post) => greeted(node, request.body, frame, out),
        (b"/peer/payments", Post) => return take_offer(node, request.body, frame, out),
        (b"/peer/adopted", Get) => {
            let query = request.query.and_then(|query| std::str::from_utf8(query).ok());
            let from = query.and_then(|query| query.strip_prefix("from=")?.parse().ok());
            let from = from.unwrap_or(0);
            let (from, page) = node.cluster.with(|membership| membership.adopted_page(from));
            let adopted = page.into_iter().map(|(id, amount)| (id.to_string(), amount.0)).collect();
            message(out, frame, &AdoptedMessage { from, adopted });
        }
        // Whatever a client asked for there: an answer other than totals would cost it its summary.
        (b"/peer/totals", Get) => match query::read_bounds(request.query) {
            Ok(bounds) => {
                let window = Window::from(bounds);
                match node.payments.totals(window) {
                    Ok(Some(totals)) => message(out, frame, &totals_message(node, totals)),
                    Ok(None) => return Then::Call(Call::Totals(window)),
                    Err(error) => NoTotals::from(error).answer(frame, out),
                }
            }
            Err(reason) => error(out, frame, 400, None, &reason),
        },
        (b"/peer/health", Post) => match read_health(request.body, &node.names) {
            Some((which, report)) => {
                node.health_calls.called(which);
                node.control(Control::Reported(which, report));
                json(out, frame, 200, b"{}");
            }
            None => error(out, frame, 400, None, "The body is not a health message."),
        },
        (b"/peer/purge", Post) if !node.config.allow_purge => {
            error(out, frame, 403, None, "This instance does not allow a purge.");
        }
        (b"/peer/purge", Post) => return Then::Call(Call::Purge { pass_on: false }),
        (b"/peer/totals" | b"/peer/adopted" | b"/peer/status", _) => {
            wrong_method(out, frame, "GET")
        }
        (b"/peer/hello" | b"/peer/health" | b"/peer/purge" | b"/peer/payments", _) => {
            wrong_method(out, frame, "POST")
        }
        _ => error(out, frame, 404, None, "There is nothing at this path."),
    }
    Then::Answered
}

/// Somebody says that it is the other instance.
fn greeted(node: &Node, body: &[u8], frame: Frame, out: &mut Vec<u8>) {
    let Ok(theirs) = json::read_object::<Hello>(body) else {
        return error(out, frame, 400, None, "The body is not a greeting.");
    };
    message(out, frame, &node.cluster.heard(&theirs));
}

/// A payment that the peer's client has sent there, and whose home we are.
fn take_offer(node: &Node, body: &[u8], frame: Frame, out: &mut Vec<u8>) -> Then {
    let offer: Option<OfferMessage> = json::read_object(body).ok();
    let payment = offer.and_then(|offer| {
        let id = PaymentId::parse(offer.id.as_bytes())?;
        (offer.cents > 0).then_some((id, Cents(offer.cents)))
    });
    let Some((id, amount)) = payment else {
        error(out, frame, 400, None, "The body is not a payment.");
        return Then::Answered;
    };
    let outcome = accept(node, id, amount);
    let is_new = outcome == Accepted::New;
    node.stats.taken_for_peer.fetch_add(u64::from(is_new), Ordering::Relaxed);
    message(out, frame, &OfferedMessage { accepted: outcome.name().into() });
    match outcome {
        Accepted::New | Accepted::Repeated => Then::Accepted,
        _ => Then::Answered,
    }
}

fn is_authorized(node: &Node, request: &Request<'_>) -> bool {
    node.config.peer_token.let_in(request)
}

fn read_health(body: &[u8], names: &Names) -> Option<(Processor, Report)> {
    let message: HealthMessage = json::read_object(body).ok()?;
    let which = names.by_name(&message.processor)?;
    let response_min = Duration::from_millis(message.response_min_ms);
    Some((which, Report { failing: message.failing, response_min }))
}

impl Call {
    /// Asks who must be asked, and answers into `out`.
    pub async fn answer(self, node: &Arc<Node>, frame: Frame, out: &mut Vec<u8>) -> Then {
        match self {
            Call::Summary(window) => match summary(node, window).await {
                Ok(totals) => {
                    json(out, frame, 200, summary_body(&totals).as_bytes());
                }
                Err(none) => none.answer(frame, out),
            },
            Call::Totals(window) => match own_totals(node, window).await {
                Ok(totals) => message(out, frame, &totals_message(node, totals)),
                Err(none) => none.answer(frame, out),
            },
            Call::Offer(id, amount) => {
                return answer_payment(node, offer(node, id, amount).await, frame, out);
            }
            Call::Transact(id, transaction) => {
                let peer = node.cluster.peer_up();
                ledger::pass_on_transaction(peer, id, transaction, frame, out).await;
            }
            Call::Statement(id) => {
                ledger::pass_on_statement(node.cluster.peer_up(), id, frame, out).await;
            }
            Call::Story(id) => story::answer(node, id, frame, out).await,
            Call::Settled(after, limit) => admin::settled(node, after, limit, frame, out).await,
            Call::Status => admin::status(node, frame, out).await,
            Call::Resolve(id, asked) => resolution::answer(node, id, asked, frame, out).await,
            Call::Purge { pass_on } => match purge(node, pass_on).await {
                Ok(()) => json(out, frame, 200, b"{\"message\":\"All payments purged.\"}"),
                Err(NotPurged::Refused) => {
                    let reason = "The other instance does not allow a purge: nothing was purged.";
                    error(out, frame, 403, None, reason);
                }
                Err(NotPurged::Unable(reason)) => turn_away(out, frame, &reason),
            },
        }
        Then::Answered
    }
}

/// Offers a payment to its home, and takes it in the home's place if that does not answer. If the
/// home has it all the same, it will say so when the payment is handed over.
async fn offer(node: &Node, id: PaymentId, amount: Cents) -> Accepted {
    if let Some(peer) = node.cluster.peer_up() {
        match peer.offer(id, amount).await {
            Ok(Accepted::Closed) | Err(_) => {}
            Ok(outcome) => {
                let is_new = outcome == Accepted::New;
                node.stats.passed_on.fetch_add(u64::from(is_new), Ordering::Relaxed);
                return outcome;
            }
        }
    }
    accept(node, id, amount)
}

/// What this instance has settled. Just after a start it may have to wait until that is known.
async fn own_totals(node: &Node, window: Window) -> Result<Each<Totals>, NoTotals> {
    loop {
        match node.payments.totals(window) {
            Ok(Some(totals)) => return Ok(totals),
            Ok(None) => monoio::time::sleep(PAST_LOOK_EVERY).await,
            Err(error) => return Err(NoTotals::from(error)),
        }
    }
}

/// Why there are no totals of a window.
enum NoTotals {
    /// It cuts a day of which there are only the totals (`--keep`).
    Archived,
    Unable(PeerError),
}

impl NoTotals {
    fn answer(self, frame: Frame, out: &mut Vec<u8>) {
        match self {
            NoTotals::Archived => error(out, frame, 410, None, ARCHIVED),
            NoTotals::Unable(PeerError(reason)) => turn_away(out, frame, reason),
        }
    }
}

const ARCHIVED: &str = "What was settled then is archived: a window that begins or ends within that time must do so \
     at midnight (UTC).";

impl From<JournalError> for NoTotals {
    fn from(error: JournalError) -> NoTotals {
        match error {
            JournalError::Archived { .. } => NoTotals::Archived,
            error => NoTotals::Unable(unreadable(&error)),
        }
    }
}

impl From<PeerError> for NoTotals {
    fn from(error: PeerError) -> NoTotals {
        NoTotals::Unable(error)
    }
}

/// Says so in the log, too.
fn unreadable(error: &JournalError) -> PeerError {
    log::error!("{error}");
    PeerError("The books of this instance cannot be read: its log says why.")
}

/// Both instances' totals. Our own are taken first: an auditor asks the processors at the same
/// moment, and the less time lies between, the better the answers agree.
async fn summary(node: &Arc<Node>, window: Window) -> Result<ByName<Totals>, NoTotals> {
    if window.is_empty() {
        return Ok(node.by_name_in_window(Each::default()));
    }
    let mut totals = node.by_name_in_window(own_totals(node, window).await?);
    if let Some(peer) = node.cluster.peer() {
        let theirs = peer.totals(window).await?.ok_or(NoTotals::Archived)?;
        let connectors = node.switchboard.current();
        let needed = connectors.order().iter().map(|it| node.names.name_of(*it));
        let theirs = theirs.read(needed).ok_or(BAD_ANSWER)?;
        theirs.0.iter().for_each(|(name, it)| *totals.entry(name) += *it);
    }
    Ok(totals)
}

/// Why nothing was purged here.
enum NotPurged {
    /// The other instance does not allow it.
    Refused,
    Unable(String),
}

/// Forgets all payments, in the other instance first: it may not allow it.
async fn purge(node: &Arc<Node>, pass_on: bool) -> Result<(), NotPurged> {
    let other = node.cluster.peer().filter(|_| pass_on);
    // A purge that is asked for twice does no harm.
    let again = match other.is_some() {
        true => "nothing was purged here, but in the other instance. Try again.",
        false => "nothing was purged.",
    };
    if let Some(peer) = other {
        peer.purge().await.map_err(|error| match error {
            PurgeError::Refused => NotPurged::Refused,
            PurgeError::Unknown => NotPurged::Unable(
                "The other instance has not said whether it has purged; here nothing was. Try again."
                    .into(),
            ),
        })?;
    }
    let reply = Reply::new();
    if !node.control(Control::Purge(reply.clone())) {
        return Err(NotPurged::Unable(format!("Too many purges at once: {again}")));
    }
    if !reply.wait().await {
        return Err(NotPurged::Unable(format!("The disk is full: {again}")));
    }
    let journal = &node.payments.journal;
    journal.wait(journal.appended()).await;
    Ok(())
}

fn summary_body(totals: &ByName<Totals>) -> String {
    let member = |(name, it): &(String, Totals)| {
        let Totals { count, amount } = it;
        format!("\"{name}\":{{\"totalRequests\":{count},\"totalAmount\":{amount}}}")
    };
    format!("{{{}}}", totals.0.iter().map(member).collect::<Vec<_>>().join(","))
}

/// Of a processor that is retired here the other instance may know nothing: it is told of those alone
/// that hold something.
fn totals_message(node: &Node, totals: Each<Totals>) -> TotalsMessage {
    let told = node.by_name_in_window(totals);
    TotalsMessage::new(told.0.iter().map(|(name, it)| (&name[..], *it)))
}

fn json(out: &mut Vec<u8>, frame: Frame, status: u16, body: &[u8]) {
    let Frame { connection, head_only } = frame;
    response::write(out, &Response { head_only, ..Response::json(status, body, connection) });
}

fn message(out: &mut Vec<u8>, frame: Frame, message: &impl serde::Serialize) {
    match sonic_rs::to_vec(message) {
        Ok(body) => json(out, frame, 200, &body),
        Err(_) => error(out, frame, 500, None, "The answer could not be written."),
    }
}

fn error(out: &mut Vec<u8>, frame: Frame, status: u16, extra: Option<Extra>, reason: &str) {
    let Frame { connection, head_only } = frame;
    let body = response::error_body(reason);
    let response = Response { extra, head_only, ..Response::json(status, &body, connection) };
    response::write(out, &response);
}

fn wrong_method(out: &mut Vec<u8>, frame: Frame, allowed: &'static str) {
    let extra = Some(Extra::Allow(allowed));
    error(out, frame, 405, extra, "This method is not allowed at this path.");
}

/// 503: nothing was done, and trying again later may succeed.
pub fn turn_away(out: &mut Vec<u8>, frame: Frame, reason: &str) {
    let extra = Some(Extra::RetryAfter { seconds: RETRY_AFTER_S });
    error(out, frame, 503, extra, reason);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::money::Total;
    use crate::instance::config::tests::config;
    use crate::net::http::request::{self, Parsed};

    #[test]
    fn health_is_good_while_nothing_moves_and_says_so() {
        let node = Node::new(config("").unwrap()).unwrap();
        node.lifecycle.enter(Phase::Serving);
        let health = || {
            let mut scratch = Vec::new();
            let bytes = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
            let Parsed::Complete { request, .. } = request::parse(bytes, &mut scratch) else {
                panic!("not a request");
            };
            let frame = Frame { connection: Connection::KeepAlive, head_only: false };
            let mut out = Vec::new();
            handle(&node, Door::Entry, &request, frame, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (fine, why) = (health(), "a \"reason\"");
        assert!(fine.ends_with(r#"{"status":"ok"}"#), "{fine}");
        node.set_stuck(Some(why));
        let stuck = health();
        assert!(stuck.starts_with("HTTP/1.1 200 "), "{stuck}");
        assert!(stuck.ends_with(r#"{"status":"ok","stuck":"a \"reason\""}"#), "{stuck}");
        assert!(node.metrics().contains("galo_stuck 1\n"));
        node.set_stuck(None);
        assert_eq!(health(), fine);
    }

    #[test]
    fn summaries_are_exact() {
        let totals = |count, cents| Totals { count, amount: Total(cents) };
        let both = |default, fallback| {
            summary_body(&ByName(vec![("default".into(), default), ("fallback".into(), fallback)]))
        };
        let body = both(totals(43_236, 41_554_234_598), totals(0, 0));
        assert_eq!(
            body,
            r#"{"default":{"totalRequests":43236,"totalAmount":415542345.98},"fallback":{"totalRequests":0,"totalAmount":0.00}}"#
        );
        let huge = both(totals(2, 2 * i128::from(i64::MAX)), totals(0, 0));
        assert!(huge.contains("184467440737095516.14"), "{huge}");
    }
}
