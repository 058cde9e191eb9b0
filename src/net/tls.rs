//! TLS to a server (1.2: RFC 5246, 1.3: RFC 8446), by rustls: whom we believe, what we show, and what
//! becomes of the bytes of one connection.
//!
//! Has no sockets: [`Session`] is given the bytes that have come and gives those that are to go, and
//! `client/secured.rs` carries them. Files are read here, once, at the start.
//!
//! A connection says nothing before its handshake is done: no early data (0-RTT). Whoever records
//! that can have it done a second time (RFC 8446, 8), and what we send are payments.

use crate::base::clock::{self, Moment};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::{
    ClientConfig, ClientConnection, InvalidMessage, ProtocolVersion, RootCertStore, SignatureScheme,
};
use std::cell::Cell;
use std::fmt;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// No file of certificates is longer: all the roots of a system take 220 KB.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// So many sessions with one server are kept to be resumed: all that rustls keeps of one.
const SESSIONS_KEPT: usize = 8;
/// Failures with one server are told so often.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Whom we believe to be who they say they are, and what we say that we are.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trust")
    }
}

impl Default for Trust {
    /// Nobody is believed.
    fn default() -> Trust {
        Trust::new(RootCertStore::empty(), None)
    }
}

impl Trust {
    /// Believes who has a certificate from these, and shows ours to whoever asks for one.
    pub fn new(roots: RootCertStore, own: Option<Arc<CertifiedKey>>) -> Trust {
        let builder =
            ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(Clock));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.expect("ring speaks both versions").with_root_certificates(roots);
        let mut config = builder.with_client_cert_resolver(Arc::new(Own(own)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.enable_early_data = false;
        Trust { config: Arc::new(config) }
    }
}

/// rustls is told the time by our clock.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = Duration::from_millis(u64::try_from(clock::now().0).ok()?);
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}

/// Our certificate, if there is one.
#[derive(Debug)]
struct Own(Option<Arc<CertifiedKey>>);

thread_local! {
    /// A server has asked for our certificate, in what this thread takes in at the moment.
    static WAS_ASKED: Cell<bool> = const { Cell::new(false) };
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        WAS_ASKED.set(true);
        self.0.clone().filter(|own| own.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

/// A file that a flag names.
pub struct Given {
    pub flag: &'static str,
    pub path: PathBuf,
}

impl Given {
    fn refused(&self, why: impl fmt::Display) -> String {
        format!("{} {}: {why}", self.flag, self.path.display())
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&self.path).map_err(|error| self.refused(error))?;
        let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
        match read.map_err(|error| self.refused(error))? as u64 {
            0..=FILE_BYTES_MAX => Ok(bytes),
            _ => Err(self.refused("it is too long")),
        }
    }
}

/// All certificates in a PEM text, in their order; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| error.to_string())?;
    match found.is_empty() {
        false => Ok(found),
        true => Err("there is no certificate in it, as PEM".into()),
    }
}

/// The authorities whose certificates are in a file.
///
/// # Errors
/// If it cannot be read, or as those of [`roots_of`].
pub fn read_roots(given: &Given) -> Result<RootCertStore, String> {
    roots_of(&given.read()?).map_err(|why| given.refused(why))
}

/// The authorities whose certificates are in a PEM text.
///
/// # Errors
/// If it has none, or one that cannot be read.
pub fn roots_of(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(pem)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| format!("certificate {}: {error}", index + 1))?;
    }
    Ok(roots)
}

/// The authorities that this system believes. Those that cannot be read are left out.
///
/// # Errors
/// If it believes none, with the reason if there is one.
pub fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!("this system has no certificates of authorities{why}"))
}

/// What we show: our certificate, with those between it and its authority behind it, and its key.
///
/// # Errors
/// If a file cannot be read, or as those of [`own_of`].
pub fn read_own(certificate: &Given, key: &Given) -> Result<Arc<CertifiedKey>, String> {
    own_of(&certificate.read()?, &key.read()?).map_err(|fault| match fault {
        OwnFault::Certificate(why) => certificate.refused(why),
        OwnFault::Key(why) => key.refused(why),
    })
}

/// What is wrong with what we are to show.
#[derive(Debug)]
pub enum OwnFault {
    Certificate(String),
    Key(String),
}

