//! Where a name points to: looked up on a thread of its own, and again while it is used.
//!
//! The invariant: no event loop waits in a look-up, and nobody uses an address that the last answer
//! did not have. A name server that fails, or says nothing, changes nothing: the last answer holds.
//! One that says that there is no such name has answered: somebody else may have its address by now.

use crate::base::clock::{self, Moment};
use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// An answer is taken to hold for so long. Who uses the name later has it looked up again.
pub const FRESH_FOR: Duration = Duration::from_secs(1);
/// So long a new connection waits for a look-up before it takes the addresses of the last one.
const PATIENCE: Duration = Duration::from_millis(250);
/// Tasks that wait for the same look-up; more would be woken by their own time-outs only.
const WAITING_MAX: usize = 1_024;

/// Asks the system what a name stands for, which may take long. Nothing, if there is no such name.
///
/// # Errors
/// If nobody can say. std's look-up does not tell the one from the other.
pub fn ask_system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => {
            let with_port = |address: SocketAddr| SocketAddr::new(address.ip(), port);
            found.map(|it| it.map(|it| with_port(it.sockaddr))).collect()
        }
        Err(error) => match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => Ok(Vec::new()),
            _ => Err(error.into()),
        },
    }
}

/// See the module.
pub struct Names {
    shared: Arc<Shared>,
}

struct Shared {
    /// Counts how often the addresses have changed.
    generation: AtomicU64,
    /// Looked up a moment ago, or never to be looked up.
    is_fresh: AtomicBool,
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Default)]
struct State {
    /// What the name stands for, the one to try first in front.
    addresses: Vec<SocketAddr>,
    /// Since when a look-up is wanted or under way.
    wanted_since: Option<Moment>,
    /// How many have ended.
    ended: u64,
    waiting: Vec<Waker>,
    is_over: bool,
}

impl Names {
    /// An address needs no look-up.
    pub fn fixed(address: SocketAddr) -> Names {
        let state = State { addresses: vec![address], ..State::default() };
        Names { shared: Arc::new(Shared::new(state, true)) }
    }

