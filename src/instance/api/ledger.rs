//! The URLs of the ledger: transactions and statements, at both doors.
//!
//! An account that does not exist is 404 before anything else is looked at. One whose home is the
//! other instance is asked for there; whatever that answers is passed on as it came.

use super::{Call, Frame, Then, error, json, turn_away, wrong_method};
use crate::base::clock::{self, Moment};
use crate::cluster::peer::{Peer, Unanswered};
use crate::instance::node::Node;
use crate::ledger::book::{Outcome, Ticket};
use crate::ledger::{AccountId, Key, Transaction, contract};
use crate::net::http::request::{Method, Request};
use std::sync::atomic::Ordering;

/// What there is under an account.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resource {
    Transactions,
    Statement,
}

/// `path`: what is behind `/clientes/`.
pub fn handle_entry(
    node: &Node,
    path: &[u8],
    request: &Request<'_>,
    frame: Frame,
    out: &mut Vec<u8>,
) -> Then {
    use Method::{Get, Head, Post};
    let Some((id, resource)) = resource(path) else {
        error(out, frame, 404, None, "There is nothing at this path.");
        return Then::Answered;
    };
    let Some(id) = AccountId::parse(id).filter(|id| node.accounts.ledger.has(*id)) else {
        return no_such_account(frame, out);
    };
    match (resource, request.method) {
        (Resource::Transactions, Post) => match contract::read(request.body) {
            Ok(transaction) if node.cluster.keeps(id.0.into()) => {
                return transact(node, id, transaction, None, frame, out);
            }
            // Not begun any more: nobody would wait for its answer.
            Ok(_) if !node.lifecycle.takes_work() => turn_away(out, frame, CLOSED),
            Ok(transaction) => return Then::Call(Call::Transact(id, transaction)),
            Err(reason) => {
                node.stats.transactions_refused.fetch_add(1, Ordering::Relaxed);
                error(out, frame, 422, None, reason);
            }
        },
        (Resource::Statement, Get | Head) if node.cluster.keeps(id.0.into()) => {
            return statement(node, id, frame, out);
        }
        (Resource::Statement, Get | Head) => return Then::Call(Call::Statement(id)),
        (Resource::Transactions, _) => wrong_method(out, frame, "POST"),
        (Resource::Statement, _) => wrong_method(out, frame, "GET, HEAD"),
    }
    Then::Answered
}

fn resource(path: &[u8]) -> Option<(&[u8], Resource)> {
    let slash = path.iter().position(|byte| *byte == b'/')?;
    match &path[slash..] {
        b"/transacoes" => Some((&path[..slash], Resource::Transactions)),
        b"/extrato" => Some((&path[..slash], Resource::Statement)),
        _ => None,
    }
}

/// What the other instance asks about an account whose home we are. `id`: what is behind
/// `/peer/accounts/`.
pub fn handle_peer(
    node: &Node,
    id: &[u8],
    request: &Request<'_>,
    frame: Frame,
    out: &mut Vec<u8>,
) -> Then {
    let home = |id: &AccountId| node.accounts.ledger.has(*id) && node.cluster.keeps(id.0.into());
    let Some(id) = AccountId::parse(id).filter(home) else {
        return no_such_account(frame, out);
    };
    match request.method {
        Method::Post => match (read_ticket(request.query), contract::read(request.body)) {
            (Some((process, ticket)), Ok(transaction)) if process == node.cluster.process() => {
                transact(node, id, transaction, Some(ticket), frame, out)
            }
            // It was meant for the process before this one, which may have carried it out.
            (Some((_, ticket)), Ok(_)) => {
                let outcome = node.accounts.ledger.recall(ticket.key, clock::moment());
                answer_transaction(node, outcome, frame, out)
            }
            _ => {
                error(out, frame, 400, None, "This is not a transaction.");
                Then::Answered
            }
        },
        Method::Get => statement(node, id, frame, out),
        _ => {
            wrong_method(out, frame, "GET, POST");
            Then::Answered
        }
    }
}

/// `key=…&process=…&expires=…`: of which transaction, meant for which process, and until when (µs
/// of that one's clock).
fn read_ticket(query: Option<&[u8]>) -> Option<(u64, Ticket)> {
    let query = std::str::from_utf8(query?).ok()?;
    let (key, rest) = query.strip_prefix("key=")?.split_once("&process=")?;
    let (process, expires) = rest.split_once("&expires=")?;
    let key = u128::from_str_radix(key, 16).ok().filter(|key| *key != 0)?;
    let ticket = Ticket { key: Key(key), expires: Moment(expires.parse().ok()?) };
    Some((u64::from_str_radix(process, 16).ok()?, ticket))
}

