//! One connection to the other instance that carries many requests at a time, in order.
//!
//! For what is asked for with every request of a client: all that comes up in a turn of the event
//! loop goes out in one write, and so do, on the other side, the answers. Silence, an error or an
//! answer past reading closes the connection, and whoever waits learns whether the request may have
//! been carried out. The next request opens another one.

use crate::base::clock::{self, Moment};
use crate::net::client::{Place, Target};
use crate::net::http::response::{self, Parsed};
use monoio::io::{
    CancelableAsyncReadRent, CancelableAsyncWriteRent, Canceller, OwnedReadHalf, OwnedWriteHalf,
    Splitable,
};
use monoio::net::TcpStream;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Requests on their way at once; more are refused unsent.
const WAITING_MAX: usize = 4_096;
const READ_BUFFER: usize = 16 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);
/// Status and body of an answer.
pub type Reply = (u16, Vec<u8>);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unheard {
    pub reason: Reason,
    /// Whether a byte of the request may have gone out: then it may be carried out.
    pub sent: bool,
}

/// See [`Unheard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many wait already.
    Full,
    /// No connection could be made.
    Unreachable,
    /// The other side has not answered anybody for so long.
    Silent,
    /// The connection has ended, or the time was too short. A new one may be answered at once.
    Lost,
}

/// See the module. One a thread.
pub struct Pipe {
    target: Arc<Target>,
    silence_max: Duration,
    connection: RefCell<Option<Rc<Connection>>>,
}

/// One connection, from its first request to its end.
#[derive(Default)]
struct Connection {
    state: RefCell<State>,
    canceller: RefCell<Canceller>,
}

#[derive(Default)]
struct State {
    closed: bool,
    /// Requests not given to the kernel yet: the last `unsent` of those waiting.
    out: Vec<u8>,
    unsent: usize,
    /// In the order in which the answers will come.
    waiting: VecDeque<Rc<Slot>>,
    writer: Option<Waker>,
    /// Where it leads to, once it is open.
    place: Option<Place>,
}

