//! Connections: read, answer everything that is whole, write once, wake, repeat.
//!
//! Knows HTTP's framing and nothing of payments but when to wake their dispatcher. Every wait has
//! an end: for the next request, for the rest of one, for the client to take its answer.

use crate::base::clock::{self, Moment};
use crate::base::limits::{
    ACCEPT_PAUSE, ADMIN_CONNECTIONS_MAX, BUFFERS_KEPT, EVENTS_AT_ONCE, EVENTS_EVERY, EVENTS_PAUSE,
    EVENTS_SIGN_EVERY, EVENTS_STREAMS_MAX, LINGER, READ_BUFFER_SIZE, READ_SIZE_MAX,
    RESPONSES_SIZE_MAX, TURNED_AWAY_MAX, WRITE_TIMEOUT,
};
use crate::instance::api::{self, Door, Frame, Then, events};
use crate::instance::feed::Feed;
use crate::instance::give_up;
use crate::instance::lifecycle::Phase;
use crate::instance::node::Node;
use crate::instance::turn::{self, Answers};
use crate::net::buffers::Held;
use crate::net::http::Connection;
use crate::net::http::request::{self, Method, Need, Parsed};
use crate::net::http::response::{self, Response};
use crate::net::timeouts::Alarm;
use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, OwnedReadHalf, OwnedWriteHalf, Split, Splitable};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

/// With so many answers a turn, or more, payments are not handed over at each turn.
const CROWD: u32 = 2;
/// Answers that are not known to have gone out are looked after so soon, even if the client sends
/// nothing more.
const SENT_WITHIN: Duration = Duration::from_millis(100);

fn connections_max(node: &Node, door: Door) -> usize {
    match door {
        Door::Entry => node.config.connections_max,
        Door::Peer => node.config.peer_connections_max,
        Door::Admin => ADMIN_CONNECTIONS_MAX,
    }
}

