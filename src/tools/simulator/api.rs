//! What each call does: the endpoints of the original, in its order of events, and the faults.
//!
//! The order for a payment is limiter, parsing, delay, failure switch, insert. Once the limiter has
//! admitted a payment its work goes on whatever becomes of the client; a client that leaves while
//! it waits in line is taken out of it, and nothing is booked.

use super::answer::{Answer, write_booking};
use super::books::{BookError, Booking, Books};
use super::connection::{Call, Connection, Incoming};
use super::faults::{Fault, Faults};
use super::limits::{Concurrency, Database, Entry, Permit, Ticket, WindowEntry, Windows};
use super::script::{Script, Scripted, ScriptedCall};
use super::units::MicroTimestamp;
use crate::base::clock::{self, Moment};
use crate::base::json;
use crate::base::money::Cents;
use crate::base::money::Fee;
use crate::payments::PaymentId;
use serde::Deserialize;
use sonic_rs::LazyValue;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// Requests served at once and waiting, over `POST /payments` and `GET /payments/{id}` together.
pub const RUNNING_MAX: usize = 800;
pub const WAITING_MAX: usize = 500;

/// One call of the health endpoint per window, and so many more wait for the next windows.
const HEALTH_WINDOW: Duration = Duration::from_secs(5);
const HEALTH_WAITING_MAX: usize = 2;

/// One simulated processor. Shared by the tasks of one thread; no borrow is held over an await.
pub struct Processor {
    pub fee: Fee,
    pub books: Rc<RefCell<Books>>,
    pub settings: RefCell<Settings>,
    pub concurrency: Concurrency,
    pub health: RefCell<Windows>,
    database: RefCell<Database>,
}

/// What the admin calls change.
pub struct Settings {
    pub token: String,
    pub delay_ms: u64,
    pub failing: bool,
    pub faults: Faults,
    pub script: Script,
}

/// What a call ends in.
enum Reply {
    Answer(Answer),
    /// Answer, and close although the client would go on.
    LastAnswer(Answer),
    /// As the script says; nothing follows if it is cut off.
    Bytes {
        bytes: Vec<u8>,
        is_cut: bool,
    },
    /// No answer while the connection stays open. A stuck request keeps its place in the limiter.
    Silence(Permit),
    Reset,
    /// The client has gone; there is nobody to answer.
    Nobody,
}

impl Processor {
    pub fn new(fee: Fee, service_time: Duration, db_connections: usize, token: String) -> Self {
        Processor {
            fee,
            books: Rc::default(),
            settings: RefCell::new(Settings {
                token,
                delay_ms: 0,
                failing: false,
                faults: Faults::default(),
                script: Script::default(),
            }),
            concurrency: Concurrency::new(RUNNING_MAX, WAITING_MAX),
            health: RefCell::new(Windows::new(HEALTH_WINDOW, HEALTH_WAITING_MAX)),
            database: RefCell::new(Database::new(db_connections, service_time)),
        }
    }

    /// Serves one connection until it ends.
    pub async fn serve(self: Rc<Self>, mut connection: Connection) {
        loop {
            let call = match connection.receive().await {
                Incoming::Call(call) => call,
                Incoming::Refused(status) => {
                    let _ = connection.send(Answer::empty(status), false).await;
                    break;
                }
                Incoming::Gone => break,
            };
            let (answer, keep_alive) = match self.reply(&mut connection, &call).await {
                Reply::Answer(answer) => (answer, call.keep_alive()),
                Reply::LastAnswer(answer) => (answer, false),
                Reply::Bytes { bytes, is_cut } => match connection.send_bytes(bytes).await {
                    Ok(()) if !is_cut && call.keep_alive() => continue,
                    Ok(()) => break,
                    Err(_) => return connection.reset(),
                },
                Reply::Silence(_permit) => {
                    connection.until_client_leaves().await;
                    break;
                }
                Reply::Reset => return connection.reset(),
                Reply::Nobody => break,
            };
            match connection.send(answer, keep_alive).await {
                Ok(()) if keep_alive => {}
                Ok(()) => break,
                // Half an answer must not look like a whole one.
                Err(_) => return connection.reset(),
            }
        }
        connection.finish().await;
    }

    async fn reply(self: &Rc<Self>, connection: &mut Connection, call: &Call) -> Reply {
        match (call.method(), call.path()) {
            ("POST", "/payments") => self.pay(connection, call).await,
            ("GET", "/payments/service-health") => self.tell_health(connection).await,
            (_, path) if path.starts_with("/admin/") => Reply::Answer(self.administer(call)),
            ("GET", path) => match path.strip_prefix("/payments/") {
                Some(id) => self.find(connection, id).await,
                None => Reply::Answer(Answer::empty(404)),
            },
            _ => Reply::Answer(Answer::empty(404)),
        }
    }

