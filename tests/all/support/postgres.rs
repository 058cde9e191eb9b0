//! A real PostgreSQL of a test's own: Debian's, in a scratch directory, on a loopback port.
//!
//! It refuses to run as root, so there the user `postgres` runs it. It ends with the thread that has
//! started it, also after a failure.

use super::journals::Scratch;
use super::{PATIENCE, wait_until};
use galo::base::clock;
use galo::log::{
    LogNumber, LogStorage, Me, Ownership, Scratch as Local, Server, Take, Tenure, create,
};
use std::fs::Permissions;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A running server. Stopped at once when dropped.
pub struct Postgres {
    binaries: PathBuf,
    scratch: Scratch,
    port: u16,
    settings: Vec<String>,
    postmaster: Option<Child>,
}

/// Where the newest that is installed has its programs.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("Debian's package postgresql");
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.flatten().map(|entry| entry.path()).max_by_key(number);
    newest.expect("a version of PostgreSQL").join("bin")
}

/// The user and the group that run it, if we are root.
fn other_user() -> Option<(u32, u32)> {
    let id = |flag: &str, user: &[&str]| -> u32 {
        let output = Command::new("id").arg(flag).args(user).output().expect("id(1) runs");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.trim().parse().expect("the user postgres, of the package")
    };
    (id("-u", &[]) == 0).then(|| (id("-u", &["postgres"]), id("-g", &["postgres"])))
}

impl Postgres {
    pub fn start() -> Postgres {
        Postgres::with(&[])
    }

    pub fn with_tables() -> Postgres {
        let postgres = Postgres::start();
        assert!(create(&postgres.server(), late()).expect("tables"));
        postgres
    }

    /// With settings of its own, as `name=value`.
    pub fn with(settings: &[&str]) -> Postgres {
        let mut postgres = Postgres::made(settings);
        postgres.start_again();
        postgres
    }

    /// One that has a certificate and its key, as PEM.
    pub fn with_tls(certificate: &str, key: &str) -> Postgres {
        let mut postgres = Postgres::made(&["ssl=on"]);
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = Path::new(&postgres.data()).join(name);
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our file");
            if let Some((user, group)) = other_user() {
                chown(&path, Some(user), Some(group)).expect("our file");
            }
        }
        postgres.start_again();
        postgres
    }

    fn made(settings: &[&str]) -> Postgres {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("a bound address").port();
        drop(free);
        let scratch = Scratch::new();
        if let Some((user, group)) = other_user() {
            chown(scratch.path(), Some(user), Some(group)).expect("a directory that is ours");
        }
        let settings = settings.iter().map(ToString::to_string).collect();
        let binaries = binaries();
        let postgres = Postgres { binaries, scratch, port, settings, postmaster: None };
        let made = postgres
            .command("initdb")
            .args(["--auth=trust", "--username=galo", "--encoding=UTF8", "--no-sync", "--pgdata"])
            .arg(postgres.data())
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres
    }

    fn data(&self) -> String {
        self.scratch.join("data")
    }

    /// A program of its, as the user that may run it, until the thread ends.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if let Some((user, group)) = other_user() {
            let (user, group) = (user.to_string(), group.to_string());
            command.args(["--reuid", &user, "--regid", &group, "--clear-groups"]);
        }
        command.arg("--").arg(self.binaries.join(program)).current_dir("/");
        command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        command
    }

    /// After it was stopped or killed.
    pub fn start_again(&mut self) {
        let log = std::fs::File::create(self.scratch.path().join("server.log")).expect("a log");
        let mut command = self.command("postgres");
        command.args(["-D", &self.data(), "-p", &self.port.to_string()]);
        command.args(["-k", &self.scratch.path().display().to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "shared_buffers=16MB", "max_connections=40"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("it starts");
        self.postmaster = Some(child);
        wait_until("PostgreSQL answers", || self.ask("SELECT 1").is_ok());
    }

    /// At once, as if it had crashed.
    pub fn kill(&mut self) {
        let Some(mut child) = self.postmaster.take() else { return };
        let id = child.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        let _ = child.wait();
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// The URL of a proxy before it.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("postgres://galo:unused@{address}/postgres?sslmode=disable")
    }

    pub fn server(&self) -> Arc<Server> {
        Arc::new(Server::parse(&self.url()).expect("a URL"))
    }

    /// What `psql` answers, unaligned and without heads.
    pub fn ask(&self, sql: &str) -> Result<String, String> {
        let port = self.port.to_string();
        let output = Command::new(self.binaries.join("psql"))
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "galo", "-p", &port])
            .args(["-d", "postgres", "-c", sql])
            .env("PGCONNECT_TIMEOUT", PATIENCE.as_secs().to_string())
            .output()
            .expect("psql runs");
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_string()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Likewise, of what cannot fail.
    pub fn sql(&self, sql: &str) -> String {
        self.ask(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Stops these processes of it, and itself, until what is returned is dropped.
    pub fn freeze(&self, pids: &str) -> Frozen {
        let own = self.postmaster.as_ref().expect("it runs").id().to_string();
        let pids: Vec<String> = pids.split(' ').map(str::to_owned).chain([own]).collect();
        assert!(Command::new("kill").arg("-STOP").args(&pids).status().expect("kill").success());
        Frozen(pids)
    }
}

/// See [`Postgres::freeze`].
pub struct Frozen(Vec<String>);

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg("-CONT").args(&self.0).status();
    }
}

/// A log that was taken.
pub struct Log {
    pub ownership: Ownership,
    pub tenure: Arc<Tenure>,
    server: Arc<Server>,
    lease: Duration,
}

impl Log {
    pub fn ownership(server: &Arc<Server>, name: &str, lease: Duration) -> Ownership {
        let me = Me::new(name, "127.0.0.1:9999");
        Ownership::new(server.clone(), LogNumber::FIRST, me, lease)
    }

    pub fn take(url: &str, name: &str, lease: Duration) -> Log {
        let server = Arc::new(Server::parse(url).expect("a URL"));
        let mut ownership = Log::ownership(&server, name, lease);
        match ownership.take(lease, late()).expect("an answer") {
            Take::Taken { epoch, until } => {
                Log { ownership, tenure: Tenure::new(epoch, until), server, lease }
            }
            held @ Take::Held { .. } => panic!("{held:?}"),
        }
    }

    pub fn open(&self) -> LogStorage {
        let (server, tenure) = (self.server.clone(), self.tenure.clone());
        LogStorage::open(server, LogNumber::FIRST, tenure, Local::new(None), self.lease)
            .expect("it is ours")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A moment by which anything has happened.
pub fn late() -> clock::Moment {
    clock::moment() + PATIENCE
}