/// Until fewer are being turned away: each of them has a descriptor, too.
pub async fn wait_for_room(node: &Node, door: Door) {
    let limit = (connections_max(node, door) + TURNED_AWAY_MAX) as u64;
    while node.stats.connections[door as usize].load(Ordering::Relaxed) >= limit {
        monoio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Sees to what is to be done when the answers of a turn are out. Runs as long as the thread.
pub async fn attend(node: Arc<Node>) {
    let mut is_due = false;
    let ended = turn::attend(|answers, accepted| {
        let now = clock::moment();
        for Answers { since, batches, count } in answers {
            node.stats.entry.record_many(now.since(*since), u64::from(*count));
            node.lifecycle.answering.fetch_sub(*batches, Ordering::SeqCst);
        }
        let is_crowd = answers.iter().map(|answers| answers.count).sum::<u32>() >= CROWD;
        is_due = (is_due || accepted) && !node.payments.queue.wake_if_due(now, is_crowd);
        is_due
    });
    // Nobody would wake the dispatcher any more.
    give_up(&format!("an event loop could not be built: {:?}", ended.await.err()));
}

/// Serves an accepted connection, in a task of its own.
pub fn start<S: Stream + 'static>(node: &Arc<Node>, door: Door, stream: S) {
    let node = node.clone();
    // Each door has its own count: a crowd at the entry must not shut out the peer.
    let open = node.stats.connections[door as usize].fetch_add(1, Ordering::Relaxed);
    monoio::spawn(async move {
        let mut client = Client::new(stream);
        if open < connections_max(&node, door) as u64 {
            client.converse(&node, door).await;
        } else {
            let frame = Frame { connection: Connection::Close, head_only: false };
            api::turn_away(&mut client.out, frame, "There are too many connections.");
            client.farewell().await;
        }
        // Closed first, then counted.
        drop(client);
        node.stats.connections[door as usize].fetch_sub(1, Ordering::Relaxed);
    });
}

/// A connection of either kind of listener.
pub trait Stream: AsyncReadRent + AsyncWriteRent + Split {}

impl<S: AsyncReadRent + AsyncWriteRent + Split> Stream for S {}

/// One client's connection and its buffers.
struct Client<S: AsyncWriteRent> {
    reader: OwnedReadHalf<S>,
    writer: OwnedWriteHalf<S>,
    alarm: Alarm,
    /// Bytes received and not consumed.
    received: Vec<u8>,
    /// What its reads bring, in bytes, about: the mean of the last few.
    usual: usize,
    /// Decoded chunked bodies.
    scratch: Vec<u8>,
    /// Answers not written yet.
    out: Vec<u8>,
    held: Held,
}

/// How a turn over the received bytes ended.
enum Turn {
    /// More bytes are needed.
    Partial(Need),
    /// The answers so far should go out first.
    Full,
    /// The last answer closes the connection.
    Close,
    /// The last answer goes on.
    Stream(Box<Feed>),
}

/// What a turn put into the buffer.
struct Batch {
    turn: Turn,
    /// Whether a payment was accepted.
    accepted: bool,
    /// Whether an answer promises something, and has to wait for the journals.
    promised: bool,
    answered: u32,
}

/// How a read ended.
enum Read {
    Some,
    End,
    TimedOut,
}

impl<S: Stream> Client<S> {
    fn new(stream: S) -> Client<S> {
        let (reader, writer) = stream.into_split();
        let (received, scratch, out) = Default::default();
        let (alarm, held) = (Alarm::new(), Held::new());
        Client { reader, writer, alarm, received, usual: 0, scratch, out, held }
    }

    /// Serves requests until one side closes.
    async fn converse(&mut self, node: &Arc<Node>, door: Door) {
        let mut continued = false;
        let (mut begun, _) = turn::now();
        loop {
            let (since, _) = turn::now();
            // Before the phase is looked at, as the end of the process looks at this after it.
            node.lifecycle.answering.fetch_add(1, Ordering::SeqCst);
            let Batch { turn, accepted, promised, answered } = self.turn(node, door).await;
            if answered > 0 {
                continued = false;
            }
            if let Turn::Partial(Need::Body { expects_continue: true, .. }) = turn
                && !continued
            {
                self.out.extend_from_slice(response::CONTINUE);
                continued = true;
            }
            if promised && node.has_journal() {
                turn::written([&node.payments.journal, &node.accounts.journal]).await;
            }
            if answered > 0 {
                let counted = if door == Door::Entry { answered } else { 0 };
                turn::sent(since, counted, accepted);
            } else {
                node.lifecycle.answering.fetch_sub(1, Ordering::SeqCst);
            }
            match turn {
                Turn::Close => return self.farewell().await,
                Turn::Stream(feed) => return self.stream(node, *feed).await,
                Turn::Full => {
                    if !self.flush().await {
                        return;
                    }
                }
                Turn::Partial(need) => {
                    if answered > 0 || self.received.is_empty() {
                        (begun, _) = turn::now();
                    }
                    if !self.read_on(node, need, &mut begun).await {
                        return;
                    }
                }
            }
        }
    }

    /// Tells events, unless too many others are told already.
    async fn stream(&mut self, node: &Arc<Node>, feed: Feed) {
        let others = node.stats.streams.fetch_add(1, Ordering::Relaxed);
        if others < EVENTS_STREAMS_MAX {
            if self.tell(node, feed).await {
                self.farewell().await;
            }
        } else {
            let frame = Frame { connection: Connection::Close, head_only: false };
            api::turn_away(&mut self.out, frame, "There are too many streams of events.");
            self.farewell().await;
        }
        node.stats.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Tells events until the client has gone, or the process ends: then he is there still.
    async fn tell(&mut self, node: &Arc<Node>, mut feed: Feed) -> bool {
        let Client { reader, writer, alarm, out, held, .. } = self;
        events::stream_head(out);
        let mut heard_at = clock::moment();
        // He has nothing more to say, so whatever comes of this is his end.
        let mut gone = pin!(reader.read(vec![0; 1]));
        while matches!(node.phase(), Phase::Starting | Phase::Serving) {
            let pause = match feed.read(node, EVENTS_AT_ONCE) {
                Ok((events, is_more)) => {
                    events::frames(&events, out);
                    let streams = node.stats.streams.load(Ordering::Relaxed) as u32;
                    if is_more { EVENTS_PAUSE * streams } else { EVENTS_EVERY }
                }
                Err(untold) => {
                    events::last_frame(&untold, out);
                    break;
                }
            };
            let now = clock::moment();
            if !out.is_empty() {
                heard_at = now;
            } else if now.since(heard_at) >= EVENTS_SIGN_EVERY {
                // Or nobody would notice that the client's machine has gone.
                out.extend_from_slice(b":\n\n");
                heard_at = now;
            }
            let size = out.capacity().saturating_sub(BUFFERS_KEPT);
            if !flush(writer, alarm, out, held, size).await {
                return false;
            }
            let mut over = pin!(monoio::time::sleep(pause));
            let has_gone = poll_fn(|context| match gone.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending => over.as_mut().poll(context).map(|()| false),
            });
            if has_gone.await {
                return false;
            }
        }
        true
    }

    /// Answers every whole request among the received bytes.
    async fn turn(&mut self, node: &Arc<Node>, door: Door) -> Batch {
        let (mut accepted, mut promised, mut answered, mut used) = (false, false, 0, 0);
        let turn = loop {
            if self.out.len() >= RESPONSES_SIZE_MAX {
                break Turn::Full;
            }
            match request::parse(&self.received[used..], &mut self.scratch) {
                Parsed::Partial(need) => break Turn::Partial(need),
                Parsed::Invalid(reject) => {
                    response::write_reject(&mut self.out, reject);
                    break Turn::Close;
                }
                Parsed::Complete { request, consumed } => {
                    used += consumed;
                    answered += 1;
                    let connection = request.connection();
                    let frame = Frame { connection, head_only: request.method == Method::Head };
                    match api::handle(node, door, &request, frame, &mut self.out) {
                        Then::Answered => {}
                        Then::Stream(feed) => break Turn::Stream(feed),
                        Then::Accepted => (accepted, promised) = (true, true),
                        Then::Promised => promised = true,
                        Then::Call(call) => {
                            if accepted {
                                node.payments.queue.wake();
                            }
                            let then = call.answer(node, frame, &mut self.out).await;
                            accepted |= matches!(then, Then::Accepted);
                            promised |= accepted;
                        }
                    }
                    if connection == Connection::Close {
                        break Turn::Close;
                    }
                }
            }
        };
        self.received.drain(..used);
        Batch { turn, accepted, promised, answered }
    }

    /// Reads until parsing again makes sense. False if the connection is to be dropped. `begun`:
    /// when the wait for a request began, and from its first byte on, when that came.
    async fn read_on(&mut self, node: &Arc<Node>, need: Need, begun: &mut Moment) -> bool {
        loop {
            let idle = self.received.is_empty();
            let config = &node.config;
            let limit = if idle { config.idle_timeout } else { config.request_timeout };
            match self.read(*begun + limit).await {
                Read::Some => {}
                Read::End => return false,
                Read::TimedOut if idle => return false,
                Read::TimedOut => {
                    let reason = match self.held.was_cut_off() {
                        false => "The request did not arrive in time.",
                        true => "Too many requests were unfinished, this one for the longest time.",
                    };
                    let body = response::error_body(reason);
                    let late = Response::json(408, &body, Connection::Close);
                    response::write(&mut self.out, &late);
                    self.farewell().await;
                    return false;
                }
            }
            if idle {
                (*begun, _) = turn::now();
            }
            if !need.holds(&self.received) {
                return true;
            }
        }
    }

    /// Writes the answers there are, and reads. Both are given to the kernel at once, and the
    /// read is waited for first: nearly always the answers have gone out by then, and the task
    /// runs once a request instead of twice.
    async fn read(&mut self, deadline: Moment) -> Read {
        if monoio::utils::is_legacy() && !self.flush().await {
            return Read::End;
        }
        let burst = self.burst();
        self.make_room(burst);
        if !self.held.hold(self.size(), deadline, &self.alarm) {
            return Read::TimedOut;
        }
        let start = self.received.len();
        let room = self.received.capacity() - start;
        let free = std::mem::take(&mut self.received).slice_mut(start..);
        let Client { reader, writer, alarm, out, held, .. } = self;
        // In the queue of the loop from here on, and so is what follows.
        let mut reading = pin!(reader.read(free));
        let mut read = None;
        if !out.is_empty() {
            let sending = writer.write(std::mem::take(out));
            let soon = turn::now().0 + SENT_WITHIN;
            read = alarm.until(deadline.min(soon), reading.as_mut()).await;
            // In the middle of an answer nothing else can be said.
            if held.is_cut_off() {
                return Read::End;
            }
            let write_by = turn::now().0 + WRITE_TIMEOUT;
            let Some((result, bytes)) = alarm.until(write_by, sending).await else {
                return Read::End;
            };
            *out = bytes;
            match result {
                Ok(written) if written == out.len() => give_back(out, burst),
                Ok(written) if written > 0 => {
                    if !write_rest(writer, alarm, out, written).await {
                        return Read::End;
                    }
                }
                _ => return Read::End,
            }
        }
        if read.is_none() && !held.is_cut_off() {
            read = alarm.until(deadline, reading).await;
        }
        match read {
            None => Read::TimedOut,
            Some((result, free)) => {
                self.received = free.into_inner();
                let Ok(length @ 1..) = result else { return Read::End };
                // What fills its room was perhaps not all.
                let sent = if length < room { length } else { 2 * room };
                self.usual = (3 * self.usual + sent) / 4;
                Read::Some
            }
        }
    }

    /// How much room a read is given: plenty for what this client sends at once.
    fn burst(&self) -> usize {
        (2 * self.usual).next_power_of_two().clamp(READ_BUFFER_SIZE, READ_SIZE_MAX)
    }

    /// Room for the next read, and not much more: what was larger is given back.
    fn make_room(&mut self, burst: usize) {
        let length = self.received.len();
        let free = self.received.capacity() - length;
        if free < burst / 2 {
            self.received.reserve_exact(burst);
        } else if free > 2 * burst {
            self.received.shrink_to(length + burst);
        }
        // What is in it is decoded again.
        if self.scratch.capacity() > BUFFERS_KEPT / 4 {
            self.scratch = Vec::new();
        }
    }

    /// What its buffers hold beyond what they may keep.
    fn size(&self) -> usize {
        let all = self.received.capacity() + self.scratch.capacity() + self.out.capacity();
        all.saturating_sub(BUFFERS_KEPT)
    }

    /// Writes all answers. False if the client does not take them.
    async fn flush(&mut self) -> bool {
        let size = self.size();
        flush(&mut self.writer, &self.alarm, &mut self.out, &mut self.held, size).await
    }

    async fn farewell(&mut self) {
        if self.flush().await {
            self.linger().await;
        }
    }

    /// Says that nothing more will come, and reads on for a moment (see [`LINGER`]).
    async fn linger(&mut self) {
        if self.writer.shutdown().await.is_err() {
            return;
        }
        let deadline = clock::moment() + LINGER;
        // Bounded in bytes as well: a client that never stops sending is not waited for.
        for _ in 0..64 {
            self.received.clear();
            if !matches!(self.read(deadline).await, Read::Some) {
                return;
            }
        }
    }
}

/// Writes all that is in `out`, of a connection whose buffers hold so much. False if the client does
/// not take it.
async fn flush<S: AsyncWriteRent>(
    writer: &mut OwnedWriteHalf<S>,
    alarm: &Alarm,
    out: &mut Vec<u8>,
    held: &mut Held,
    size: usize,
) -> bool {
    if out.is_empty() {
        return true;
    }
    let deadline = clock::moment() + WRITE_TIMEOUT;
    held.hold(size, deadline, alarm) && write_rest(writer, alarm, out, 0).await
}

/// Writes what is in `out` behind the first `written` bytes. False if the client does not take it.
async fn write_rest<S: AsyncWriteRent>(
    writer: &mut OwnedWriteHalf<S>,
    alarm: &Alarm,
    out: &mut Vec<u8>,
    mut written: usize,
) -> bool {
    while written < out.len() {
        let deadline = clock::moment() + WRITE_TIMEOUT;
        let rest = std::mem::take(out).slice(written..);
        let Some((result, rest)) = alarm.until(deadline, writer.write(rest)).await else {
            return false;
        };
        *out = rest.into_inner();
        match result {
            Ok(length) if length > 0 => written += length,
            _ => return false,
        }
    }
    give_back(out, READ_BUFFER_SIZE);
    true
}

/// Empties a buffer whose answers have been written. One larger than what its client sends at once
/// is not kept.
fn give_back(out: &mut Vec<u8>, burst: usize) {
    if out.capacity() > burst {
        *out = Vec::new();
    } else {
        out.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::config::tests::config;
    use crate::net::runtime::Driver;
    use std::io::{Read as _, Write as _};

    /// Uploads that stall are cut off when they hold too much together, the slowest first; what holds
    /// little is let alone, and everything is given back.
    #[test]
    fn beyond_the_budget_the_slowest_upload_is_cut_off() {
        const BUDGET: usize = 20 * 1024;
        for driver in [Driver::detect(1), Driver::Epoll("as a test".into())] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let clients = std::thread::spawn(move || {
                let unfinished = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(7 * 1024));
                let mut all: Vec<_> = (0..6)
                    .map(|_| std::net::TcpStream::connect(address).unwrap())
                    .inspect(|it| it.set_read_timeout(Some(WRITE_TIMEOUT)).unwrap())
                    .collect();
                let ask = |client: &mut std::net::TcpStream| {
                    client.write_all(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                    let mut answer = [0; 1024];
                    let length = client.read(&mut answer).unwrap();
                    assert!(answer[..length].starts_with(b"HTTP/1.1 404 "));
                };
                all[1].write_all(unfinished.as_bytes()).unwrap();
                // When this is answered, the first upload has begun, and the others have not.
                ask(&mut all[0]);
                for client in &mut all[2..] {
                    client.write_all(unfinished.as_bytes()).unwrap();
                }
                let mut answer = String::new();
                all[1].read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("unfinished"));
                ask(&mut all[0]);
            });
            let server = std::thread::spawn(move || {
                let on_epoll = matches!(driver, Driver::Epoll(_));
                let node = Node::new(config("").unwrap()).unwrap();
                let serve = async move {
                    crate::net::buffers::set_budget(BUDGET);
                    let mut all = Vec::new();
                    for _ in 0..6 {
                        let (accepted, _) = listener.accept().unwrap();
                        accepted.set_nonblocking(on_epoll).unwrap();
                        let stream = monoio::net::TcpStream::from_std(accepted).unwrap();
                        let node = node.clone();
                        all.push(monoio::spawn(async move {
                            Client::new(stream).converse(&node, Door::Entry).await;
                        }));
                    }
                    for connection in all {
                        connection.await;
                    }
                    assert_eq!(crate::net::buffers::held(), (0, 0));
                };
                driver.block_on(serve).unwrap();
            });
            clients.join().unwrap();
            server.join().unwrap();
        }
    }

    /// What does not fit into the socket's buffer goes out when there is room, though the client
    /// sends nothing more: it waits for the rest.
    #[test]
    fn answers_that_are_sent_in_part_are_sent_in_full() {
        const LENGTH: usize = 8 << 20;
        for driver in [Driver::detect(1), Driver::Epoll("as a test".into())] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let reader = std::thread::spawn(move || {
                client.set_read_timeout(Some(WRITE_TIMEOUT)).unwrap();
                let mut answers = vec![0; LENGTH];
                client.read_exact(&mut answers).unwrap();
                client.write_all(b"thanks").unwrap();
                answers.iter().all(|byte| *byte == b'a')
            });
            let server = std::thread::spawn(move || {
                let on_epoll = matches!(driver, Driver::Epoll(_));
                let read = driver.block_on(async move {
                    accepted.set_nonblocking(on_epoll).unwrap();
                    let stream = monoio::net::TcpStream::from_std(accepted).unwrap();
                    let mut client = Client::new(stream);
                    client.out.resize(LENGTH, b'a');
                    let read = client.read(clock::moment() + Duration::from_secs(3600)).await;
                    matches!(read, Read::Some) && client.received == b"thanks"
                });
                assert!(read.unwrap());
            });
            assert!(reader.join().unwrap());
            server.join().unwrap();
        }
    }
}