    /// `POST /payments`
    async fn pay(self: &Rc<Self>, connection: &mut Connection, call: &Call) -> Reply {
        let permit = match self.admit(connection).await {
            Ok(permit) => permit,
            Err(reply) => return reply,
        };
        let Some(booking) = parse_payment(&call.body) else {
            return Reply::Answer(Answer::empty(400));
        };
        let scripted = self.scripted(ScriptedCall::Pay, &booking.id.to_string());
        if let Some(scripted) = scripted {
            if scripted.booked {
                self.insert(booking).await;
            }
            return self.play(scripted).await;
        }
        let fault = self.settings.borrow_mut().faults.next();
        if let Some((Fault::Status429, _)) = fault {
            return Reply::Answer(Answer::too_many());
        }
        let delay = Duration::from_millis(self.settings.borrow().delay_ms);
        sleep_until(clock::moment() + delay).await;
        match fault {
            Some((fault, lateness)) => self.misbehave(fault, lateness, permit, booking).await,
            None if self.settings.borrow().failing => Reply::Answer(Answer::empty(500)),
            None => Reply::Answer(self.insert(booking).await),
        }
    }

    fn scripted(&self, call: ScriptedCall, id: &str) -> Option<Scripted> {
        self.settings.borrow_mut().script.next(call, id)
    }

    async fn play(&self, scripted: Scripted) -> Reply {
        sleep_until(clock::moment() + scripted.delay).await;
        match scripted.answer {
            Some(bytes) => Reply::Bytes { bytes, is_cut: scripted.is_cut },
            None => Reply::Reset,
        }
    }

    /// What is left of a payment's way when a fault is due.
    async fn misbehave(
        self: &Rc<Self>,
        fault: Fault,
        lateness: Duration,
        permit: Permit,
        booking: Booking,
    ) -> Reply {
        let database_failed = || Answer::message(500, "database error");
        match fault {
            Fault::HangAfterInsert => {
                self.insert(booking).await;
                Reply::Silence(permit)
            }
            Fault::Stall => Reply::Silence(permit),
            Fault::ResetBeforeInsert => Reply::Reset,
            Fault::ResetAfterInsert => {
                self.insert(booking).await;
                Reply::Reset
            }
            Fault::InsertLate => {
                let late = clock::moment() + lateness;
                let processor = self.clone();
                monoio::spawn(async move {
                    sleep_until(late).await;
                    processor.insert(booking).await;
                });
                Reply::Reset
            }
            Fault::CloseAfterAnswer => Reply::LastAnswer(self.insert(booking).await),
            Fault::Status500BodyInserted => {
                self.insert(booking).await;
                Reply::Answer(database_failed())
            }
            Fault::Status500Body => Reply::Answer(database_failed()),
            Fault::Status429 => Reply::Answer(Answer::too_many()),
        }
    }

    /// Books a payment when a connection to the database has served it.
    async fn insert(&self, booking: Booking) -> Answer {
        let done = self.database.borrow_mut().serve(clock::moment());
        sleep_until(done).await;
        match self.books.borrow_mut().book(booking) {
            Ok(()) => Answer::message(200, "payment processed successfully"),
            Err(BookError::Repeat) => Answer::message(422, "CorrelationId already exists"),
            Err(BookError::Full) => Answer::message(500, "the simulated database is full"),
        }
    }

    /// `GET /payments/{id}`. Neither delayed nor failing, as in the original.
    async fn find(&self, connection: &mut Connection, id: &str) -> Reply {
        let _permit = match self.admit(connection).await {
            Ok(permit) => permit,
            Err(reply) => return reply,
        };
        let scripted = self.scripted(ScriptedCall::Look, id);
        if let Some(scripted) = scripted {
            return self.play(scripted).await;
        }
        let found = PaymentId::parse(id.as_bytes()).and_then(|id| self.books.borrow().find(id));
        Reply::Answer(match found {
            Some(booking) => {
                let mut document = String::new();
                // The original's column has no zone, and so has what it answers here.
                write_booking(&mut document, &booking, "");
                Answer::json(200, document)
            }
            None => Answer::empty(404),
        })
    }

    /// Passes the concurrency limiter, or says why not.
    async fn admit(&self, connection: &mut Connection) -> Result<Permit, Reply> {
        match self.concurrency.enter() {
            Entry::Admitted(permit) => Ok(permit),
            Entry::Waiting(turn) => {
                connection.unless_client_leaves(turn).await.ok_or(Reply::Nobody)
            }
            Entry::Refused => Err(Reply::Answer(Answer::too_many())),
        }
    }

