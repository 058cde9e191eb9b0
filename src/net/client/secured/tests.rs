//! Against servers of rustls on threads of their own, on every driver.

use super::super::tests::{OK, ask, on_loops, wait_until_closed};
use super::super::{Link, Url};
use super::*;
use crate::net::tls::Trust;
use certificates::{Authority, Certified};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion, version,
};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;

#[path = "../../../../tests/all/support/certificates.rs"]
mod certificates;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

fn authority() -> &'static Authority {
    static ALL: OnceLock<Authority> = OnceLock::new();
    ALL.get_or_init(|| Authority::new("An authority"))
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(authority().certificate().into()).unwrap();
    roots
}

/// A server's side, with this certificate, in these versions. Asks for certificates, if it is told to.
fn speaks(
    certified: &Certified,
    versions: &[&'static SupportedProtocolVersion],
    asks: bool,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match asks {
        false => WebPkiClientVerifier::no_client_auth(),
        true => {
            let roots = Arc::new(roots());
            WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build().unwrap()
        }
    };
    let (chain, key) = der(certified);
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = builder.with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(chain, key.into()).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    Arc::new(config)
}

fn der(it: &Certified) -> (Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>) {
    (vec![it.certificate.clone().into()], it.key.clone().into())
}

fn usual() -> Arc<ServerConfig> {
    speaks(&authority().certify(&["127.0.0.1", "localhost"]), &BOTH, false)
}

/// A server's side of one connection.
struct Peer(StreamOwned<ServerConnection, std::net::TcpStream>);

impl Peer {
    fn new(stream: std::net::TcpStream, config: Arc<ServerConfig>) -> Peer {
        Peer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream))
    }

    fn shake_hands(&mut self) -> std::io::Result<Option<HandshakeKind>> {
        while self.0.conn.is_handshaking() {
            self.0.conn.complete_io(&mut self.0.sock)?;
        }
        Ok(self.0.conn.handshake_kind())
    }

    /// Answers a request, in pieces, each of them a record.
    fn answer(&mut self, answer: &str) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        for piece in answer.split_inclusive('|') {
            self.0.write_all(piece.trim_end_matches('|').as_bytes()).unwrap();
            self.0.flush().unwrap();
        }
    }

    /// Says that it says no more, and waits until the other side has seen it.
    fn close(mut self) {
        self.0.conn.send_close_notify();
        let _ = self.0.flush();
        self.cut();
    }

    /// Ends the stream without a word.
    fn cut(mut self) {
        // It may have been quicker.
        let _ = self.0.sock.shutdown(Shutdown::Write);
        let _ = self.0.sock.read_to_end(&mut Vec::new());
    }
}

/// What a server does on one connection after the other, each after a handshake: which, is told.
type Play = fn(Peer);

fn serve(
    config: Arc<ServerConfig>,
    plays: &'static [Play],
) -> (SocketAddr, Receiver<HandshakeKind>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, kinds): (Sender<HandshakeKind>, _) = channel();
    std::thread::spawn(move || {
        for play in plays {
            let (stream, _) = listener.accept().unwrap();
            let mut peer = Peer::new(stream, config.clone());
            match peer.shake_hands() {
                Ok(kind) => {
                    let _ = tell.send(kind.unwrap());
                    play(peer);
                }
                // The alert that says why goes out.
                Err(_) => {
                    while peer.0.conn.wants_write()
                        && peer.0.conn.write_tls(&mut peer.0.sock).is_ok()
                    {}
                    peer.cut();
                }
            }
        }
    });
    (address, kinds)
}

fn link(trust: &Trust, host: &str, address: SocketAddr) -> Link {
    let url = Url::with_tls_or_without(&format!("https://{host}:{}", address.port())).unwrap();
    Link::new(Target::new(url, Some(trust)))
}

fn believing() -> Trust {
    Trust::new(roots(), None)
}

async fn pause(length: Duration) {
    monoio::time::sleep(length).await;
}