/// Where an answer is put down for whoever waits for it, if anybody does still.
struct Slot {
    since: Moment,
    reply: RefCell<Option<Result<Reply, Unheard>>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    fn fill(&self, reply: Result<Reply, Unheard>) {
        *self.reply.borrow_mut() = Some(reply);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Pipe {
    /// `silence_max`: a connection whose oldest request has no answer after so long is given up.
    pub fn new(target: Arc<Target>, silence_max: Duration) -> Pipe {
        Pipe { target, silence_max, connection: RefCell::default() }
    }

    /// Sends the request that `write` puts into the buffer (it is given the `Host` to name), with
    /// whatever else is asked in this turn, and waits for its answer until `time` is over.
    ///
    /// # Errors
    /// See [`Unheard`].
    pub async fn ask(
        &self,
        time: Duration,
        write: impl FnOnce(&mut Vec<u8>, &str),
    ) -> Result<Reply, Unheard> {
        let connection = self.connection();
        let since = clock::moment();
        let slot = Rc::new(Slot { since, reply: RefCell::default(), waker: RefCell::default() });
        {
            let state = &mut *connection.state.borrow_mut();
            if state.waiting.len() >= WAITING_MAX {
                return Err(Unheard { reason: Reason::Full, sent: false });
            }
            write(&mut state.out, self.target.authority());
            state.unsent += 1;
            state.waiting.push_back(slot.clone());
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
        }
        let answered = poll_fn(|context| match slot.reply.borrow_mut().take() {
            Some(reply) => Poll::Ready(reply),
            None => {
                *slot.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        });
        if let Ok(reply) = monoio::time::timeout(time, answered).await {
            return reply;
        }
        let is_silent = connection.is_silent_for(self.silence_max);
        if is_silent {
            connection.close(Reason::Silent);
        }
        let reason = if is_silent { Reason::Silent } else { Reason::Lost };
        match slot.reply.borrow_mut().take() {
            Some(Err(Unheard { sent, .. })) => Err(Unheard { reason, sent }),
            Some(reply) => reply,
            // It stays in its place: what is not sent yet may be.
            None => Err(Unheard { reason, sent: true }),
        }
    }

    /// The open connection, or a new one.
    fn connection(&self) -> Rc<Connection> {
        let current = &mut *self.connection.borrow_mut();
        if let Some(open) = current {
            // Its oldest request had little time, and has been given up since: by now everybody who
            // could have seen that has had his time.
            if open.is_silent_for(self.silence_max * 3 / 2) {
                open.close(Reason::Silent);
            }
            // Who sits there now is not the one that the name stands for.
            let has_moved = {
                let place = &mut open.state.borrow_mut().place;
                place.as_mut().is_some_and(|place| !self.target.is_at(place))
            };
            if has_moved {
                open.close(Reason::Lost);
            }
            if !open.state.borrow().closed {
                return open.clone();
            }
        }
        let connection = Rc::<Connection>::default();
        monoio::spawn(connection.clone().run(self.target.clone()));
        *current = Some(connection.clone());
        connection
    }
}

impl Connection {
    async fn run(self: Rc<Self>, target: Arc<Target>) {
        let connecting = monoio::time::timeout(CONNECT_TIMEOUT, target.connect());
        if let Ok(Some((stream, place))) = connecting.await {
            self.state.borrow_mut().place = Some(place);
            let (reader, writer) = stream.into_split();
            monoio::spawn(self.clone().read(reader));
            self.write(writer).await;
            self.close(Reason::Lost);
        } else {
            self.close(Reason::Unreachable);
        }
    }

    fn is_silent_for(&self, time: Duration) -> bool {
        let oldest = self.state.borrow().waiting.front().map(|slot| slot.since);
        oldest.is_some_and(|since| clock::moment().since(since) >= time)
    }

    /// Tells everybody who waits what is known, and ends both tasks; with them the descriptor goes.
    fn close(&self, reason: Reason) {
        let State { closed, unsent, waiting, writer, .. } = &mut *self.state.borrow_mut();
        *closed = true;
        let sent = waiting.len() - *unsent;
        for (index, slot) in waiting.drain(..).enumerate() {
            slot.fill(Err(Unheard { reason, sent: index < sent }));
        }
        *unsent = 0;
        writer.take().into_iter().for_each(Waker::wake);
        self.canceller.take().cancel();
    }

    async fn write(&self, mut stream: OwnedWriteHalf<TcpStream>) {
        let mut batch = Vec::new();
        loop {
            let more = poll_fn(|context| {
                let state = &mut *self.state.borrow_mut();
                if state.closed {
                    return Poll::Ready(false);
                }
                if state.out.is_empty() {
                    state.writer = Some(context.waker().clone());
                    return Poll::Pending;
                }
                std::mem::swap(&mut state.out, &mut batch);
                state.unsent = 0;
                Poll::Ready(true)
            });
            if !more.await {
                return;
            }
            let mut done = 0;
            while done < batch.len() {
                let rest = monoio::buf::IoBuf::slice(batch, done..);
                let handle = self.canceller.borrow().handle();
                let (result, rest) = stream.cancelable_write(rest, handle).await;
                batch = rest.into_inner();
                match result {
                    Ok(length) if length > 0 && !self.state.borrow().closed => done += length,
                    _ => return,
                }
            }
            batch.clear();
        }
    }

    async fn read(self: Rc<Self>, mut stream: OwnedReadHalf<TcpStream>) {
        let mut received = Vec::with_capacity(READ_BUFFER);
        let mut scratch = Vec::new();
        while !self.state.borrow().closed {
            received.reserve(READ_BUFFER);
            let start = received.len();
            let free = monoio::buf::IoBufMut::slice_mut(received, start..);
            let handle = self.canceller.borrow().handle();
            let (result, free) = stream.cancelable_read(free, handle).await;
            received = free.into_inner();
            let usable = result.is_ok_and(|length| length > 0)
                && self.take_answers(&mut received, &mut scratch);
            if !usable {
                break;
            }
        }
        self.close(Reason::Lost);
    }

    /// Hands the whole answers out. False if there is anything else.
    fn take_answers(&self, received: &mut Vec<u8>, scratch: &mut Vec<u8>) -> bool {
        let mut used = 0;
        let usable = loop {
            match response::parse(&received[used..], false, scratch) {
                Parsed::Complete { answer, consumed } => {
                    used += consumed;
                    let state = &mut *self.state.borrow_mut();
                    // An answer that nobody asked for.
                    if state.waiting.len() <= state.unsent {
                        break false;
                    }
                    let Some(slot) = state.waiting.pop_front() else { break false };
                    slot.fill(Ok((answer.status, answer.body.to_vec())));
                }
                Parsed::Partial(_) => break true,
                Parsed::Invalid(_) => break false,
            }
        };
        received.drain(..used);
        usable
    }
}
