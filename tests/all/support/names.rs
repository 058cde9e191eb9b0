//! Names of processors that can exchange their addresses: a table of names that only a test's own
//! processes see, and a switch that says which processor is at which address.

use super::journals::Scratch;
use super::system::free_address;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

/// A file that stands in the place of `/etc/hosts` for whoever is started by [`Hosts::command`].
#[derive(Clone)]
pub struct Hosts {
    path: PathBuf,
    _scratch: Arc<Scratch>,
}

const BIND: &str = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";

impl Hosts {
    /// `None`, and the reason on standard output, where this is not permitted.
    pub fn new(entries: &[(&str, Ipv4Addr)]) -> Option<Hosts> {
        let scratch = Scratch::new();
        let hosts = Hosts { path: scratch.path().join("hosts"), _scratch: Arc::new(scratch) };
        hosts.write(entries);
        match hosts.in_its_place("true").output() {
            Ok(output) if output.status.success() => Some(hosts),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: unshare(1) does not run: {error}");
                None
            }
        }
    }

    /// Replaces the table, in place: it is this file that is seen. Whoever reads meanwhile sees the
    /// old table or the new one, if both are of one length.
    pub fn write(&self, entries: &[(&str, Ipv4Addr)]) {
        let mut table = String::from("127.0.0.1 localhost\n");
        for (name, address) in entries {
            table += &format!("{address} {name}\n");
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(false).open(&self.path).unwrap();
        file.write_all(table.as_bytes()).expect("it can be written");
    }

    /// The binary, seeing this table.
    pub fn command(&self, args: &[String]) -> Command {
        let mut command = self.in_its_place(env!("CARGO_BIN_EXE_galo"));
        command.args(args);
        command
    }

    fn in_its_place(&self, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", BIND]).arg(&self.path).arg(program);
        command
    }
}

/// Two addresses with the same port, and a processor behind each.
pub struct Switch {
    pub addresses: [SocketAddr; 2],
    /// The first processor is at the second address, and the other way round.
    pub is_swapped: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Who is at which address; `None`: nobody is.
    targets: [Option<SocketAddr>; 2],
    /// Both ends of each connection, by its number.
    connections: HashMap<u64, Arc<[TcpStream; 2]>>,
    count: u64,
    is_over: bool,
}

impl Switch {
    pub fn new(targets: [SocketAddr; 2]) -> Switch {
        let state = State { targets: targets.map(Some), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let listeners = listeners();
        let addresses = listeners.each_ref().map(|it| it.local_addr().expect("a bound address"));
        for (index, listener) in listeners.into_iter().enumerate() {
            let state = state.clone();
            thread::spawn(move || {
                let mut clients = listener.incoming().flatten();
                while let Some(client) = clients.next()
                    && !state.lock().unwrap().is_over
                {
                    join(&state, index, client);
                }
            });
        }
        Switch { addresses, is_swapped: false, state }
    }

    /// Both processors stop: nobody is at either address any more.
    pub fn clear(&self) {
        let mut state = self.state.lock().unwrap();
        state.targets = [None; 2];
        state.connections.drain().for_each(|(_, ends)| shut(&ends));
    }

    /// They are there again, each at its address of now.
    pub fn set(&self, mut targets: [SocketAddr; 2]) {
        if self.is_swapped {
            targets.swap(0, 1);
        }
        self.state.lock().unwrap().targets = targets.map(Some);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.clear();
        self.state.lock().unwrap().is_over = true;
        // So that they see it.
        self.addresses.iter().for_each(|address| drop(TcpStream::connect(address)));
    }
}

/// Two addresses of this machine with one port that is free on both.
fn listeners() -> [TcpListener; 2] {
    loop {
        let (first, second) = (free_address(), free_address());
        let second = SocketAddr::new(second.ip(), first.port());
        if let (Ok(first), Ok(second)) = (TcpListener::bind(first), TcpListener::bind(second)) {
            return [first, second];
        }
    }
}

fn join(state: &Arc<Mutex<State>>, index: usize, client: TcpStream) {
    let mut all = state.lock().unwrap();
    let Some(target) = all.targets[index] else { return };
    let Ok(server) = TcpStream::connect(target) else { return };
    let ends = Arc::new([client, server]);
    ends.iter().for_each(|end| _ = end.set_nodelay(true));
    all.count += 1;
    let number = all.count;
    all.connections.insert(number, ends.clone());
    drop(all);
    for (from, to) in [(0, 1), (1, 0)] {
        let (state, ends) = (state.clone(), ends.clone());
        thread::spawn(move || {
            // Until one of the two ends, or both are cut.
            let _ = io::copy(&mut &ends[from], &mut &ends[to]);
            shut(&ends);
            state.lock().unwrap().connections.remove(&number);
        });
    }
}

fn shut(ends: &[TcpStream; 2]) {
    for end in ends {
        // It may have ended before.
        let _ = end.shutdown(Shutdown::Both);
    }
}
