//! Every setting: flags and environment, read once, checked against each other. What cannot be set
//! is in `base/limits.rs`.
//!
//! What was typed ([`ServeArgs`]) becomes what it means ([`Config`]) or one clear line of refusal.

use crate::base::instance::Instance;
use crate::base::limits::{EVENTS_KEPT_BYTES, PEER_TOKEN_LENGTH_MIN, TOKEN_FILE_BYTES_MAX};
use crate::base::money::Fee;
use crate::instance::connectors::Settings;
use crate::instance::tokens::Tokens;
use crate::instance::webhook::{Receiver, Secret};
use crate::journal::{self, identity::Change};
use crate::ledger::accounts::{self, Limits};
use crate::net::client::Url;
use crate::net::tls::{self, Given, Trust};
use crate::payments::names::Names;
use crate::payments::router::Policy;
use crate::processors::Timeouts;
use clap::Args;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// An address to listen on: `HOST:PORT` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddress, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = (1..=107).contains(&path.len());
            return fits
                .then(|| ListenAddress::Unix(path.into()))
                .ok_or("a unix socket's path has 1 to 107 bytes".into());
        }
        let address = text.parse().map_err(|_| "it must be IP:PORT or unix:/path")?;
        Ok(ListenAddress::Tcp(address))
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What an answer of 2xx promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// In memory: lost if the process dies.
    None,
    /// In the journal, handed to the kernel: survives the death of the process.
    Process,
    /// In the journal, on the disk: survives the loss of power.
    Disk,
}

/// What is said of processors without a file of them.
const CONTESTS_OWN: [&str; 10] = [
    "default_url",
    "fallback_url",
    "processors_ca",
    "processors_client_cert",
    "processors_client_key",
    "default_fee",
    "fallback_fee",
    "processor_concurrency",
    "processor_timeout",
    "connect_timeout",
];

