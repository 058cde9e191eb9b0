//! The demo's own door: its page, what the page shows, and what its buttons ask for.
//!
//! On a loopback address, open with the token that the printed address ends with. A page of another
//! site does not know that token and may not send the header that it comes in; that it is asked from
//! where it was served is looked at besides.

use super::board::{Board, Story};
use super::client::{Call, Client};
use super::crew::{Act, Crew};
use super::load::Load;
use super::referee::Referee;
use super::stages::{fails, well};
use super::status::Document;
use super::system::Places;
use crate::base::clock;
use crate::instance::api::Frame;
use crate::instance::api::page::{self, Page};
use crate::instance::tokens::{bearer, is_same};
use crate::net::http::Connection;
use crate::net::http::request::{self, Method, Parsed, Request};
use crate::net::http::response::{self, Extra, Response};
use crate::net::timeouts::Alarm;
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::Duration;

/// What the demo adds to the page.
pub const MORE: &str = include_str!("more.html");

const CONNECTIONS_MAX: usize = 32;
/// For the next request, for the rest of one, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(20);
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const READ_SIZE: usize = 4 * 1024;

/// See the module.
pub struct Door {
    pub places: Places,
    pub token: String,
    pub crew: Rc<Crew>,
    pub board: Rc<Board>,
    pub load: Rc<Load>,
}

/// A status, and JSON.
type Answer = (u16, Vec<u8>);

fn refusal(status: u16, reason: &str) -> Answer {
    (status, response::error_body(reason))
}