    /// `GET /payments/service-health`
    async fn tell_health(&self, connection: &mut Connection) -> Reply {
        let entry = self.health.borrow_mut().enter(clock::moment());
        match entry {
            WindowEntry::Admitted => {}
            WindowEntry::Refused => return Reply::Answer(Answer::too_many()),
            WindowEntry::Waiting(ticket) => {
                let turn = HealthTurn { health: &self.health, ticket };
                if connection.unless_client_leaves(turn.wait()).await.is_none() {
                    return Reply::Nobody;
                }
            }
        }
        let scripted = self.scripted(ScriptedCall::Health, "");
        if let Some(scripted) = scripted {
            return self.play(scripted).await;
        }
        let Settings { failing, delay_ms, .. } = *self.settings.borrow();
        let document = format!(r#"{{"failing":{failing},"minResponseTime":{delay_ms}}}"#);
        Reply::Answer(Answer::json(200, document))
    }
}

/// A place in the health endpoint's line, given up when dropped.
struct HealthTurn<'a> {
    health: &'a RefCell<Windows>,
    ticket: Ticket,
}

impl HealthTurn<'_> {
    async fn wait(self) {
        loop {
            let turn = self.health.borrow_mut().turn(self.ticket, clock::moment());
            match turn {
                Ok(()) => return,
                Err(next_window) => sleep_until(next_window).await,
            }
        }
    }
}

impl Drop for HealthTurn<'_> {
    fn drop(&mut self) {
        self.health.borrow_mut().abandon(self.ticket);
    }
}

/// Never early, and late by up to the millisecond that is the grain of monoio's timers.
async fn sleep_until(moment: Moment) {
    let left = moment.since(clock::moment());
    if !left.is_zero() {
        monoio::time::sleep(left).await;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PaymentDocument<'a> {
    #[serde(borrow)]
    correlation_id: Cow<'a, str>,
    /// As it was sent: a float could not be rounded half to even as the original's decimal is.
    #[serde(borrow)]
    amount: LazyValue<'a>,
    #[serde(borrow)]
    requested_at: Cow<'a, str>,
}

fn parse_payment(body: &[u8]) -> Option<Booking> {
    let document: PaymentDocument = json::read_object(body).ok()?;
    Some(Booking {
        id: PaymentId::parse(document.correlation_id.as_bytes())?,
        amount: Cents::parse(document.amount.as_raw_str().as_bytes()).ok()?,
        requested_at: MicroTimestamp::parse(document.requested_at.as_bytes())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_payments_and_nothing_else() {
        let id = r#""correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3""#;
        let at = r#""requestedAt":"1970-01-01T00:00:00.000002Z""#;
        let good = [
            format!(r#"{{{id},"amount":19.90,{at}}}"#),
            format!("\t{{\"amount\": 1990e-2 ,{at},{id}}}\r\n"),
            format!(r#"{{{id},"more":[{{}}],"amount":19.904,{at}}}"#),
        ];
        for text in good {
            let booking = parse_payment(text.as_bytes()).expect(&text);
            assert_eq!((booking.amount, booking.requested_at), (Cents(1990), MicroTimestamp(2)));
            assert_eq!(booking.id.to_string(), "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3");
        }
        let bad = [
            String::new(),
            "{}".into(),
            "[]".into(),
            format!(r#"{{{id},"amount":19.90}}"#),
            format!(r#"{{{id},{at}}}"#),
            format!(r#"{{"amount":19.90,{at}}}"#),
            format!(r#"{{{id},"amount":"19.90",{at}}}"#),
            format!(r#"{{{id},"amount":null,{at}}}"#),
            format!(r#"{{{id},"amount":19.90,"requestedAt":"yesterday"}}"#),
            format!(r#"{{"correlationId":"1","amount":19.90,{at}}}"#),
            format!(r#"{{{id},"amount":19.90,{at}"#),
            format!(r#"{{{id},"amount":19.90,{at}}}x"#),
            format!(r#"{{{id},{id},"amount":19.90,{at}}}"#),
        ];
        for text in bad {
            assert_eq!(parse_payment(text.as_bytes()), None, "{text}");
        }
        // Deep enough to overflow the stack, if it were parsed.
        let nested = [br#"{"more":"#.as_slice(), &[b'['; 4096]];
        assert_eq!(parse_payment(&nested.concat()), None);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(body: Vec<u8>) {
            let _ = parse_payment(&body);
        }
    }
}
