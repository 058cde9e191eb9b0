//! The system that is shown: where its parts listen, and how its four processes are started.
//!
//! The only file that knows the flags of `galo serve` and `galo processor`. What is not set here
//! is theirs to decide, or their environment's: GALO_PATIENCE and the like reach them.

use super::args::{DemoArgs, Ports};
use super::children::Child;
use super::client::ADMIN_TOKEN;
use super::wire::Wire;
use crate::base::clock;
use crate::base::money::Fee;
use crate::tools::dice::random_bytes;
use rustix::fs::{MemfdFlags, memfd_create};
use std::cell::Cell;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Where everybody listens.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub entry: SocketAddr,
    pub processors: [SocketAddr; 2],
    pub peers: [SocketAddr; 2],
    pub admins: [SocketAddr; 2],
    /// The demo's own page.
    pub page: SocketAddr,
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
            page: take(args.page_port, "--page-port")?,
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

/// The names of folders of demos, before their process ids.
const FOLDER: &str = "galo-demo-";
/// A file in it that is locked while its demo runs, wherever that is.
const LOCK: &str = "lock";

/// The instances' journals: a folder of temporary files, removed when dropped.
struct Folder {
    path: PathBuf,
    /// Held for as long as the folder is used.
    _lock: File,
}

impl Folder {
    /// Also removes those of demos that were killed.
    ///
    /// # Errors
    /// In one line, if it cannot be made.
    pub fn make() -> Result<Folder, String> {
        let temporary = std::env::temp_dir();
        for entry in std::fs::read_dir(&temporary).into_iter().flatten().flatten() {
            let is_demo = entry.file_name().to_str().is_some_and(|name| name.starts_with(FOLDER));
            let lock = || File::open(entry.path().join(LOCK));
            if is_demo && lock().is_ok_and(|lock| lock.try_lock().is_ok()) {
                // Somebody else's stays.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let path = temporary.join(format!("{FOLDER}{}", std::process::id()));
        let make = || {
            DirBuilder::new().mode(0o700).create(&path)?;
            let lock = File::create(path.join(LOCK))?;
            lock.lock()?;
            Ok(lock)
        };
        let made: io::Result<File> = make();
        let _lock = made
            .map_err(|error| format!("no folder for the journals: {}: {error}", path.display()))?;
        Ok(Folder { path, _lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is removed by the next demo.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What the processes are started with.
pub struct System {
    places: Places,
    fees: [Fee; 2],
    /// What the instances share.
    peer_token: String,
    /// Open as long as an instance may be started.
    _admin_token: File,
    admin_token_file: String,
    is_contest: bool,
    verbose: bool,
    /// From the first instance to the second, and back; none in a contest.
    wires: Vec<Wire>,
    /// In a contest there are no journals.
    folder: Cell<Option<Folder>>,
}

impl System {
    /// `admin_token` opens the admin doors.
    ///
    /// # Errors
    /// If there is no room for what it needs.
    pub fn new(
        places: Places,
        admin_token: &str,
        fees: [Fee; 2],
        is_contest: bool,
        verbose: bool,
    ) -> Result<System, String> {
        let peer_token = token()?;
        let (admin, admin_token_file) =
            in_memory(admin_token).map_err(|error| format!("no place for a secret: {error}"))?;
        let [first, second] = places.peers;
        let (wires, folder) = match is_contest {
            true => (Vec::new(), None),
            false => {
                let wires = [second, first].into_iter().map(Wire::to).collect::<io::Result<_>>();
                let wires = wires.map_err(|error| format!("no wire: {error}"))?;
                (wires, Some(Folder::make()?))
            }
        };
        let _admin_token = admin;
        Ok(System {
            places,
            fees,
            peer_token,
            _admin_token,
            admin_token_file,
            is_contest,
            verbose,
            wires,
            folder: Cell::new(folder),
        })
    }

    /// Starts the four processes, the processors first. What was started is stopped on an error.
    ///
    /// # Errors
    /// If one of them does not start; with what it logged.
    pub fn start(&self) -> Result<Vec<Child>, String> {
        let mut children = vec![
            self.start_processor("processor-default", 0)?,
            self.start_processor("processor-fallback", 1)?,
        ];
        children.iter_mut().try_for_each(|child| child.wait_until_listening(1))?;
        children.push(self.start_instance("galo-1", 0)?);
        children.push(self.start_instance("galo-2", 1)?);
        children[2..].iter_mut().try_for_each(|child| child.wait_until_listening(2))?;
        Ok(children)
    }

    fn start_processor(&self, name: &'static str, index: usize) -> Result<Child, String> {
        let (address, fee) = (self.places.processors[index], self.fees[index]);
        let line = format!("processor --listen {address} --fee {fee} --token {ADMIN_TOKEN}");
        Child::start(name, &words(&line), None, self.verbose)
    }

    /// Starts an instance, the first or the second, and does not wait until it listens.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_instance(&self, name: &'static str, own: usize) -> Result<Child, String> {
        let Places { entry, processors, peers, admins, .. } = self.places;
        let other = self.wires.get(own).map_or(peers[1 - own], |wire| wire.address);
        let mut args = words(&format!(
            "serve --instance {} --listen {entry} --share-port --peer-listen {} --peer http://{other} \
             --default-url http://{} --fallback-url http://{} --default-fee {} --fallback-fee {} \
             --admin-listen {} --admin-token-file {} --events-kept 0",
            own + 1,
            peers[own],
            processors[0],
            processors[1],
            self.fees[0],
            self.fees[1],
            admins[own],
            self.admin_token_file,
        ));
        if let Some(folder) = self.folder.take() {
            // Apart from the others: a path may have spaces.
            args.push("--data".into());
            args.push(folder.path.join((own + 1).to_string()).display().to_string());
            self.folder.set(Some(folder));
        }
        if self.is_contest {
            // A contest begins with it. Otherwise it would only make the books differ: the
            // processors would not forget.
            args.push("--allow-purge".into());
        }
        // By the environment: everybody on the machine can read a command line.
        let secret = Some(("GALO_PEER_TOKEN", self.peer_token.as_str()));
        Child::start(name, &args, secret, self.verbose)
    }

    /// Removes the journals.
    pub fn remove_folder(&self) {
        drop(self.folder.take());
    }

    /// Cuts the instances apart, or joins them again.
    pub fn set_cut(&self, is_cut: bool) {
        self.wires.iter().for_each(|wire| if is_cut { wire.cut() } else { wire.mend() });
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}
