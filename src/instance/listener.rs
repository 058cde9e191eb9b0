//! Listeners: addresses that are bound, and the connections that come in there.
//!
//! Knows nothing of what is said on them; each goes to `server` as soon as it is there.

use crate::base::clock::{self, Moment};
use crate::base::limits::{ACCEPT_COMPLAINT_EVERY, ACCEPT_PAUSE};
use crate::instance::api::Door;
use crate::instance::config::ListenAddress;
use crate::instance::node::Node;
use crate::instance::server::Stream;
use crate::instance::{give_up, server};
use monoio::net::{TcpListener, UnixListener};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

/// Connections the kernel holds for us until they are accepted.
const BACKLOG: i32 = 4_096;
/// How long binding waits for an address that is in use: on a busy machine the kernel takes its time
/// to close what a killed process listened on.
const BIND_PATIENCE: Duration = Duration::from_secs(3);

/// A bound address, to be served by one or more threads.
pub struct Listener {
    socket: Socket,
    /// What it is bound to; a TCP port of 0 has become a real one.
    pub address: ListenAddress,
    pub door: Door,
    /// Leaves IPv4 to another listener of the same port.
    v6_only: bool,
}

impl Listener {
    /// Binds an address. A TCP port in use is refused unless `share_port`; a unix socket that
    /// nobody listens on any more is replaced. `v6_only`: `[::]` is not to take IPv4 as well.
    ///
    /// # Errors
    /// The kernel's, with the address named.
    pub fn bind(
        address: &ListenAddress,
        door: Door,
        share_port: bool,
        v6_only: bool,
    ) -> io::Result<Listener> {
        let bound = match address {
            ListenAddress::Tcp(address) => {
                if !share_port {
                    // Our own threads share the port among them, which would let a second process
                    // in as well: so ask without sharing first.
                    tcp(*address, false, v6_only)?;
                }
                let socket = tcp(*address, true, v6_only)?;
                let local = socket.local_addr()?.as_socket().unwrap_or(*address);
                (socket, ListenAddress::Tcp(local))
            }
            ListenAddress::Unix(path) => (unix(path)?, address.clone()),
        };
        let (socket, address) = bound;
        socket.listen(BACKLOG)?;
        Ok(Listener { socket, address, door, v6_only })
    }

    /// The same address for another thread: a TCP port's own socket, so that the kernel spreads
    /// connections, and a shared one for a unix socket, which has no such thing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn another(&self) -> io::Result<Listener> {
        let socket = match &self.address {
            ListenAddress::Tcp(address) => {
                let socket = tcp(*address, true, self.v6_only)?;
                socket.listen(BACKLOG)?;
                socket
            }
            ListenAddress::Unix(_) => self.socket.try_clone()?,
        };
        let (address, door, v6_only) = (self.address.clone(), self.door, self.v6_only);
        Ok(Listener { socket, address, door, v6_only })
    }

    /// Accepts connections for as long as the thread runs. Never dropped in between: a dropped
    /// accept may lose a connection (monoio 0.2.4).
    pub async fn serve(self, node: Arc<Node>, on_epoll: bool) {
        let door = self.door;
        // io_uring waits inside the kernel; on a non-blocking socket it would not wait at all.
        if let Err(error) = self.socket.set_nonblocking(on_epoll) {
            give_up(&format!("cannot listen on {}: {error}", self.address));
        }
        let unable = match self.address {
            ListenAddress::Tcp(_) => match TcpListener::from_std(self.socket.into()) {
                Ok(listener) => {
                    let accept = async || {
                        let (stream, _) = listener.accept().await?;
                        let _ = stream.set_nodelay(true);
                        Ok(stream)
                    };
                    accept_all(&node, door, accept).await
                }
                Err(error) => error,
            },
            ListenAddress::Unix(_) => match UnixListener::from_std(self.socket.into()) {
                Ok(listener) => {
                    let accept = async || listener.accept().await.map(|(stream, _)| stream);
                    accept_all(&node, door, accept).await
                }
                Err(error) => error,
            },
        };
        give_up(&format!("cannot listen: {unable}"));
    }
}

async fn accept_all<S: Stream + 'static>(
    node: &Arc<Node>,
    door: Door,
    accept: impl AsyncFn() -> io::Result<S>,
) -> ! {
    let mut complaints = Complaints::default();
    loop {
        server::wait_for_room(node, door).await;
        match accept().await {
            Ok(stream) => server::start(node, door, stream),
            Err(error) => complaints.pause_after(&error).await,
        }
    }
}

fn tcp(address: std::net::SocketAddr, share: bool, v6_only: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // Said either way: what the system takes for granted differs.
        socket.set_only_v6(v6_only)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    let give_up_at = clock::moment() + BIND_PATIENCE;
    loop {
        match socket.bind(&address.into()) {
            // A process that was just killed may hold its port a moment longer, until the kernel
            // has taken down the ring that was accepting on it.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && clock::moment() < give_up_at =>
            {
                std::thread::sleep(ACCEPT_PAUSE);
            }
            result => return result.map(|()| socket),
        }
    }
}

fn unix(path: &std::path::Path) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket {
        let give_up_at = clock::moment() + BIND_PATIENCE;
        while is_listened_on(&address)? {
            // As with a port: what accepts there may be the ring of a process that has just ended.
            if clock::moment() >= give_up_at {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            std::thread::sleep(ACCEPT_PAUSE);
        }
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&address)?;
    // The balancer runs as another user; who may reach the socket is the directory's business.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(socket)
}

/// Whether somebody accepts connections at a unix socket. Only a refusal says that nobody does.
fn is_listened_on(address: &SockAddr) -> io::Result<bool> {
    loop {
        match Socket::new(Domain::UNIX, Type::STREAM, None)?.connect(address) {
            Ok(()) => return Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => return Ok(false),
                _ => return Err(error),
            },
        }
    }
}

/// What could not be accepted, said now and then.
#[derive(Default)]
struct Complaints {
    since_last: u64,
    last: Option<Moment>,
}

impl Complaints {
    async fn pause_after(&mut self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
            return;
        }
        if let Some(count) = self.count(clock::moment()) {
            log::warn!("cannot accept connections: {error} ({count} times since the last word)");
        }
        monoio::time::sleep(ACCEPT_PAUSE).await;
    }

    /// One more. How many there were, if it is time to say so.
    fn count(&mut self, now: Moment) -> Option<u64> {
        self.since_last += 1;
        let is_due = self.last.is_none_or(|last| now.since(last) >= ACCEPT_COMPLAINT_EVERY);
        is_due.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.since_last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_accepted_is_said_now_and_then_and_counted() {
        let mut complaints = Complaints::default();
        let start = Moment(7);
        assert_eq!(complaints.count(start), Some(1));
        for _ in 0..1_000 {
            assert_eq!(complaints.count(start + ACCEPT_COMPLAINT_EVERY / 2), None);
        }
        assert_eq!(complaints.count(start + ACCEPT_COMPLAINT_EVERY), Some(1_001));
        assert_eq!(complaints.count(start + ACCEPT_COMPLAINT_EVERY), None);
    }
}
