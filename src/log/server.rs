//! Where the log is: what a URL in libpq's forms means, and connecting to whichever of its servers
//! takes writes.
//!
//! No password leaves this file but to the server.

use super::Fault;
use super::fault::reasons;
use super::session::{Session, Standing};
use super::tls::Tls;
use crate::base::clock::{self, Moment};
use crate::net::tls::{Given, read_roots, system_roots};
use rustls::RootCertStore;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// So many servers may be named.
const HOSTS_MAX: usize = 16;
/// One that does not answer holds up the others no longer than this, unless the URL says so.
const HOST_WITHIN: Duration = Duration::from_secs(1);
/// Bytes that nobody has confirmed for so long end a connection.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(1);
const KEEPALIVES_MISSED_MAX: u32 = 2;

/// The servers of a log, any of which may be the one that takes writes.
pub struct Server {
    targets: Vec<Target>,
    tls: Tls,
    host_within: Duration,
    /// The target that took writes last.
    good: AtomicUsize,
    role: String,
    database: String,
}

struct Target {
    config: Config,
    name: String,
}

/// Without a password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.targets.iter().map(|target| target.name.as_str()).collect();
        write!(f, "{} at {} as {}", self.database, names.join(", "), self.role)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({self})")
    }
}

impl Server {
    /// Reads `postgres://user:password@host,host:port/database?…` or `host=… port=… …`. Does not
    /// connect. A password that is not there is that of `PGPASSWORD`.
    ///
    /// Understood beside what `tokio-postgres` knows: `sslmode` with `verify-ca` and `verify-full`,
    /// and `sslrootcert`, a file. Whenever TLS is used, the certificate is verified, and the name in
    /// it: what libpq calls `verify-full`.
    ///
    /// # Errors
    /// In one line, if it is none; without anything of it that may be a password.
    pub fn parse(url: &str) -> Result<Server, String> {
        let refused = |what: &str| format!("the URL of the log is of no use: {what}");
        let (url, mode) = without_option(url, "sslmode");
        let (url, roots) = without_option(&url, "sslrootcert");
        let mut config: Config = url.parse().map_err(|error| refused(&reasons(&error)))?;
        let mode = match mode.as_deref() {
            Some("disable") => SslMode::Disable,
            None | Some("prefer" | "allow") => SslMode::Prefer,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some(_) => return Err(refused("sslmode is none")),
        };
        config.ssl_mode(mode);
        if config.get_password().is_none()
            && let Some(password) = std::env::var_os("PGPASSWORD")
        {
            config.password(password.as_encoded_bytes());
        }
        let targets = targets_of(&config).map_err(|what| refused(&what))?;
        let roots = match roots {
            Some(path) => read_roots(&Given { flag: "sslrootcert", path: PathBuf::from(path) })?,
            // Whoever has none finds that out from a server that offers TLS.
            None if mode == SslMode::Require => system_roots()?,
            None => system_roots().unwrap_or_else(|_| RootCertStore::empty()),
        };
        let role = config.get_user().unwrap_or("the user's name").to_string();
        let database = config.get_dbname().unwrap_or(&role).to_string();
        let host_within = config.get_connect_timeout().copied().unwrap_or(HOST_WITHIN);
        let (tls, good) = (Tls::new(roots), AtomicUsize::new(0));
        Ok(Server { targets, tls, host_within, good, role, database })
    }

    /// Connects to the first that takes writes, the one that did so last before the others. A
    /// statement that takes longer than so long is given up by the server.
    ///
    /// # Errors
    /// What each of them answered; [`Fault::Setup`] if none can be used as things are.
    pub fn connect(&self, until: Moment, statement: Duration) -> Result<Session, Fault> {
        let (first, count) = (self.good.load(Ordering::Relaxed), self.targets.len());
        let (mut told, mut is_setup) = (Vec::new(), true);
        for index in (first..first + count).map(|index| index % count) {
            let target = &self.targets[index];
            let now = clock::moment();
            let limit = until.min(now + self.host_within);
            match Session::begin(&target.config, self.tls.clone(), limit, statement) {
                Ok(session) => {
                    self.good.store(index, Ordering::Relaxed);
                    return Ok(session);
                }
                Err(fault) => {
                    is_setup &= matches!(fault, Fault::Setup(_));
                    let what = match fault {
                        Fault::NoAnswer(what) | Fault::Setup(what) => what,
                        fault => fault.to_string(),
                    };
                    told.push(format!("{}: {what}", target.name));
                }
            }
        }
        let told = told.join("; ");
        Err(if is_setup { Fault::Setup(told) } else { Fault::NoAnswer(told) })
    }

    /// What is worth a line when the program starts, if anything is.
    pub fn warning(&self, standing: &Standing) -> Option<String> {
        standing.standby_names.trim().is_empty().then(|| {
            format!(
                "the log {self} is on one server: synchronous_standby_names is empty, and what is \
                 accepted is lost with that server's disk"
            )
        })
    }
}

/// One configuration for each host: who has several and stands still must not hold up the others.
fn targets_of(config: &Config) -> Result<Vec<Target>, String> {
    let (hosts, ports) = (config.get_hosts(), config.get_ports());
    if hosts.is_empty() {
        return Err("it names no host".into());
    }
    if hosts.len() > HOSTS_MAX || !config.get_hostaddrs().is_empty() {
        return Err(format!("it names more than {HOSTS_MAX} hosts, or a hostaddr"));
    }
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err("it has not one port for all hosts, nor one for each".into());
    }
    let port_of = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let target = |(index, host): (usize, &Host)| {
        let port = port_of(index);
        let mut config = alone(config);
        config.port(port);
        let name = match host {
            // Of a password with an @ that was not escaped.
            Host::Tcp(host) if host.contains('@') => {
                return Err("in a password, write @ as %40, and / as %2F".to_string());
            }
            Host::Tcp(host) => {
                config.host(host);
                format!("{host}:{port}")
            }
            Host::Unix(path) => {
                config.host_path(path);
                format!("{}:{port}", path.display())
            }
        };
        Ok(Target { config, name })
    };
    hosts.iter().enumerate().map(target).collect()
}