/// One instance: takes payments, drives them to the processors, tells what went where.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Where clients (or the balancer) connect: IP:PORT or unix:/path. Repeatable. `[::]:PORT` takes
    /// IPv4 as well, unless an IPv4 address of the same port is listed beside it.
    #[arg(long, env = "GALO_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:9999")]
    pub listen: Vec<ListenAddress>,

    /// Share a TCP port with another process (SO_REUSEPORT) instead of refusing to start.
    #[arg(long, env = "GALO_SHARE_PORT")]
    pub share_port: bool,

    /// Event loops, one a thread, up to 64. With 1, one loop does everything, which costs least;
    /// with 2 or more, the last one drives the payments and the others serve.
    #[arg(long, env = "GALO_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,

    /// A file that describes the payment processors, one to eight of them (docs/processors.md): instead of
    /// the flags from --default-url to --fallback-fee, and of those with the limits and time-outs of
    /// processors. Without it, the contest's two
    #[arg(long, env = "GALO_PROCESSORS", conflicts_with_all = CONTESTS_OWN)]
    pub processors: Option<PathBuf>,

    /// The default payment processor: http://HOST:PORT, or https:// to speak TLS.
    #[arg(long, env = "GALO_DEFAULT_URL", default_value = "http://127.0.0.1:8001", value_parser = Url::with_tls_or_without)]
    pub default_url: Url,

    /// The fallback payment processor, likewise.
    #[arg(long, env = "GALO_FALLBACK_URL", default_value = "http://127.0.0.1:8002", value_parser = Url::with_tls_or_without)]
    pub fallback_url: Url,

    /// A file with the certificates of the authorities that are believed when a processor is spoken
    /// to by TLS, as PEM. Without it, those that this system believes
    #[arg(long, env = "GALO_PROCESSORS_CA")]
    pub processors_ca: Option<PathBuf>,

    /// A file with our certificate, for processors that ask for one: PEM, with those between it and
    /// its authority behind it.
    #[arg(long, env = "GALO_PROCESSORS_CLIENT_CERT", requires = "processors_client_key")]
    pub processors_client_cert: Option<PathBuf>,

    /// And a file with its private key, as PEM without a password.
    #[arg(long, env = "GALO_PROCESSORS_CLIENT_KEY", requires = "processors_client_cert")]
    pub processors_client_key: Option<PathBuf>,

    /// What the default processor takes of each amount. The cheaper of the two is preferred.
    #[arg(long, env = "GALO_DEFAULT_FEE", default_value = "0.05")]
    pub default_fee: Fee,

    /// What the fallback processor takes of each amount.
    #[arg(long, env = "GALO_FALLBACK_FEE", default_value = "0.15")]
    pub fallback_fee: Fee,

    /// Where the other instance, and nobody else, connects: IP:PORT or unix:/path. Also serves
    /// GET /metrics.
    #[arg(long, env = "GALO_PEER_LISTEN")]
    pub peer_listen: Option<ListenAddress>,

    /// The other instance's --peer-listen, as a URL.
    #[arg(long, env = "GALO_PEER", requires = "peer_listen")]
    pub peer: Option<Url>,

    /// Which of the two this is: 1 or 2. Each payment id belongs to one of them (the first if its
    /// last hex digit is even), which alone decides whether it is new.
    #[arg(long, env = "GALO_INSTANCE", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub instance: u8,

    /// After the other instance has been away for so long, payments accepted in its place are
    /// driven from here. For the first half of it an instance pays its own wherever it likes; from
    /// then on, until it sees its peer again, both pay at the cheaper processor only. A processor is
    /// taken to book a request within half of it, or never.
    #[arg(long, env = "GALO_ADOPT_AFTER", default_value = "30s", value_parser = humantime::parse_duration)]
    pub adopt_after: Duration,

    /// The secret that both instances share, at least 8 characters.
    #[arg(long, env = "GALO_PEER_TOKEN", hide_env_values = true)]
    pub peer_token: Option<String>,

    /// Or a file with it, on one line; while it is changed a second one below it, which is taken from the
    /// other instance as well.
    #[arg(long, env = "GALO_PEER_TOKEN_FILE", conflicts_with = "peer_token")]
    pub peer_token_file: Option<PathBuf>,

    /// Where operators look: IP:PORT or unix:/path. Serves GET /status.json, /metrics, /events,
    /// /payments and /payments/{id}, with the token of --admin-token-file.
    #[arg(long, env = "GALO_ADMIN_LISTEN", requires = "admin_token_file")]
    pub admin_listen: Option<ListenAddress>,

    /// A file with the token of the admin door, at least 8 characters, on one line.
    #[arg(long, env = "GALO_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// So much of the journal is kept for those who follow the events, beside the books: bytes, or
    /// with KiB, MiB, GiB. 256MiB if there is an admin door or a webhook, else 0
    #[arg(long, env = "GALO_EVENTS_KEPT", value_parser = read_bytes)]
    pub events_kept: Option<u64>,

    /// So much of the ledger's entries is kept for `galo export`, beside the accounts: bytes, or with
    /// KiB, MiB, GiB. Without it nothing comes to what is kept, and nothing of it goes
    #[arg(long, env = "GALO_ENTRIES_KEPT", value_parser = read_bytes, requires = "data")]
    pub entries_kept: Option<u64>,

    /// Where every settlement, rejection and resolution of this instance is POSTed to: an http:// URL,
    /// with a path
    #[arg(long, env = "GALO_WEBHOOK", requires_all = ["webhook_secret_file", "data"])]
    pub webhook: Option<Receiver>,

    /// A file with the secret that these are signed with: whsec_ and 24 to 64 bytes in base64, on one
    /// line
    #[arg(long, env = "GALO_WEBHOOK_SECRET_FILE")]
    pub webhook_secret_file: Option<PathBuf>,

    /// A file of tokens, one a line, one of which every request at the entry must have then, but for
    /// GET /healthz.
    #[arg(long, env = "GALO_ENTRY_TOKENS")]
    pub entry_tokens: Option<PathBuf>,

    /// Allow POST /purge-payments, which forgets all payments in both instances.
    #[arg(long, env = "GALO_ALLOW_PURGE")]
    pub allow_purge: bool,

    /// The accounts of the ledger: a file of lines ID,LIMIT with limits in cents. Without it, the
    /// five of the contest, 1 to 5.
    #[arg(long, env = "GALO_ACCOUNTS")]
    pub accounts: Option<PathBuf>,

    /// The directory of this instance's journal, made if need be. Without it nothing survives the
    /// process.
    #[arg(long, env = "GALO_DATA")]
    pub data: Option<PathBuf>,

    /// Settlements stay in the journal's books for at least so long, such as 400d; then they leave into
    /// files NUMBER.archive beside it, which may be moved away. Their totals by day stay. Without it
    /// they stay for good.
    #[arg(long, env = "GALO_KEEP", requires = "data", value_parser = humantime::parse_duration)]
    pub keep: Option<Duration>,

    /// Changes to settings that a journal would be refused for, and that are meant: give them for
    /// one start, as the refusal says.
    #[arg(long, env = "GALO_ACCEPT_CHANGE", value_enum, value_delimiter = ',')]
    pub accept_change: Vec<Change>,

    /// What a 2xx promises; with --data, process if nothing is said.
    #[arg(long, env = "GALO_DURABILITY", value_enum)]
    pub durability: Option<Durability>,

    /// How long a payment waits for the cheaper processor before it goes to the other one.
    #[arg(long, env = "GALO_PATIENCE", default_value = "300ms", value_parser = humantime::parse_duration)]
    pub patience: Duration,

    /// No attempt is started whose answer is expected to take longer.
    #[arg(long, env = "GALO_ATTEMPT_LATENCY_MAX", default_value = "1400ms", value_parser = humantime::parse_duration)]
    pub attempt_latency_max: Duration,

    /// Attempts in flight at one processor, from this instance.
    #[arg(long, env = "GALO_PROCESSOR_CONCURRENCY", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub processor_concurrency: u32,

    /// After so long without an answer an attempt's outcome is taken as unknown, and asked for.
    #[arg(long, env = "GALO_PROCESSOR_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub processor_timeout: Duration,

    /// How long connecting to a processor may take, with the handshake of TLS if there is one.
    #[arg(long, env = "GALO_CONNECT_TIMEOUT", default_value = "1s", value_parser = humantime::parse_duration)]
    pub connect_timeout: Duration,

    /// Payments accepted and not settled; beyond it new ones are answered 503.
    #[arg(long, env = "GALO_QUEUE_CAPACITY", default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub queue_capacity: u32,

    /// The newest so many payment ids are known again when they are sent twice.
    #[arg(long, env = "GALO_IDS_REMEMBERED", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(256..=100_000_000))]
    pub ids_remembered: u32,

    /// Connections at once at the entry, and as many at the peer's door; beyond it new ones are
    /// answered 503. Fewer, with a warning, if the process may not open so many files.
    #[arg(long, env = "GALO_CONNECTIONS_MAX", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_max: u32,

    /// A connection without a request for so long is closed. Longer than the balancer keeps idle
    /// connections, so that none is closed while a request is on its way.
    #[arg(long, env = "GALO_IDLE_TIMEOUT", default_value = "75s", value_parser = humantime::parse_duration)]
    pub idle_timeout: Duration,

    /// A request must be whole so long after its first byte.
    #[arg(long, env = "GALO_REQUEST_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// After SIGTERM: go on taking work for so long, while /healthz already answers 503, until the
    /// balancer has looked.
    #[arg(long, env = "GALO_DRAIN_NOTICE", default_value = "0s", value_parser = humantime::parse_duration)]
    pub drain_notice: Duration,

    /// After SIGTERM: wait so long for what was accepted to be settled.
    #[arg(long, env = "GALO_DRAIN_TIMEOUT", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// What to log: off, error, warn, info or debug.
    #[arg(long, env = "GALO_LOG", default_value = "info", value_parser = log_level)]
    pub log: log::LevelFilter,

    /// How log lines look
    #[arg(long, env = "GALO_LOG_FORMAT", default_value = "text", value_enum)]
    pub log_format: crate::base::log::Format,
}

