//! A wire between the two instances, which can be cut: what comes in is passed on, byte by byte.
//!
//! Knows nothing of what is said on it. Threads of its own, so that it goes on whatever the demo's
//! event loop does; they end with their connections, or the demo.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Connections at once; an instance has a handful to the other.
const CONNECTIONS_MAX: usize = 256;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// One direction: connections to `address` end at its target.
pub struct Wire {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    is_cut: bool,
    /// Both ends of each connection.
    open: HashMap<u64, [TcpStream; 2]>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wire {
    /// Passes everything on to `target`, which need not listen yet.
    ///
    /// # Errors
    /// If there is no port or no thread for it.
    pub fn to(target: SocketAddr) -> io::Result<Wire> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let all = shared.clone();
        spawn(move || accept(&listener, target, &all))?;
        Ok(Wire { address, shared })
    }

    /// Ends all connections, and every one that is made from now on.
    pub fn cut(&self) {
        let mut shared = lock(&self.shared);
        shared.is_cut = true;
        for (_, ends) in shared.open.drain() {
            close(&ends);
        }
    }

    pub fn mend(&self) {
        lock(&self.shared).is_cut = false;
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("galo-wire".into()).spawn(work).map(drop)
}

fn close(ends: &[TcpStream; 2]) {
    for end in ends {
        // It may have gone already.
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Mutex<Shared>>) {
    for (number, client) in (0_u64..).zip(listener.incoming()) {
        // Dropped, a connection is as good as refused.
        match client {
            Ok(client) if !lock(shared).is_cut => drop(pass_on(number, client, target, shared)),
            Ok(_) => {}
            Err(_) => std::thread::sleep(ACCEPT_PAUSE),
        }
    }
}

fn pass_on(
    number: u64,
    client: TcpStream,
    target: SocketAddr,
    shared: &Arc<Mutex<Shared>>,
) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ways =
        [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)];
    let ends = [client, server];
    let mut all = lock(shared);
    if all.is_cut || all.open.len() >= CONNECTIONS_MAX {
        return Ok(());
    }
    all.open.insert(number, ends);
    drop(all);
    for (mut from, mut to) in ways {
        let all = shared.clone();
        spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            if let Some(ends) = lock(&all).open.remove(&number) {
                close(&ends);
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_is_cut_ends_and_what_is_mended_goes_on() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::to(server.local_addr().unwrap()).unwrap();
        let connect = || {
            let client = TcpStream::connect(wire.address).unwrap();
            (client, server.accept().unwrap().0)
        };
        let (mut client, mut served) = connect();
        client.write_all(b"there").unwrap();
        let mut heard = [0; 5];
        served.read_exact(&mut heard).unwrap();
        served.write_all(b"again").unwrap();
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"again");
        wire.cut();
        assert_eq!(client.read(&mut heard).unwrap_or(0), 0);
        assert_eq!(served.read(&mut heard).unwrap_or(0), 0);
        let mut refused = TcpStream::connect(wire.address).unwrap();
        assert_eq!(refused.read(&mut heard).unwrap_or(0), 0);
        wire.mend();
        let (mut client, mut served) = connect();
        client.write_all(b"there").unwrap();
        drop(client);
        let mut all = String::new();
        served.read_to_string(&mut all).unwrap();
        assert_eq!(all, "there");
    }
}