fn transact(
    node: &Node,
    id: AccountId,
    transaction: Transaction,
    ticket: Option<Ticket>,
    frame: Frame,
    out: &mut Vec<u8>,
) -> Then {
    let outcome = node.accounts.transact(id, transaction, ticket);
    let counter = match outcome {
        Outcome::Done { .. } => &node.stats.transactions,
        Outcome::BelowLimit | Outcome::OutOfRange => &node.stats.transactions_refused,
        _ => &node.stats.transactions_turned_away,
    };
    counter.fetch_add(1, Ordering::Relaxed);
    answer_transaction(node, outcome, frame, out)
}

fn answer_transaction(node: &Node, outcome: Outcome, frame: Frame, out: &mut Vec<u8>) -> Then {
    match outcome {
        Outcome::Done { limit, balance } => {
            let mut body = Vec::with_capacity(64);
            contract::write_balance(&mut body, limit, balance);
            json(out, frame, 200, &body);
        }
        Outcome::BelowLimit => error(out, frame, 422, None, "The limit does not allow this."),
        Outcome::OutOfRange => error(out, frame, 422, None, "The balance would be too large."),
        Outcome::Unknown => return no_such_account(frame, out),
        Outcome::Expired => return outdated(frame, out),
        Outcome::Busy => turn_away(out, frame, "The other instance passes on too much at once."),
        Outcome::DiskFull => turn_away(out, frame, node.accounts.journal.lack().sentence()),
        Outcome::Closed => turn_away(out, frame, CLOSED),
    }
    as_safe_as_shown(node)
}

fn statement(node: &Node, id: AccountId, frame: Frame, out: &mut Vec<u8>) -> Then {
    let now = clock::now_micros();
    let mut body = Vec::with_capacity(1536);
    let shown = node.accounts.ledger.show(id, |limit, history| {
        contract::write_statement(&mut body, limit, history, now);
    });
    if shown.is_none() {
        return no_such_account(frame, out);
    }
    node.stats.statements.fetch_add(1, Ordering::Relaxed);
    json(out, frame, 200, &body);
    as_safe_as_shown(node)
}

/// An answer may rest on entries of others that are on their way to the disk still: shown to
/// somebody, they must not be lost, a refusal's reasons no less than a balance.
fn as_safe_as_shown(node: &Node) -> Then {
    let journal = &node.accounts.journal;
    if journal.is_durable(journal.appended()) { Then::Answered } else { Then::Promised }
}

fn no_such_account(frame: Frame, out: &mut Vec<u8>) -> Then {
    error(out, frame, 404, None, "There is no such account.");
    Then::Answered
}

fn outdated(frame: Frame, out: &mut Vec<u8>) -> Then {
    error(out, frame, 410, None, "This came too late, and was not carried out.");
    Then::Answered
}

/// Has the home carry a transaction out, and passes its answer on.
pub async fn pass_on_transaction(
    peer: Option<&Peer>,
    id: AccountId,
    transaction: Transaction,
    frame: Frame,
    out: &mut Vec<u8>,
) {
    let answer = match peer {
        Some(peer) => peer.transact(id, transaction).await,
        None => Err(Unanswered::Away),
    };
    match answer {
        Ok((status, body)) => json(out, frame, status, &body),
        Err(Unanswered::Away) => turn_away(out, frame, AWAY),
        Err(Unanswered::Unknown) => {
            let reason = "The instance that keeps this account has not answered. The transaction \
                          may have been carried out: look at the statement before trying again.";
            error(out, frame, 504, None, reason);
        }
    }
}

/// Asks the home for a statement, and passes its answer on.
pub async fn pass_on_statement(
    peer: Option<&Peer>,
    id: AccountId,
    frame: Frame,
    out: &mut Vec<u8>,
) {
    let answer = match peer {
        Some(peer) => peer.statement(id).await,
        None => None,
    };
    match answer {
        Some((status, body)) => json(out, frame, status, &body),
        None => turn_away(out, frame, AWAY),
    }
}

const CLOSED: &str = "This instance is starting or stopping.";
const AWAY: &str = "The instance that keeps this account is away; try again.";