/// Opens it without sending anything.
async fn open(link: &mut Link) -> Result<(), Failure> {
    link.open(&Alarm::new(), 10 * SECOND, clock::moment() + 10 * SECOND).await
}

/// Its end may have come with the last answer.
async fn see_it_closed(link: &mut Link) {
    if link.wire.is_some() {
        wait_until_closed(link).await;
    }
}

fn ok() -> Result<(u16, Vec<u8>), Failure> {
    Ok((200, b"ok".to_vec()))
}

#[test]
fn a_connection_is_used_again_and_again() {
    const CHUNKS: &str = "HTTP/1.1 201 Created\r\nTransfer-|Encoding: chunked\r\n\r\n\
        3\r\nabc|\r\n2\r\nde\r\n0\r\n\r|\n";
    fn play(mut peer: Peer) {
        // As long as an answer may be, or nearly.
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n{}", "x".repeat(4_000));
        for answer in [OK, CHUNKS, &long, OK, CHUNKS] {
            peer.answer(answer);
        }
        peer.close();
    }
    for version in BOTH {
        on_loops(move || async move {
            let config = speaks(&authority().certify(&["localhost"]), &[version], false);
            let (address, _kinds) = serve(config, &[play]);
            let mut link = link(&believing(), "localhost", address);
            assert_eq!(ask(&mut link).await, ok());
            assert_eq!(ask(&mut link).await, Ok((201, b"abcde".to_vec())));
            assert_eq!(ask(&mut link).await, Ok((200, vec![b'x'; 4_000])));
            assert_eq!(ask(&mut link).await, ok());
            assert_eq!(ask(&mut link).await, Ok((201, b"abcde".to_vec())));
        });
    }
}

#[test]
fn a_second_connection_resumes_the_session_of_the_first() {
    fn play(mut peer: Peer) {
        peer.answer(OK);
        peer.close();
    }
    for version in BOTH {
        on_loops(move || async move {
            let config = speaks(&authority().certify(&["127.0.0.1"]), &[version], false);
            let (address, kinds) = serve(config, &[play, play, play]);
            let trust = believing();
            let mut first = link(&trust, "127.0.0.1", address);
            assert_eq!(ask(&mut first).await, ok());
            see_it_closed(&mut first).await;
            assert_eq!(ask(&mut first).await, ok());
            drop(first);
            // Another target is told nothing of it: it may be another server.
            let mut other = link(&trust, "127.0.0.1", address);
            assert_eq!(ask(&mut other).await, ok());
            let full = HandshakeKind::Full;
            assert_eq!(
                kinds.iter().take(3).collect::<Vec<_>>(),
                [full, HandshakeKind::Resumed, full]
            );
        });
    }
}

/// A server gives tickets and new keys when it likes.
#[test]
fn what_tls_says_while_nothing_is_asked_ends_no_connection() {
    fn play(mut peer: Peer) {
        peer.answer(OK);
        peer.0.conn.refresh_traffic_keys().unwrap();
        peer.0.flush().unwrap();
        peer.answer(OK);
        peer.answer(OK);
        peer.close();
    }
    on_loops(|| async {
        let (address, kinds) = serve(usual(), &[play]);
        let mut link = link(&believing(), "127.0.0.1", address);
        open(&mut link).await.unwrap();
        kinds.recv().unwrap();
        for _ in 0..3 {
            // The tickets come, and then the keys.
            pause(20 * MS).await;
            assert_eq!(ask(&mut link).await, ok());
        }
    });
}