    /// Looks `name` up by `look_up`, now and whenever it is used, on a thread that ends with this.
    pub fn looked_up(
        name: &str,
        fresh_for: Duration,
        look_up: impl FnMut() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> Names {
        let state = State { wanted_since: Some(clock::moment()), ..State::default() };
        let shared = Arc::new(Shared::new(state, false));
        let (own, looked_up) = (shared.clone(), name.to_string());
        let thread = std::thread::Builder::new().name("galo-names".into());
        let spawned = thread.spawn(move || own.look_up_for_ever(&looked_up, fresh_for, look_up));
        if let Err(error) = spawned {
            log::error!("no thread to look up {name}: {error}");
        }
        Names { shared }
    }

    /// A number that has changed when the addresses have.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Has the name looked up if the last answer is old, without waiting for that.
    pub fn keep_fresh(&self) {
        if !self.shared.is_fresh.load(Ordering::Relaxed) {
            self.shared.want();
        }
    }

    /// Likewise, and waits for the answer: not for long if there are addresses from an earlier one.
    pub async fn freshen(&self) {
        let shared = &self.shared;
        if shared.is_fresh.load(Ordering::Acquire) {
            return;
        }
        let (ended, left) = shared.want();
        let answered = poll_fn(|context| {
            let mut state = shared.lock();
            if state.ended != ended {
                return Poll::Ready(());
            }
            if state.waiting.len() < WAITING_MAX {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        });
        match left {
            Some(left) if left.is_zero() => {}
            // Whether it has answered or not: the last answer there is holds.
            Some(left) => drop(monoio::time::timeout(left, answered).await),
            None => answered.await,
        }
    }

    /// What the name stands for, and since which generation.
    pub fn addresses(&self) -> (Vec<SocketAddr>, u64) {
        let state = self.shared.lock();
        (state.addresses.clone(), self.generation())
    }

    pub fn have(&self, address: SocketAddr) -> bool {
        self.shared.lock().addresses.contains(&address)
    }

    /// The others come first next time.
    pub fn put_last(&self, address: SocketAddr) {
        let addresses = &mut self.shared.lock().addresses;
        if addresses.first() == Some(&address) {
            addresses.rotate_left(1);
        }
    }

    pub fn put_first(&self, address: SocketAddr) {
        let addresses = &mut self.shared.lock().addresses;
        if let Some(place) = addresses.iter().position(|it| *it == address) {
            addresses[..=place].rotate_right(1);
        }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.called.notify_one();
    }
}

impl Shared {
    fn new(state: State, is_fresh: bool) -> Shared {
        Shared {
            generation: AtomicU64::new(0),
            is_fresh: AtomicBool::new(is_fresh),
            state: Mutex::new(state),
            called: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls for a look-up. How many have ended, and how long this one is worth waiting for; `None`
    /// while there is no address at all.
    fn want(&self) -> (u64, Option<Duration>) {
        let now = clock::moment();
        let mut state = self.lock();
        let since = *state.wanted_since.get_or_insert(now);
        self.called.notify_one();
        let left = PATIENCE.saturating_sub(now.since(since));
        (state.ended, (!state.addresses.is_empty()).then_some(left))
    }

    /// The life of the thread.
    fn look_up_for_ever(
        &self,
        name: &str,
        fresh_for: Duration,
        mut look_up: impl FnMut() -> io::Result<Vec<SocketAddr>>,
    ) {
        let mut failed = false;
        while self.is_called() {
            let answer = look_up();
            match &answer {
                Err(error) if !failed => log::warn!("cannot look up {name}: {error}"),
                Ok(_) if failed => log::info!("{name} can be looked up again"),
                _ => {}
            }
            failed = answer.is_err();
            self.take_over(name, answer.ok());
            self.rest(fresh_for);
        }
    }

    /// Sleeps until somebody uses the name. False at the end.
    fn is_called(&self) -> bool {
        let idle = |state: &mut State| state.wanted_since.is_none() && !state.is_over;
        let state = self.called.wait_while(self.lock(), idle);
        !state.unwrap_or_else(PoisonError::into_inner).is_over
    }

    /// Sleeps for as long as the answer holds.
    fn rest(&self, fresh_for: Duration) {
        let goes_on = |state: &mut State| !state.is_over;
        drop(self.called.wait_timeout_while(self.lock(), fresh_for, goes_on));
        self.is_fresh.store(false, Ordering::Release);
    }

    /// Takes an answer over, if there is one.
    fn take_over(&self, name: &str, answer: Option<Vec<SocketAddr>>) {
        let mut state = self.lock();
        let is_first = state.ended == 0;
        let known = &mut state.addresses;
        if let Some(found) = answer {
            let is_new = |address: &SocketAddr| !known.contains(address);
            let new: Vec<SocketAddr> = found.iter().copied().filter(is_new).collect();
            let before = known.len();
            // Those that stay keep the order that experience has put them into.
            known.retain(|address| found.contains(address));
            let has_changed = !new.is_empty() || known.len() < before;
            known.extend(new);
            match (known.is_empty(), has_changed, is_first) {
                (true, true, _) | (true, _, true) => log::warn!("there is no {name}"),
                (false, true, false) => log::info!("{name} is at {}", list(known)),
                _ => {}
            }
            self.generation.fetch_add(u64::from(has_changed), Ordering::Release);
        }
        state.ended += 1;
        state.wanted_since = None;
        self.is_fresh.store(true, Ordering::Release);
        state.waiting.drain(..).for_each(Waker::wake);
    }
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_systems_own_table_is_found() {
        let found = ask_system("localhost", 80).unwrap();
        assert!(!found.is_empty());
        assert!(found.iter().all(|it| it.ip().is_loopback() && it.port() == 80), "{found:?}");
    }
}