/// What we show, out of two PEM texts.
///
/// # Errors
/// If one of them is none, or the two do not belong together.
pub fn own_of(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, OwnFault> {
    let chain = certificates(certificate).map_err(OwnFault::Certificate)?;
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            OwnFault::Key("there is no private key in it, as PEM without a password".into())
        }
        error => OwnFault::Key(error.to_string()),
    })?;
    let private = ring::default_provider().key_provider.load_private_key(private);
    let private = private.map_err(|error| OwnFault::Key(error.to_string()))?;
    let own = CertifiedKey::new(chain, private);
    match own.keys_match() {
        // That it is not known does not happen with keys of ring.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(Arc::new(own))
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(OwnFault::Key("it is not the key of the certificate".into()))
        }
        Err(error) => Err(OwnFault::Certificate(error.to_string())),
    }
}

/// TLS with one server: what all connections to it share, its sessions to resume among that.
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    at: Option<Moment>,
    untold: u64,
}

impl Tls {
    /// With the server that has a certificate for this name, or this address.
    pub fn new(trust: &Trust, name: ServerName<'static>) -> Tls {
        let mut config = ClientConfig::clone(&trust.config);
        config.resumption = Resumption::in_memory_sessions(SESSIONS_KEPT);
        Tls { config: Arc::new(config), name, told: Mutex::default() }
    }

    /// Begins a connection.
    ///
    /// # Errors
    /// As [`Session`]'s.
    pub fn begin(&self) -> Result<Session, String> {
        let connection = ClientConnection::new(self.config.clone(), self.name.clone());
        let connection = connection.map_err(|error| reason(&error))?;
        Ok(Session { connection, is_closed: false, is_broken: false, was_asked: false })
    }

    /// Somebody should see why there is no TLS with a server; not every time.
    pub fn tell(&self, authority: &str, why: &str) {
        let now = clock::moment();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| now.since(at) < TOLD_EVERY) {
            told.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut *told).untold;
        told.at = Some(now);
        drop(told);
        log::warn!("TLS with {authority}: {why} ({untold} more such failures untold)");
    }
}

/// One connection's TLS, without the connection.
///
/// What its functions return as an error is the reason, for the log; no more can be done with it then.
pub struct Session {
    connection: ClientConnection,
    is_closed: bool,
    is_broken: bool,
    was_asked: bool,
}

impl Session {
    /// Takes what has come, and appends what it says to `plain`: that also if it breaks off behind
    /// that, since it is as good as all that came before.
    pub fn take_in(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), String> {
        WAS_ASKED.set(false);
        let mut taken = Ok(());
        // What stands behind the end of what it says is nothing.
        while !bytes.is_empty() && !self.is_closed && taken.is_ok() {
            taken = match self.connection.read_tls(&mut bytes) {
                Ok(_) => self.process(plain),
                Err(error) => Err(error.to_string()),
            };
        }
        self.was_asked |= WAS_ASKED.take();
        self.is_broken |= taken.is_err();
        taken
    }

    fn process(&mut self, plain: &mut Vec<u8>) -> Result<(), String> {
        let processed = self.connection.process_new_packets();
        // Until nothing is left; at the end of a broken one that is an error, and nothing is lost.
        let mut piece = [0; 1024];
        while let Ok(length @ 1..) = self.connection.reader().read(&mut piece) {
            plain.extend_from_slice(&piece[..length]);
        }
        self.is_closed |= processed.as_ref().is_ok_and(|state| state.peer_has_closed());
        processed.map(drop).map_err(|error| reason(&error))
    }

    /// Appends what is to go, if there is anything: of the handshake, an answer to new keys (RFC
    /// 8446, 4.6.3), or the alert that says why it breaks off.
    pub fn give_out(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            if self.connection.write_tls(out).is_err() {
                return self.is_broken = true;
            }
        }
    }

    /// Appends a request, encrypted, and before it what else is to go.
    pub fn wrap(&mut self, request: &[u8], out: &mut Vec<u8>) {
        // What a request takes is far below what may wait.
        self.is_broken |= self.connection.writer().write_all(request).is_err();
        self.give_out(out);
    }

    /// Appends the end of what we say (RFC 8446, 6.1).
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.connection.send_close_notify();
        self.give_out(out);
    }

    pub fn is_in_handshake(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The server has said that it says no more: what it has said is all.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Of no more use.
    pub fn is_over(&self) -> bool {
        self.is_closed || self.is_broken
    }

    /// The server has asked for a certificate, and says only later what it thinks of ours: in TLS 1.3
    /// our side of the handshake is done before (RFC 8446, 2).
    pub fn awaits_verdict(&self) -> bool {
        self.was_asked && self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3)
    }
}

/// Why, in words for who runs this.
fn reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "what answers there does not speak TLS".into()
        }
        rustls::Error::AlertReceived(alert) => format!("it breaks off, and says {alert:?}"),
        error => error.to_string(),
    }
}