#[test]
fn a_connection_that_was_closed_while_it_was_idle_is_not_used_again() {
    const SLOW: Play = |mut peer| {
        peer.answer(OK);
        peer.close();
    };
    const CUT: Play = |mut peer| {
        peer.answer(OK);
        peer.cut();
    };
    const UNASKED: Play = |mut peer| {
        peer.answer(&format!("{OK}|HTTP/1.1 408 Request Timeout\r\n\r\n"));
        peer.close();
    };
    // Behind the tickets, and before anything was asked.
    const AT_ONCE: Play = |peer| peer.close();
    const AT_ONCE_CUT: Play = |peer| peer.cut();
    const SPEAKS_FIRST: Play = |mut peer| {
        peer.0.write_all(b"220 ready\r\n").unwrap();
        peer.0.flush().unwrap();
        peer.cut();
    };
    on_loops(|| async {
        let (address, _kinds) = serve(usual(), &[SLOW, CUT, UNASKED, SLOW]);
        let mut link = link(&believing(), "127.0.0.1", address);
        for _ in 0..4 {
            assert_eq!(ask(&mut link).await, ok());
            see_it_closed(&mut link).await;
        }
    });
    on_loops(|| async {
        let (address, kinds) = serve(usual(), &[AT_ONCE, AT_ONCE_CUT, SPEAKS_FIRST, SLOW]);
        let mut link = link(&believing(), "127.0.0.1", address);
        for _ in 0..3 {
            // It may have seen the end already. A request that was sent now would be lost.
            let _ = open(&mut link).await;
            kinds.recv().unwrap();
            pause(20 * MS).await;
        }
        assert_eq!(ask(&mut link).await, ok());
    });
}

#[test]
fn what_may_have_been_carried_out_is_lost() {
    const MUTE: Play = |mut peer| {
        peer.answer("");
        peer.close();
    };
    const HALF: Play = |mut peer| {
        peer.answer("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok");
        peer.close();
    };
    const HALF_CUT: Play = |mut peer| {
        peer.answer("HTTP/1.1 200 OK\r\nContent-Le");
        peer.cut();
    };
    /// Whose length is not known, and whose end nobody has said: it may be half of one (RFC 8446, 6.1).
    const UNSAID: Play = |mut peer| {
        peer.answer("HTTP/1.1 500 Internal Server Error\r\n\r\n");
        peer.cut();
    };
    const GARBAGE: Play = |mut peer| {
        peer.answer("");
        peer.0.sock.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        peer.cut();
    };
    on_loops(|| async {
        const PLAYS: &[Play] = &[MUTE, HALF, HALF_CUT, UNSAID, GARBAGE];
        let (address, _kinds) = serve(usual(), PLAYS);
        let mut link = link(&believing(), "127.0.0.1", address);
        for index in 0..PLAYS.len() {
            assert_eq!(ask(&mut link).await, Err(Failure::Lost), "{index}");
        }
        while ask(&mut link).await != Err(Failure::NotSent) {}
    });
}

/// Answers one request a connection, each with another harm done to what goes over the wire: cut off
/// behind so many bytes, then with one bit of the next byte turned. At last none. Tells which are whole.
fn harm(config: Arc<ServerConfig>) -> (SocketAddr, Receiver<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, is_whole) = channel();
    std::thread::spawn(move || {
        for harm in 0.. {
            let (stream, _) = listener.accept().unwrap();
            let mut peer = Peer::new(stream, config.clone());
            peer.shake_hands().unwrap();
            peer.answer("");
            let mut bytes = Vec::new();
            for piece in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "ok"] {
                peer.0.conn.writer().write_all(piece.as_bytes()).unwrap();
                while peer.0.conn.wants_write() {
                    peer.0.conn.write_tls(&mut bytes).unwrap();
                }
            }
            let at = harm / 2;
            let whole = at == bytes.len();
            match harm % 2 {
                0 => bytes.truncate(at),
                _ => bytes[at] ^= 1 << (at % 8),
            }
            tell.send(whole).unwrap();
            peer.0.sock.write_all(&bytes).unwrap();
            peer.cut();
            if whole {
                return;
            }
        }
    });
    (address, is_whole)
}