/// What the arguments mean: consistent, and complete.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: Vec<ListenAddress>,
    pub share_port: bool,
    pub threads: usize,
    /// The file of processors, if there is one.
    pub processors_file: Option<PathBuf>,
    /// In its order; without it, the contest's two.
    pub processors: Vec<Settings>,
    pub peer_listen: Option<ListenAddress>,
    pub peer: Option<Url>,
    pub instance: Instance,
    pub adopt_after: Duration,
    pub peer_token: Arc<Tokens>,
    pub admin_listen: Option<ListenAddress>,
    pub admin_token: Option<Arc<Tokens>>,
    /// `None`: everybody may come in.
    pub entry_tokens: Option<Arc<Tokens>>,
    pub events_kept_bytes: u64,
    /// How long settlements stay in the books at least. `None`: for good.
    pub keep: Option<Duration>,
    /// `None`: nothing comes to what is kept, and nothing of it goes.
    pub entries_kept_bytes: Option<u64>,
    /// Where events are pushed to, and what they are signed with.
    pub webhook: Option<(Receiver, Secret)>,
    pub allow_purge: bool,
    pub accounts: Arc<Limits>,
    /// Changes since the journal was last used that are meant.
    pub accept_change: Vec<Change>,
    /// The journal's directory and what is promised, if anything is.
    pub journal: Option<(PathBuf, journal::Durability)>,
    pub policy: Policy,
    pub queue_capacity: usize,
    pub ids_remembered: usize,
    pub connections_max: usize,
    /// The same at the peer's door. Differs only where files are few ([`super::files`]).
    pub peer_connections_max: usize,
    /// So many files may be open for the connections to processors.
    pub processor_files: usize,
    pub idle_timeout: Duration,
    pub request_timeout: Duration,
    pub drain_notice: Duration,
    pub drain_timeout: Duration,
}