/// The same without hosts and ports, and with what lets a server that has gone be noticed.
fn alone(config: &Config) -> Config {
    let mut new = Config::new();
    if let Some(user) = config.get_user() {
        new.user(user);
    }
    if let Some(password) = config.get_password() {
        new.password(password);
    }
    if let Some(database) = config.get_dbname() {
        new.dbname(database);
    }
    if let Some(options) = config.get_options() {
        new.options(options);
    }
    new.application_name(config.get_application_name().unwrap_or("galo"));
    new.ssl_mode(config.get_ssl_mode());
    new.ssl_negotiation(config.get_ssl_negotiation());
    new.channel_binding(config.get_channel_binding());
    // Looked at by the session itself, within its time.
    new.target_session_attrs(TargetSessionAttrs::Any);
    let user_timeout = config.get_tcp_user_timeout().copied().unwrap_or(UNCONFIRMED_MAX);
    new.tcp_user_timeout(user_timeout);
    new.keepalives(config.get_keepalives());
    let idle = config.get_keepalives_idle();
    // Two hours if the URL says nothing.
    new.keepalives_idle(if idle < Duration::from_secs(7200) { idle } else { KEEPALIVE_EVERY });
    new.keepalives_interval(config.get_keepalives_interval().unwrap_or(KEEPALIVE_EVERY));
    new.keepalives_retries(config.get_keepalives_retries().unwrap_or(KEEPALIVES_MISSED_MAX));
    new
}

/// Takes an option out of a connection string of either form.
fn without_option(url: &str, name: &str) -> (String, Option<String>) {
    let prefix = format!("{name}=");
    if url.contains("://") {
        let Some((before, query)) = url.split_once('?') else { return (url.into(), None) };
        let (of_it, others): (Vec<&str>, Vec<&str>) =
            query.split('&').partition(|pair| pair.starts_with(&prefix));
        let value = of_it.last().map(|pair| unescaped(&pair[prefix.len()..]));
        let question = if others.is_empty() { "" } else { "?" };
        return (format!("{before}{question}{}", others.join("&")), value);
    }
    // Where a value may be quoted, only words that begin outside of quotation marks are looked at.
    let mut is_quoted = false;
    let (mut rest, mut value) = (Vec::new(), None);
    for word in url.split(' ') {
        match word.strip_prefix(&prefix) {
            Some(it) if !is_quoted => value = Some(it.trim_matches('\'').to_string()),
            _ => rest.push(word),
        }
        let escaped = word.replace("\\\\", "").replace("\\'", "");
        is_quoted ^= escaped.matches('\'').count() % 2 == 1;
    }
    (rest.join(" "), value)
}

/// `%2F` as `/`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let hex = after.get(..2).filter(|_| *byte == b'%');
        let code = hex.and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_never_who_by_what_password() {
        let cases = [
            ("postgres://galo:secret@a,b:6000/books", "a:5432, b:6000"),
            ("postgresql://galo:s%40cret@a:1,b:2/books?sslmode=verify-full", "a:1, b:2"),
            ("host=a,b port=1 user=galo password=secret dbname=books sslmode=disable", "a:1, b:1"),
            ("postgres://galo@%2Frun%2Fpg/books?target_session_attrs=read-write", "/run/pg:5432"),
        ];
        for (url, hosts) in cases {
            let server = Server::parse(url).map_err(|error| format!("{url}: {error}"));
            let shown = format!("{0} {0:?}", server.unwrap());
            assert!(shown.contains(&format!("books at {hosts} as galo")), "{shown}");
            assert!(!shown.contains("cret"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_without_a_word_of_it() {
        for url in [
            "",
            "postgres://",
            "postgres:///books",
            "postgres://galo:secret@a/books?sslmode=secret",
            "postgres://galo:se@cret@a/books",
            "postgres://galo:secret@a:1,b:2,c/books?port=1,2",
            "postgres://galo:secret@a/books?secret=1",
            "host=a password='secret",
        ] {
            let refused = Server::parse(url).err().unwrap_or_else(|| panic!("{url}"));
            assert!(
                !refused.contains('\n') && refused.starts_with("the URL of the log"),
                "{refused}"
            );
            assert!(!refused.contains("cret@"), "{refused}");
        }
    }

    #[test]
    fn options_are_taken_out_of_both_forms() {
        let cases = [
            ("postgres://a/b?x=1&sslmode=require&y=2", "postgres://a/b?x=1&y=2", Some("require")),
            ("postgres://a/b?sslmode=a%2Fb", "postgres://a/b", Some("a/b")),
            ("postgres://a/b", "postgres://a/b", None),
            ("host=a sslmode=disable port=1", "host=a port=1", Some("disable")),
            ("host=a sslmode='disable'", "host=a", Some("disable")),
            ("password='a sslmode=b' host=a", "password='a sslmode=b' host=a", None),
        ];
        for (url, rest, value) in cases {
            assert_eq!(
                without_option(url, "sslmode"),
                (rest.into(), value.map(Into::into)),
                "{url}"
            );
        }
    }
}