/// A processor that was asked may have done it, whatever becomes of its answer.
#[test]
fn an_answer_that_is_cut_anywhere_is_lost_and_one_that_is_changed_is_no_other() {
    on_loops(|| async {
        let certified = authority().certify(&["127.0.0.1"]);
        for version in BOTH {
            let (address, is_whole) = harm(speaks(&certified, &[version], false));
            let mut link = link(&believing(), "127.0.0.1", address);
            for harm in 0.. {
                let answer = ask(&mut link).await;
                see_it_closed(&mut link).await;
                if is_whole.recv().unwrap() {
                    assert!(harm > 100, "{version:?}: {harm} harms");
                    assert_eq!(answer, ok(), "{version:?}");
                    break;
                }
                // The version in a record's head is nothing that anybody reads (RFC 8446, 5.1).
                let may_be_read = harm % 2 == 1 && answer == ok();
                assert!(may_be_read || answer == Err(Failure::Lost), "{harm}: {answer:?}");
            }
        }
    });
}

#[test]
fn an_answer_that_ends_with_its_connection_is_one_if_its_end_was_said() {
    const SAID: Play = |mut peer| {
        peer.answer("HTTP/1.1 500 Internal Server Error\r\n\r\n");
        peer.close();
    };
    on_loops(|| async {
        let (address, _kinds) = serve(usual(), &[SAID]);
        let mut link = link(&believing(), "127.0.0.1", address);
        let (alarm, deadline) = (Alarm::new(), clock::moment() + 10 * SECOND);
        let write = |out: &mut Vec<u8>, _: &str| out.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        let answer = link.exchange(&alarm, SECOND, deadline, write).await.unwrap();
        // All the same it is not taken for whole where that counts.
        assert_eq!((answer.status, answer.body, answer.reusable), (500, &b""[..], false));
    });
}

/// Not a byte of the request is sent, and the reason is told.
async fn assert_refused(trust: &Trust, host: &str, address: SocketAddr, why: &str) {
    let mut link = link(trust, host, address);
    assert_eq!(ask(&mut link).await, Err(Failure::NotSent), "{why}");
    let (stream, _) = link.target.connect().await.unwrap();
    let said = Secured::shake_hands(link.target.tls.as_ref().unwrap(), stream).await.err();
    assert!(said.as_ref().is_some_and(|said| said.contains(why)), "{why}: {said:?}");
}

#[test]
fn to_a_server_that_is_not_believed_nothing_is_sent() {
    const NEVER: Play = |_| unreachable!("a handshake that must not be done");
    on_loops(|| async {
        let [named, expired, stranger] = [
            authority().certify(&["else.where", "10.0.0.1"]),
            authority().certify_until(&["127.0.0.1"], 2020),
            Authority::new("A stranger").certify(&["127.0.0.1"]),
        ];
        let cases = [
            (&named, "127.0.0.1", "not valid for"),
            (&named, "localhost", "not valid for"),
            (&expired, "127.0.0.1", "expired"),
            (&stranger, "127.0.0.1", "UnknownIssuer"),
        ];
        for (certified, host, why) in cases {
            let (address, _kinds) = serve(speaks(certified, &BOTH, false), &[NEVER, NEVER]);
            assert_refused(&believing(), host, address, why).await;
        }
        let (address, _kinds) = serve(usual(), &[NEVER, NEVER]);
        assert_refused(&Trust::default(), "127.0.0.1", address, "UnknownIssuer").await;
    });
}

/// A server that answers whatever it is sent with these bytes, or never, and then closes.
fn babble(answer: Option<&'static [u8]>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(answer) = answer else {
                std::mem::forget(stream);
                continue;
            };
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    address
}

