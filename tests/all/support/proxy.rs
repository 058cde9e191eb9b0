//! A wire between two instances that loses an answer or holds a request back when it is told to.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What becomes of the next request that contains the proxy's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    None,
    /// It arrives; when its answer comes, the connection is cut instead.
    LoseAnswer,
    /// It arrives only after [`Proxy::release`].
    Hold,
}

#[derive(Debug)]
struct State {
    next: Mishap,
    /// A request is held back.
    is_holding: bool,
    /// Answers that came to what was held back.
    answered_late: u32,
}

/// The proxy of one address.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    words: &'static str,
    state: Mutex<State>,
    changed: Condvar,
}

impl Proxy {
    /// Passes everything on to `target`, on as many connections as are made. `words` are those of
    /// requests that may have a mishap. Its threads end with the connections, or the test.
    pub fn start(target: SocketAddr, words: &'static str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let state = State { next: Mishap::None, is_holding: false, answered_late: 0 };
        let shared = Shared { words, state: Mutex::new(state), changed: Condvar::new() };
        let shared = Arc::new(shared);
        let all = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // As if nobody listened here either.
                let Ok(server) = TcpStream::connect(target) else { continue };
                all.clone().join(client, server);
            }
        });
        Proxy { address, shared }
    }

    /// For the next request with the words, once.
    pub fn prepare(&self, mishap: Mishap) {
        self.shared.state.lock().unwrap().next = mishap;
    }

    /// Whether the mishap that was prepared has begun.
    pub fn has_struck(&self) -> bool {
        self.shared.state.lock().unwrap().next == Mishap::None
    }

    /// Lets what is held back go on, and waits for the answer to it.
    pub fn release(&self) {
        let mut state = self.shared.state.lock().unwrap();
        let before = state.answered_late;
        state.is_holding = false;
        self.shared.changed.notify_all();
        let late = |state: &mut State| state.answered_late == before;
        let patience = super::PATIENCE;
        let (_state, waited) =
            self.shared.changed.wait_timeout_while(state, patience, late).unwrap();
        assert!(!waited.timed_out(), "no answer to what was held back");
    }
}

impl Shared {
    fn join(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        let both = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some(one), Some(other)) = (both(), both()) else { return };
        // What the answers on this connection are in for.
        let fate = Arc::new(Mutex::new(Mishap::None));
        let (all, its) = (self.clone(), fate.clone());
        thread::spawn(move || all.requests(one, &its));
        thread::spawn(move || self.answers(other, &fate));
    }

    fn requests(&self, (mut client, mut server): (TcpStream, TcpStream), fate: &Mutex<Mishap>) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(length @ 1..) = client.read(&mut bytes) {
            let chunk = &bytes[..length];
            if chunk.windows(self.words.len()).any(|it| it == self.words.as_bytes()) {
                let mut state = self.state.lock().unwrap();
                let mishap = std::mem::replace(&mut state.next, Mishap::None);
                if mishap != Mishap::None {
                    *fate.lock().unwrap() = mishap;
                }
                state.is_holding = mishap == Mishap::Hold;
                drop(self.changed.wait_while(state, |state| state.is_holding).unwrap());
            }
            if server.write_all(chunk).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Write);
    }

    fn answers(&self, (mut client, mut server): (TcpStream, TcpStream), fate: &Mutex<Mishap>) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(length @ 1..) = server.read(&mut bytes) {
            match *fate.lock().unwrap() {
                Mishap::LoseAnswer => break,
                Mishap::Hold => {
                    self.state.lock().unwrap().answered_late += 1;
                    self.changed.notify_all();
                }
                Mishap::None => {}
            }
            // The client may be gone; what is still to come is read all the same.
            let _ = client.write_all(&bytes[..length]);
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}