/// So many bytes are kept for those who follow, if nothing is said about it.
fn events_kept_without_a_word(is_followed: bool) -> u64 {
    if is_followed { EVENTS_KEPT_BYTES } else { 0 }
}

impl Config {
    /// Checks the arguments against each other.
    ///
    /// # Errors
    /// One line that names the setting and what to do.
    pub fn new(args: ServeArgs) -> Result<Config, String> {
        check_times(&args)?;
        let processors = processors_of(&args)?;
        let peer_token = match args.peer_token_file.as_deref() {
            Some(path) => Tokens::of_peer(path)?,
            None => peer_token_of(args.peer_token, args.peer.is_some())?,
        };
        let admin_token = args.admin_token_file.as_deref().map(Tokens::of_admin).transpose()?;
        let entry_tokens = args.entry_tokens.as_deref().map(Tokens::of_entry).transpose()?;
        let webhook = webhook_of(args.webhook, args.webhook_secret_file.as_deref())?;
        let kept = events_kept_without_a_word(args.admin_listen.is_some() || webhook.is_some());
        if args.queue_capacity > args.ids_remembered {
            return Err("--ids-remembered must be at least --queue-capacity, or a payment could be forgotten while it waits".into());
        }
        let journal = journal_of(args.data, args.durability)?;
        let policy = Policy {
            patience: args.patience,
            attempt_latency_max: args.attempt_latency_max,
            books_within: args.adopt_after / 2,
            // The offers are known when the processors have their numbers.
            ..Policy::default()
        };
        Ok(Config {
            listen: args.listen,
            share_port: args.share_port,
            threads: usize::from(args.threads),
            processors_file: args.processors,
            processors,
            peer_listen: args.peer_listen,
            peer: args.peer,
            instance: Instance(args.instance),
            adopt_after: args.adopt_after,
            peer_token: Arc::new(peer_token),
            admin_listen: args.admin_listen,
            admin_token: admin_token.map(Arc::new),
            entry_tokens: entry_tokens.map(Arc::new),
            events_kept_bytes: args.events_kept.unwrap_or(kept),
            keep: args.keep,
            entries_kept_bytes: args.entries_kept,
            webhook,
            allow_purge: args.allow_purge,
            accept_change: args.accept_change,
            accounts: Arc::new(accounts::read(args.accounts.as_deref())?),
            journal,
            policy,
            queue_capacity: args.queue_capacity as usize,
            ids_remembered: args.ids_remembered as usize,
            connections_max: args.connections_max as usize,
            peer_connections_max: args.connections_max as usize,
            processor_files: usize::MAX,
            idle_timeout: args.idle_timeout,
            request_timeout: args.request_timeout,
            drain_notice: args.drain_notice,
            drain_timeout: args.drain_timeout,
        })
    }
}

impl Config {
    /// Whether `[::]` has to leave IPv4 alone: another listener takes it at the same port.
    pub fn leaves_v4(&self, address: &ListenAddress) -> bool {
        let ListenAddress::Tcp(SocketAddr::V6(own)) = address else { return false };
        let mut all = self.listen.iter().chain(&self.peer_listen).chain(&self.admin_listen);
        all.any(|it| {
            matches!(it, ListenAddress::Tcp(SocketAddr::V4(other))
                if other.port() == own.port() && own.port() != 0)
        })
    }
}

/// The processors: those of the file, or the contest's two.
fn processors_of(args: &ServeArgs) -> Result<Vec<Settings>, String> {
    match &args.processors {
        Some(path) => Settings::load(path, args.attempt_latency_max, args.peer.is_some()),
        None => contest_of(args),
    }
}