impl Door {
    /// Takes connections for as long as the demo runs.
    pub async fn serve(self: Rc<Self>, listener: TcpListener) {
        // Every open connection holds one more count of this.
        let open = Rc::new(());
        loop {
            match listener.accept().await {
                // Dropped.
                Ok(_) if Rc::strong_count(&open) > CONNECTIONS_MAX => {}
                Ok((mut stream, _)) => {
                    let (door, open) = (self.clone(), open.clone());
                    monoio::spawn(async move {
                        door.converse(&mut stream).await;
                        // monoio accepts without CLOEXEC: an instance that was started meanwhile
                        // has inherited the connection, and would keep it open.
                        let _ = stream.shutdown().await;
                        drop(open);
                    });
                }
                Err(_) => monoio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn converse(&self, stream: &mut TcpStream) -> Option<()> {
        let (alarm, mut received, mut scratch) = (Alarm::new(), Vec::new(), Vec::new());
        let mut deadline = clock::moment() + PATIENCE;
        loop {
            let mut out = Vec::new();
            let (used, is_last) = match request::parse(&received, &mut scratch) {
                Parsed::Complete { request, consumed } => {
                    self.answer(&request, &mut out).await;
                    (consumed, request.connection() == Connection::Close)
                }
                Parsed::Invalid(reject) => {
                    response::write_reject(&mut out, reject);
                    (0, true)
                }
                Parsed::Partial(_) => {
                    let read = stream.read(Vec::with_capacity(READ_SIZE));
                    let (result, bytes) = alarm.until(deadline, read).await?;
                    result.ok().filter(|length| *length > 0)?;
                    received.extend_from_slice(&bytes);
                    continue;
                }
            };
            received.drain(..used);
            deadline = clock::moment() + PATIENCE;
            let (result, _) = alarm.until(deadline, stream.write_all(out)).await?;
            result.ok().filter(|_| !is_last)?;
        }
    }

    async fn answer(&self, request: &Request<'_>, out: &mut Vec<u8>) {
        static OWN: OnceLock<Page> = OnceLock::new();
        let head_only = request.method == Method::Head;
        let frame = Frame { connection: request.connection(), head_only };
        let reads = head_only || request.method == Method::Get;
        if request.path == b"/" && reads {
            return page::write(OWN.get_or_init(|| Page::with(MORE)), frame, out);
        }
        let is_authorized = bearer(request).is_some_and(|it| is_same(self.token.as_bytes(), it));
        let (status, body) = match request.path {
            _ if !is_authorized => refusal(401, "The token is missing or wrong."),
            _ if !self.is_from_here(request) => refusal(403, "That page is somebody else's."),
            b"/status.json" if reads => self.status().await,
            path if path.starts_with(b"/payments/") && reads => self.pass_on(path).await,
            path => match (path.strip_prefix(b"/do/"), request.method) {
                (Some(name), Method::Post) => self.perform(name).await,
                (Some(_), _) => refusal(405, "It takes a POST."),
                (None, _) => refusal(404, "There is nothing at this path."),
            },
        };
        let extra = match status {
            401 => Some(Extra::Authenticate),
            405 => Some(Extra::Allow("POST")),
            _ => None,
        };
        let json = Response::json(status, &body, frame.connection);
        response::write(out, &Response { extra, head_only, ..json });
    }

    /// Whether it is asked by the name that was printed, or a page that came from here.
    fn is_from_here(&self, request: &Request<'_>) -> bool {
        let port = self.places.page.port();
        let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let is_ours = |it: &[u8]| names.iter().any(|name| name.as_bytes() == it);
        request.header("host").is_some_and(is_ours)
            && request
                .header("origin")
                .is_none_or(|it| it.strip_prefix(b"http://").is_some_and(is_ours))
    }

    /// What both instances say of themselves, with the demo's own.
    async fn status(&self) -> Answer {
        let mut client = Client::with_token(self.places.admins[0], &self.token);
        let Some(mut document) = ask(&mut client).await else {
            return refusal(503, "Instance 1 does not answer.");
        };
        document.demo = Some(self.board.show(&self.crew));
        match sonic_rs::to_vec(&document) {
            Ok(body) => (200, body),
            Err(_) => refusal(500, "The answer could not be written."),
        }
    }

    async fn pass_on(&self, path: &[u8]) -> Answer {
        let mut client = Client::with_token(self.places.admins[0], &self.token);
        let path = String::from_utf8_lossy(path);
        match client.call(Call { method: "GET", path: &path, body: "" }).await {
            Some(reply) => (reply.status, reply.body),
            None => refusal(503, "Instance 1 does not answer."),
        }
    }

    /// A button was pressed: the story stops, and it is done.
    async fn perform(&self, name: &[u8]) -> Answer {
        if self.board.story() == Story::None {
            return refusal(409, "It is a contest, or over: nothing is done to it.");
        }
        let [_, fallback] = self.crew.conditions();
        let (act, done) = match name {
            b"fail" => (Act::Set([fails(0), fallback]), "Default fails from now on."),
            b"slow" => (Act::Set([well(500), fallback]), "Default takes 500 ms from now on."),
            b"heal" => (Act::Set([well(0), fallback]), "Default is well again."),
            b"kill" => (Act::Kill, "Instance 2 has been killed."),
            b"start" => (Act::Start, "Instance 2 has been started again."),
            b"cut" => (Act::Cut, "The instances do not hear each other from now on."),
            b"join" => (Act::Join, "The instances hear each other again."),
            b"pause" => {
                self.board.set_story(Story::Paused);
                return done("The story has stopped.");
            }
            b"play" => {
                self.board.set_story(Story::Playing);
                return done("All is made well, and the story begins.");
            }
            _ => return refusal(404, "There is no such button."),
        };
        self.board.set_story(Story::Paused);
        let Places { processors, entry, .. } = self.places;
        let mut referee = Referee::new(self.load.clone(), processors, entry);
        match self.crew.perform(act, &mut referee).await {
            Ok(()) => {
                self.board.tell(&format!("At the page: {done}"));
                self::done(done)
            }
            Err(reason) => refusal(409, &reason),
        }
    }
}

fn done(text: &str) -> Answer {
    (200, format!("{{\"done\":\"{text}\"}}").into_bytes())
}

/// What an admin door says of both instances, if it answers.
pub async fn ask(client: &mut Client) -> Option<Document> {
    let call = Call { method: "GET", path: "/status.json", body: "" };
    let reply = client.call(call).await.filter(|reply| reply.status == 200)?;
    Document::read(&reply.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_demo_adds_is_small_and_stands_alone() {
        assert!(MORE.len() <= 10 * 1024, "{} bytes", MORE.len());
        assert!(!MORE.contains("http"), "an address that is not its own");
        let page = Page::with(MORE);
        assert_eq!(page.policy.matches("'sha256-").count(), 4, "{}", page.policy);
        assert!(page.text.contains("id=\"demo\""));
    }
}
