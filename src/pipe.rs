//! One connection to the other instance that carries many requests at a time, in order.
//!
//! For what is asked for with every request of a client: all that comes up in a turn of the event
//! loop goes out in one write, and so do, on the other side, the answers. A time-out, an error or
//! an answer past reading closes the connection, and whoever waits learns whether the request may
//! have been carried out. The next request opens another one.

use crate::http::response::{self, Parsed};
use crate::upstream::{Failure, Target};
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

/// See the module. One a thread.
pub struct Pipe {
    target: Arc<Target>,
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
}

/// Where an answer is put down for whoever waits for it.
#[derive(Default)]
struct Slot {
    reply: RefCell<Option<Result<Reply, Failure>>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    fn fill(&self, reply: Result<Reply, Failure>) {
        *self.reply.borrow_mut() = Some(reply);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl Pipe {
    pub fn new(target: Arc<Target>) -> Pipe {
        Pipe { target, connection: RefCell::default() }
    }

    /// Sends the request that `write` puts into the buffer (it is given the `Host` to name), with
    /// whatever else is asked in this turn, and waits for its answer until `time` is over.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn ask(
        &self,
        time: Duration,
        write: impl FnOnce(&mut Vec<u8>, &str),
    ) -> Result<Reply, Failure> {
        let connection = self.connection();
        let slot = Rc::<Slot>::default();
        {
            let state = &mut *connection.state.borrow_mut();
            if state.waiting.len() >= WAITING_MAX {
                return Err(Failure::NotSent);
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
        match monoio::time::timeout(time, answered).await {
            Ok(reply) => reply,
            Err(_) => {
                connection.close();
                slot.reply.borrow_mut().take().unwrap_or(Err(Failure::Lost))
            }
        }
    }

    /// The open connection, or a new one.
    fn connection(&self) -> Rc<Connection> {
        let current = &mut *self.connection.borrow_mut();
        if let Some(open) = current.as_ref().filter(|it| !it.state.borrow().closed) {
            return open.clone();
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
        if let Ok(Some(stream)) = connecting.await {
            let (reader, writer) = stream.into_split();
            monoio::spawn(self.clone().read(reader));
            self.write(writer).await;
        }
        self.close();
    }

    /// Tells everybody who waits what is known, and ends both tasks; with them the descriptor goes.
    fn close(&self) {
        let State { closed, unsent, waiting, writer, .. } = &mut *self.state.borrow_mut();
        *closed = true;
        let sent = waiting.len() - *unsent;
        for (index, slot) in waiting.drain(..).enumerate() {
            let failure = if index < sent { Failure::Lost } else { Failure::NotSent };
            slot.fill(Err(failure));
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
                    Ok(length) if length > 0 => done += length,
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
        self.close();
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
