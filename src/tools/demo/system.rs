//! The system that is shown: where its parts listen, and how its four processes are started.
//!
//! The only file that knows the flags of `galo serve` and `galo processor`. What is not set here
//! is theirs to decide, or their environment's: GALO_PATIENCE and the like reach them.

use super::children::Child;
use super::client::ADMIN_TOKEN;
use super::{DemoArgs, Ports};
use crate::base::clock;
use crate::base::money::Fee;
use crate::tools::dice::random_bytes;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Where everybody listens.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub entry: SocketAddr,
    pub processors: [SocketAddr; 2],
    pub peers: [SocketAddr; 2],
    pub admins: [SocketAddr; 2],
}

impl Places {
    /// Takes each port for a moment: one in use is refused before anything is started, and a port
    /// of 0 becomes a free one.
    ///
    /// # Errors
    /// One line that names the port and its flag.
    pub fn find(args: &DemoArgs) -> Result<Places, String> {
        let mut taken = Vec::new();
        let mut take = |port, flag: &str| {
            let listener = take_port(port).map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("port {port} is in use; {flag} chooses another, 0 a free one")
                }
                _ => format!("cannot listen on port {port}: {error}"),
            })?;
            let address = listener.local_addr().map_err(|error| error.to_string())?;
            taken.push(listener);
            Ok::<_, String>(address)
        };
        let Ports([default, fallback]) = args.processor_ports;
        let Ports([first, second]) = args.peer_ports;
        let Ports([first_admin, second_admin]) = args.admin_ports;
        Ok(Places {
            entry: take(args.port, "--port")?,
            processors: [take(default, "--processor-ports")?, take(fallback, "--processor-ports")?],
            peers: [take(first, "--peer-ports")?, take(second, "--peer-ports")?],
            admins: [take(first_admin, "--admin-ports")?, take(second_admin, "--admin-ports")?],
        })
    }
}

/// The kernel may need a moment to free the port of a server that has just ended.
fn take_port(port: u16) -> io::Result<TcpListener> {
    let give_up_at = clock::moment() + Duration::from_secs(1);
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && clock::moment() < give_up_at =>
            {
                std::thread::sleep(LOOK_AGAIN_AFTER);
            }
            result => return result,
        }
    }
}

/// A secret that nobody can guess.
///
/// # Errors
/// In one line, if the kernel gives no random bytes.
pub fn token() -> Result<String, String> {
    let token = random_bytes::<16>().map_err(|error| format!("no secret: {error}"))?;
    Ok(token.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A file in memory with this text, which children can read while it is open.
fn in_memory(text: &str) -> io::Result<(File, String)> {
    let mut file = File::from(memfd_create("token", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok((file, path))
}

/// Starts the four processes, the processors first. What was started is stopped on an error.
/// `admin_token` opens the admin doors.
///
/// # Errors
/// If one of them does not start; with what it logged.
pub fn start(
    places: &Places,
    admin_token: &str,
    fees: [Fee; 2],
    may_purge: bool,
    verbose: bool,
) -> Result<Vec<Child>, String> {
    let token = token()?;
    let (_file, token_file) =
        in_memory(admin_token).map_err(|error| format!("no place for a secret: {error}"))?;
    // By the environment: everybody on the machine can read a command line.
    let secret = Some(("GALO_PEER_TOKEN", token.as_str()));
    let fees = fees.map(|fee| fee.to_string());
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let processor = |index: usize| {
        words(format!(
            "processor --listen {} --fee {} --token {ADMIN_TOKEN}",
            places.processors[index], fees[index]
        ))
    };
    let instance = |own: usize, other: usize| {
        words(format!(
            "serve --instance {} --listen {} --share-port --peer-listen {} --peer http://{} \
             --default-url http://{} --fallback-url http://{} --default-fee {} --fallback-fee {} \
             --admin-listen {} --admin-token-file {token_file}{}",
            own + 1,
            places.entry,
            places.peers[own],
            places.peers[other],
            places.processors[0],
            places.processors[1],
            fees[0],
            fees[1],
            places.admins[own],
            // A contest begins with it. Otherwise it would only make the books differ: the
            // processors would not forget.
            if may_purge { " --allow-purge" } else { "" }
        ))
    };
    let mut children = vec![
        Child::start("processor-default", &processor(0), None, verbose)?,
        Child::start("processor-fallback", &processor(1), None, verbose)?,
    ];
    children.iter_mut().try_for_each(|child| child.wait_until_listening(1))?;
    children.push(Child::start("galo-1", &instance(0, 1), secret, verbose)?);
    children.push(Child::start("galo-2", &instance(1, 0), secret, verbose)?);
    children[2..].iter_mut().try_for_each(|child| child.wait_until_listening(2))?;
    Ok(children)
}