fn contest_of(args: &ServeArgs) -> Result<Vec<Settings>, String> {
    if args.processor_timeout <= args.attempt_latency_max {
        return Err("--processor-timeout must be longer than --attempt-latency-max".into());
    }
    let trust = trust_of(args)?;
    let timeouts = Timeouts { connect: args.connect_timeout, answer: args.processor_timeout };
    let both = [(&args.default_url, args.default_fee), (&args.fallback_url, args.fallback_fee)];
    let names = Names::contest();
    let settings = |((_, name), (url, fee)): ((_, &str), (&Url, Fee))| {
        let (url, trust) = (url.clone(), trust.clone());
        Settings::of_contest(name, url, trust, fee, args.processor_concurrency, timeouts)
    };
    Ok(names.iter().zip(both).map(settings).collect())
}

/// Whom to believe to be a processor, and what to show it; the system's authorities are read only
/// if they are needed.
fn trust_of(args: &ServeArgs) -> Result<Option<Trust>, String> {
    let given = |flag, path: &'_ Option<PathBuf>| path.clone().map(|path| Given { flag, path });
    let ca = given("--processors-ca", &args.processors_ca);
    let certificate = given("--processors-client-cert", &args.processors_client_cert);
    let key = given("--processors-client-key", &args.processors_client_key);
    if !args.default_url.has_tls() && !args.fallback_url.has_tls() {
        // Whoever gives it takes TLS to be spoken.
        return match ca.or(certificate) {
            None => Ok(None),
            Some(Given { flag, .. }) => Err(format!(
                "{flag} is of no use: neither --default-url nor --fallback-url begins with https://"
            )),
        };
    }
    let own = certificate.zip(key).map(|(certificate, key)| tls::read_own(&certificate, &key));
    let roots = match ca {
        Some(ca) => tls::read_roots(&ca)?,
        None => {
            tls::system_roots().map_err(|why| format!("{why}: name some by --processors-ca"))?
        }
    };
    Ok(Some(Trust::new(roots, own.transpose()?)))
}

fn peer_token_of(token: Option<String>, has_peer: bool) -> Result<Tokens, String> {
    let token = token.unwrap_or_default();
    if has_peer && token.len() < PEER_TOKEN_LENGTH_MIN {
        return Err(format!(
            "--peer needs a --peer-token of {PEER_TOKEN_LENGTH_MIN} or more characters"
        ));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("--peer-token must be printable ASCII without spaces".into());
    }
    Ok(Tokens::of_peer_given(token))
}

/// Where events are pushed to, and what they are signed with.
fn webhook_of(
    receiver: Option<Receiver>,
    secret: Option<&Path>,
) -> Result<Option<(Receiver, Secret)>, String> {
    let (Some(receiver), Some(path)) = (receiver, secret) else { return Ok(None) };
    let secret = Secret::read(&read_token("--webhook-secret-file", path)?);
    let refused = |why| format!("--webhook-secret-file {}: {why}", path.display());
    Ok(Some((receiver, secret.map_err(refused)?)))
}

/// The token in a file: its one line.
pub(super) fn read_token(flag: &str, path: &Path) -> Result<String, String> {
    Ok(read_tokens(flag, path, 1)?.concat())
}

/// The tokens in a file, one a line.
pub(super) fn read_tokens(
    flag: &str,
    path: &Path,
    count_max: usize,
) -> Result<Vec<String>, String> {
    let refused = |what: &dyn std::fmt::Display| format!("{flag} {}: {what}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| refused(&error))?;
    let read = file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| refused(&error))?;
    let lines = text.trim_end_matches(['\r', '\n']).split('\n');
    let tokens: Vec<String> = lines.map(|it| it.trim_end_matches('\r').into()).collect();
    let is_token = |it: &String| {
        it.len() >= PEER_TOKEN_LENGTH_MIN && it.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if tokens.len() > count_max {
        let lines = if count_max == 1 { "one line" } else { "two lines" };
        return Err(refused(&format!("there are more than {lines} in it")));
    }
    if !tokens.iter().all(is_token) {
        return Err(refused(&format!(
            "a token is one line of {PEER_TOKEN_LENGTH_MIN} or more printable characters, without spaces"
        )));
    }
    Ok(tokens)
}

/// Bytes, or with a unit of powers of 1024.
fn read_bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)];
    let split = units.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (digits, bits) = split.unwrap_or((text, 0));
    let number = digits.trim_end().parse::<u64>().ok();
    number
        .and_then(|number| number.checked_mul(1 << bits))
        .ok_or_else(|| "it must be a number of bytes, or one with KiB, MiB or GiB".into())
}

fn log_level(text: &str) -> Result<log::LevelFilter, &'static str> {
    text.parse().map_err(|_| "it must be off, error, warn, info or debug")
}

