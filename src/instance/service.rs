//! What whoever started the process is told of its life, if that is a service manager that asks
//! (sd_notify(3)): that it is ready, and that it is about to end.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// It serves.
pub fn ready() {
    tell("READY=1");
}

/// It was told to end.
pub fn stopping() {
    tell("STOPPING=1");
}

/// To the socket named by the environment, if there is one. Nobody listening is no reason to stop.
fn tell(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) =
        name.to_str().ok_or(io::ErrorKind::InvalidInput.into()).and_then(|name| send(name, state))
    {
        log::warn!("the service manager at NOTIFY_SOCKET cannot be told {state}: {error}");
    }
}

fn send(name: &str, state: &str) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
