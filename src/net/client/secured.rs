//! A connection over TLS: the handshake, and then request after request as without.
//!
//! What is particular: bytes that come while nothing is asked need not be unasked (a server gives
//! tickets and new keys when it likes), the end of a connection is the end of an answer only if the
//! server has said so, and what a server thinks of our certificate it may say after the handshake.

use super::{
    Alarm, Buffers, Desk, Failure, Found, Moment, Parsed, Place, Target, Tls, Wire, clock, response,
};
use crate::net::http::Wait;
use crate::net::tls::Session;
use monoio::io::{
    AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::TcpStream;
use rustix::buffer::spare_capacity;
use rustix::net::{RecvFlags, SendFlags};
use std::future::{Future, poll_fn};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// An answer with its records around it, or a flight of a handshake in a few reads.
const READ_BUFFER: usize = 4 * 1024;
/// So long a new connection waits for what the server thinks of our certificate, if it asked for it.
/// Most say it at once, with the tickets that they give; one that gives none says nothing.
const VERDICT_WITHIN: Duration = Duration::from_millis(250);

/// Makes a connection of a stream: before `connect_by`, its handshake and all.
///
/// # Errors
/// [`Failure::NotSent`], and in the log is why.
pub(super) async fn open(
    tls: &Tls,
    target: &Arc<Target>,
    stream: TcpStream,
    mut place: Place,
    alarm: &Alarm,
    connect_by: Moment,
) -> Result<Wire, Failure> {
    let shaken = alarm.until(connect_by, Secured::shake_hands(tls, stream)).await;
    let secured = match shaken.unwrap_or_else(|| Err("the handshake takes too long".into())) {
        Ok(secured) => secured,
        Err(why) => {
            tls.tell(&target.authority, &why);
            // Another address of the name may do better.
            target.names.put_last(place.address);
            return Err(Failure::NotSent);
        }
    };
    // It may have moved meanwhile.
    if !target.is_at(&mut place) {
        return Err(Failure::NotSent);
    }
    let awaits_verdict = secured.session.awaits_verdict();
    let mut wire = Wire::new(place, |desk| converse(target.clone(), secured, desk));
    if awaits_verdict {
        let verdict_by = connect_by.min(clock::moment() + VERDICT_WITHIN);
        if alarm.until(verdict_by, wire.hears()).await == Some(false) {
            return Err(Failure::NotSent);
        }
    }
    Ok(wire)
}

impl Target {
    fn tell(&self, why: &str) {
        if let Some(tls) = &self.tls {
            tls.tell(&self.authority, why);
        }
    }
}

impl Wire {
    /// Waits until the server has said something that need not be asked for. False if that was the end.
    async fn hears(&mut self) -> bool {
        poll_fn(|context| match (self.go_on(context), self.desk.has_heard.get()) {
            (true, _) => Poll::Ready(false),
            (false, true) => Poll::Ready(true),
            (false, false) => Poll::Pending,
        })
        .await
    }
}

/// A connection whose handshake is done.
struct Secured {
    reader: OwnedReadHalf<TcpStream>,
    writer: OwnedWriteHalf<TcpStream>,
    fd: RawFd,
    session: Session,
    /// What was said last, as it came and as it went.
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// Said before anything was asked.
    unasked: Vec<u8>,
    /// Between a request and its answer.
    is_asking: bool,
}

impl Secured {
    /// # Errors
    /// Why not, in words for the log. The server has been told.
    async fn shake_hands(tls: &Tls, stream: TcpStream) -> Result<Secured, String> {
        let session = tls.begin()?;
        let fd = stream.as_raw_fd();
        let (reader, writer) = stream.into_split();
        let (incoming, outgoing, unasked) = <(Vec<u8>, Vec<u8>, Vec<u8>)>::default();
        let is_asking = false;
        let mut it =
            Secured { reader, writer, fd, session, incoming, outgoing, unasked, is_asking };
        loop {
            it.send().await?;
            if !it.session.is_in_handshake() {
                return Ok(it);
            }
            it.incoming.clear();
            it.incoming.reserve(READ_BUFFER);
            let (read, buffer) = it.reader.read(std::mem::take(&mut it.incoming)).await;
            it.incoming = buffer;
            match read {
                Ok(0) => return Err("it is closed in the middle of the handshake".into()),
                Ok(_) => {}
                Err(error) => return Err(format!("{error}, in the middle of the handshake")),
            }
            if let Err(why) = it.session.take_in(&it.incoming, &mut it.unasked) {
                // The alert, so that the server's owner sees as well what is wrong.
                drop(it.send().await);
                return Err(why);
            }
        }
    }

    /// Sends what TLS has to say of itself.
    async fn send(&mut self) -> Result<(), String> {
        self.outgoing.clear();
        self.session.give_out(&mut self.outgoing);
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let (sent, buffer) = self.writer.write_all(std::mem::take(&mut self.outgoing)).await;
        self.outgoing = buffer;
        sent.map(drop).map_err(|error| format!("{error}, in the middle of the handshake"))
    }

    /// Takes in what came while nothing was asked, and what has come behind that: a read on a ring
    /// would tell of it only a turn later, and the next request must not go out on a connection that
    /// is closed. False if it is of no more use.
    fn take_unasked(&mut self, target: &Target) -> bool {
        loop {
            if let Err(why) = self.session.take_in(&self.incoming, &mut self.unasked) {
                target.tell(&format!("while nothing is asked, {why}"));
            }
            if self.session.is_over() || !self.unasked.is_empty() {
                return false;
            }
            let mut incoming = std::mem::take(&mut self.incoming);
            incoming.clear();
            let free = spare_capacity(&mut incoming);
            let came = rustix::net::recv(self.socket(), free, RecvFlags::DONTWAIT);
            self.incoming = incoming;
            match came {
                Ok((1.., _)) => {}
                Err(rustix::io::Errno::AGAIN) => return true,
                Ok(_) | Err(_) => return false,
            }
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is that of the stream whose halves are fields of `self`, which is
        // borrowed for as long as what is returned; nothing closes a stream before both are gone.
        // monoio lends no descriptor of halves.
        #[allow(unsafe_code)]
        unsafe {
            BorrowedFd::borrow_raw(self.fd)
        }
    }
}

impl Drop for Secured {
    /// Says that no more comes, if that can be said at once.
    fn drop(&mut self) {
        if !self.is_asking && !self.session.is_over() {
            self.outgoing.clear();
            self.session.close(&mut self.outgoing);
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let _ = rustix::net::send(self.socket(), &self.outgoing, flags);
        }
    }
}

/// As [`super::converse`].
async fn converse(target: Arc<Target>, mut it: Secured, desk: Rc<Desk>) {
    while !it.session.is_over() && it.unasked.is_empty() {
        let Some(asked) = it.await_request(&target, &desk).await else { return };
        let Asked { sent, read, mut buffers } = asked;
        let found = match (sent, read) {
            // Not a byte was taken by the kernel.
            (Err(_), _) => Err(Failure::NotSent),
            (Ok(true), Ok(length)) => it.receive(&target, length, &mut buffers).await,
            _ => Err(Failure::Lost),
        };
        let goes_on = found.as_ref().is_ok_and(|found| found.reusable);
        it.is_asking = !goes_on;
        desk.exchanged.set(Some((buffers, found)));
        if !goes_on {
            return;
        }
    }
}

/// A request has been sent, or not.
struct Asked {
    /// Whether all of it was.
    sent: std::io::Result<bool>,
    /// What came next.
    read: std::io::Result<usize>,
    buffers: Buffers,
}

impl Secured {
    /// Takes the next request from the desk, sends it, and reads for the first time. `None` if the
    /// connection comes to its end before.
    async fn await_request(&mut self, target: &Target, desk: &Desk) -> Option<Asked> {
        loop {
            self.incoming.clear();
            self.incoming.reserve(READ_BUFFER);
            let unasked = {
                let mut reading = pin!(self.reader.read(std::mem::take(&mut self.incoming)));
                let asked = poll_fn(|context| match reading.as_mut().poll(context) {
                    Poll::Ready(read) => Poll::Ready(Err(read)),
                    Poll::Pending => {
                        desk.asked.take().map_or(Poll::Pending, |it| Poll::Ready(Ok(it)))
                    }
                });
                match asked.await {
                    Err(unasked) => unasked,
                    Ok(mut buffers) => {
                        self.is_asking = true;
                        desk.has_heard.set(true);
                        buffers.received.clear();
                        self.outgoing.clear();
                        self.session.wrap(&buffers.request, &mut self.outgoing);
                        let length = self.outgoing.len();
                        let sending = self.writer.write(std::mem::take(&mut self.outgoing));
                        // As without TLS.
                        let ((sent, outgoing), (read, incoming)) = if monoio::utils::is_legacy() {
                            (sending.await, reading.await)
                        } else {
                            let read = reading.await;
                            (sending.await, read)
                        };
                        (self.outgoing, self.incoming) = (outgoing, incoming);
                        let sent = sent.map(|sent| sent == length);
                        return Some(Asked { sent, read, buffers });
                    }
                }
            };
            let (read, incoming) = unasked;
            self.incoming = incoming;
            // The end is that of the connection, whether it was said or not.
            if matches!(read, Ok(0) | Err(_)) {
                if self.session.awaits_verdict() && !desk.has_heard.get() {
                    target.tell("it closes after the handshake; it may not like our certificate");
                }
                return None;
            }
            if !self.take_unasked(target) {
                return None;
            }
            desk.has_heard.set(true);
        }
    }

    /// Reads until the answer is whole; `length` bytes of it have come.
    async fn receive(
        &mut self,
        target: &Target,
        mut length: usize,
        buffers: &mut Buffers,
    ) -> Result<Found, Failure> {
        let Buffers { received, decoded, .. } = buffers;
        let mut wait: Option<Wait> = None;
        loop {
            // Of an answer that ends with its connection nobody knows whether it was cut off, unless
            // the server has said that it was all (RFC 8446, 6.1): so the end of the stream ends none.
            if length == 0 {
                log::debug!("{} is cut off in the middle of an answer", target.authority);
                return Err(Failure::Lost);
            }
            let taken = self.session.take_in(&self.incoming, received);
            if !wait.is_some_and(|wait| wait.holds(received)) {
                // What has come whole is good, whatever comes behind it.
                match response::parse(received, false, decoded) {
                    Parsed::Complete { answer, .. } => return Ok(Found::new(&answer, received)),
                    Parsed::Invalid(fault) => return Err(target.no_answer(fault)),
                    Parsed::Partial(until) => wait = Some(until),
                }
            }
            if self.session.is_closed() {
                return match response::parse(received, true, decoded) {
                    Parsed::Complete { answer, .. } => Ok(Found::new(&answer, received)),
                    Parsed::Invalid(fault) => Err(target.no_answer(fault)),
                    // Of what has ended no more is waited for.
                    Parsed::Partial(_) => Err(Failure::Lost),
                };
            }
            if let Err(why) = taken {
                target.tell(&format!("after a request was sent, {why}"));
                return Err(Failure::Lost);
            }
            self.incoming.clear();
            self.incoming.reserve(READ_BUFFER);
            let (read, buffer) = self.reader.read(std::mem::take(&mut self.incoming)).await;
            self.incoming = buffer;
            length = read.map_err(|_| Failure::Lost)?;
        }
    }
}

#[cfg(test)]
mod tests;