#[test]
fn to_what_does_not_speak_tls_nothing_is_sent() {
    on_loops(|| async {
        let plain = babble(Some(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
        assert_refused(&believing(), "127.0.0.1", plain, "does not speak TLS").await;
        let closes = babble(Some(b""));
        assert_refused(&believing(), "127.0.0.1", closes, "in the middle of the handshake").await;
        let alert = babble(Some(b"\x15\x03\x03\x00\x02\x02\x28"));
        assert_refused(&believing(), "127.0.0.1", alert, "HandshakeFailure").await;
    });
}

#[test]
fn a_handshake_that_hangs_is_given_up_when_a_connection_would_be() {
    on_loops(|| async {
        let mut link = link(&believing(), "127.0.0.1", babble(None));
        let begun = clock::moment();
        let opened = link.open(&Alarm::new(), 100 * MS, begun + 10 * SECOND).await;
        assert_eq!(opened, Err(Failure::NotSent));
        let took = clock::moment().since(begun);
        assert!((100 * MS..5 * SECOND).contains(&took), "{took:?}");
    });
}

/// What we show, certified by this authority.
fn showing(authority: &Authority) -> Trust {
    let (chain, key) = der(&authority.certify(&["galo"]));
    let key = rustls::crypto::ring::sign::any_supported_type(&key.into()).unwrap();
    Trust::new(roots(), Some(Arc::new(CertifiedKey::new(chain, key))))
}

fn asking(versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    speaks(&authority().certify(&["127.0.0.1"]), versions, true)
}

#[test]
fn a_server_that_asks_for_our_certificate_gets_it() {
    const TWICE: Play = |mut peer| {
        assert!(peer.0.conn.peer_certificates().is_some());
        peer.answer(OK);
        peer.answer(OK);
        peer.close();
    };
    for version in BOTH {
        on_loops(move || async move {
            let (address, kinds) = serve(asking(&[version]), &[TWICE, TWICE]);
            let mut link = link(&showing(authority()), "127.0.0.1", address);
            for _ in 0..2 {
                assert_eq!(ask(&mut link).await, ok());
                assert_eq!(ask(&mut link).await, ok());
                see_it_closed(&mut link).await;
            }
            let kinds = kinds.iter().take(2).collect::<Vec<_>>();
            assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed]);
        });
    }
}

/// In TLS 1.3 our side of the handshake is done before the server can say what it thinks of it.
#[test]
fn where_our_certificate_is_refused_nothing_is_sent() {
    const NEVER: Play = |_| unreachable!("a handshake that must not be done");
    for version in BOTH {
        on_loops(move || async move {
            let (address, _kinds) = serve(asking(&[version]), &[NEVER, NEVER]);
            for trust in [believing(), showing(&Authority::new("A stranger"))] {
                let mut link = link(&trust, "127.0.0.1", address);
                assert_eq!(ask(&mut link).await, Err(Failure::NotSent));
            }
        });
    }
}

/// A server that says so late: the request is on its way by then, and who knows what stands behind.
#[test]
fn where_our_certificate_is_refused_after_the_request_was_sent_that_is_lost() {
    on_loops(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut peer = Peer::new(stream, asking(&[&version::TLS13]));
            let (conn, sock) = (&mut peer.0.conn, &mut peer.0.sock);
            conn.read_tls(sock).unwrap();
            conn.process_new_packets().unwrap();
            while conn.wants_write() {
                conn.write_tls(sock).unwrap();
            }
            sleep(VERDICT_WITHIN * 4);
            conn.read_tls(sock).unwrap();
            conn.process_new_packets().unwrap_err();
            while conn.wants_write() {
                conn.write_tls(sock).unwrap();
            }
            peer.cut();
        });
        let mut link = link(&believing(), "127.0.0.1", address);
        assert_eq!(ask(&mut link).await, Err(Failure::Lost));
    });
}

/// One that gives no tickets says nothing; it is not waited for for ever.
#[test]
fn a_server_that_says_nothing_of_our_certificate_is_sent_to() {
    const ONCE: Play = |mut peer| {
        peer.answer(OK);
        peer.close();
    };
    on_loops(|| async {
        let mut config = ServerConfig::clone(&asking(&BOTH));
        config.send_tls13_tickets = 0;
        let (address, _kinds) = serve(Arc::new(config), &[ONCE]);
        let mut link = link(&showing(authority()), "127.0.0.1", address);
        assert_eq!(ask(&mut link).await, ok());
    });
}