fn check_times(args: &ServeArgs) -> Result<(), String> {
    let timeouts = [
        ("--attempt-latency-max", args.attempt_latency_max),
        ("--connect-timeout", args.connect_timeout),
        ("--idle-timeout", args.idle_timeout),
        ("--request-timeout", args.request_timeout),
        ("--keep", args.keep.unwrap_or(Duration::MAX)),
    ];
    if let Some((name, _)) = timeouts.iter().find(|(_, timeout)| timeout.is_zero()) {
        return Err(format!("{name} must be longer than 0"));
    }
    Ok(())
}

fn journal_of(
    data: Option<PathBuf>,
    durability: Option<Durability>,
) -> Result<Option<(PathBuf, journal::Durability)>, String> {
    match (data, durability) {
        (None, None | Some(Durability::None)) => Ok(None),
        (None, Some(_)) => Err("--durability process or disk needs --data DIRECTORY".into()),
        (Some(_), Some(Durability::None)) => {
            Err("--data and --durability none contradict each other".into())
        }
        (Some(data), None | Some(Durability::Process)) => {
            Ok(Some((data, journal::Durability::Process)))
        }
        (Some(data), Some(Durability::Disk)) => Ok(Some((data, journal::Durability::Disk))),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        serve: ServeArgs,
    }

    /// What `galo serve` makes of these words.
    pub fn config(arguments: &str) -> Result<Config, String> {
        let words = std::iter::once("galo").chain(arguments.split_whitespace());
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        Config::new(command.serve)
    }

    #[test]
    fn the_defaults_are_consistent() {
        config("").unwrap();
    }

    #[test]
    fn impossible_settings_are_refused_by_name() {
        for (arguments, named) in [
            ("--listen nonsense", "--listen"),
            ("--listen unix:", "--listen"),
            ("--threads 0", "--threads"),
            ("--peer http://127.0.0.1:1", "--peer-listen"),
            ("--peer-listen 127.0.0.1:1 --peer http://127.0.0.1:2", "--peer-token"),
            (
                "--peer-listen 127.0.0.1:1 --peer http://127.0.0.1:2 --peer-token short",
                "--peer-token",
            ),
            ("--queue-capacity 2000000", "--ids-remembered"),
            ("--processor-timeout 1s", "--processor-timeout"),
            ("--attempt-latency-max 0s", "--attempt-latency-max"),
            ("--idle-timeout 0s", "--idle-timeout"),
            ("--default-url ftp://a", "--default-url"),
            ("--default-fee 1.1", "--default-fee"),
            ("--patience soon", "--patience"),
            ("--durability perhaps", "--durability"),
            ("--durability process", "--data"),
            ("--data x --durability none", "--durability"),
        ] {
            let error = config(arguments).err().unwrap_or_else(|| panic!("accepted: {arguments}"));
            assert!(error.contains(named), "{arguments}: {error}");
        }
    }

    #[test]
    fn ipv4_is_left_to_whoever_listens_for_it() {
        let leaves_v4 = |arguments: &str| {
            let config = config(arguments).unwrap();
            config.listen.iter().map(|address| config.leaves_v4(address)).collect::<Vec<_>>()
        };
        assert_eq!(leaves_v4("--listen 0.0.0.0:80,[::]:80"), [false, true]);
        assert_eq!(leaves_v4("--listen [::]:80,127.0.0.1:80"), [true, false]);
        assert_eq!(leaves_v4("--listen [::]:80,0.0.0.0:81"), [false, false]);
        assert_eq!(leaves_v4("--listen [::]:0,0.0.0.0:0"), [false, false]);
        assert_eq!(leaves_v4("--listen [::]:80,unix:/x"), [false, false]);
        assert_eq!(leaves_v4("--listen [::]:80 --peer-listen 10.0.0.1:80"), [true]);
    }

    #[test]
    fn a_file_of_processors_and_flags_that_say_the_same_contradict_each_other() {
        for flag in ["--default-url http://a", "--fallback-fee 0.2", "--processor-timeout 9s"] {
            let error = config(&format!("--processors p.toml {flag}")).unwrap_err();
            let (name, _) = flag.split_once(' ').unwrap();
            assert!(error.contains("--processors") && error.contains(name), "{error}");
        }
        let error = config("--processors there/is/none.toml").unwrap_err();
        assert!(error.starts_with("there/is/none.toml: "), "{error}");
    }
}
