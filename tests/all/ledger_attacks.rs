//! The ledger between two instances when what is between them breaks: answers that are swallowed,
//! connections that are cut, a home that is killed and back, an end while answers are awaited.

use crate::support::journals::Scratch;
use crate::support::system::{Instance, SIGTERM, TOKEN, free_address, pair, pair_via};
use crate::support::{Answer, request, wait_until};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const CREDIT: &str = r#"{"valor":1,"tipo":"c","descricao":"pix"}"#;

/// On account 2, which the first instance keeps.
fn credit() -> String {
    request("POST", "/clientes/2/transacoes", "", CREDIT)
}

fn balance(instance: &Instance) -> String {
    let answer = instance.get("/clientes/2/extrato");
    assert_eq!(answer.status, 200, "{answer:?}");
    let rest = answer.body.strip_prefix(r#"{"saldo":{"total":"#).expect("a statement");
    rest.split(',').next().expect("a number").to_owned()
}

/// Carries connections on, and can break those that carry the accounts' requests.
#[derive(Default)]
struct Relay {
    /// Both ends of each of them.
    pipes: Mutex<Vec<TcpStream>>,
    swallows: AtomicBool,
    swallowed: AtomicUsize,
}

impl Relay {
    fn to(self: Arc<Self>, door: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(door) else { continue };
                let ends = [near, far].map(Arc::new);
                for (from, to) in [(0, 1), (1, 0)] {
                    let (relay, ends) = (self.clone(), ends.clone());
                    std::thread::spawn(move || relay.carry(&ends, from, to));
                }
            }
        });
        address
    }

    fn carry(&self, ends: &[Arc<TcpStream>; 2], from: usize, to: usize) {
        let mut buffer = [0; 65_536];
        let is_answers = from == 1;
        while let Ok(length @ 1..) = (&*ends[from]).read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]);
            let mut pipes = self.pipes.lock().unwrap();
            let local = |end: &TcpStream| end.local_addr().ok();
            let is_known = pipes.iter().any(|end| local(end) == local(&ends[0]));
            if !is_answers && !is_known && text.contains(" /peer/accounts/") {
                pipes.extend(ends.iter().map(|end| end.try_clone().expect("a descriptor")));
            }
            drop(pipes);
            let is_pipe = is_known && is_answers;
            if is_pipe && self.swallows.load(Ordering::SeqCst) {
                self.swallowed.fetch_add(text.matches("HTTP/1.1 200").count(), Ordering::SeqCst);
            } else if (&*ends[to]).write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
    }

    fn cut(&self) {
        for end in self.pipes.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn a_lost_connection_is_not_a_lost_instance_and_nothing_is_done_twice() {
    let relay = Arc::new(Relay::default());
    let [_home, other] =
        pair_via([free_address(), free_address()], [&[], &[]], |door| relay.clone().to(door));
    assert_eq!(other.client().call(credit()).status, 200);
    relay.swallows.store(true, Ordering::SeqCst);
    let mut clients: Vec<_> = (0..8).map(|_| other.client()).collect();
    clients.iter_mut().for_each(|client| client.send(credit()));
    wait_until("all are carried out", || relay.swallowed.load(Ordering::SeqCst) == clients.len());
    relay.swallows.store(false, Ordering::SeqCst);
    relay.cut();
    for client in &mut clients {
        let answer = client.receive().expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(balance(&other), "9");
    let log = other.galo.stderr();
    assert!(!log.contains("lost"), "{log}");
}

/// What the second instance says when it greets.
const GREETING: &str = r#"{"version":"0","instance":2,"process":1,"now_us":0,"journal":null,
    "settings":[],"adopted_first":0,"adopted":0,"adopting":false,"learned_of":0,"learned":0,"rival":null}"#;

#[test]
fn a_home_that_was_killed_knows_what_came_of_a_key() {
    let scratch = Scratch::new();
    let mut home = Instance::alone(&["--data", &scratch.join("journal")]);
    let hello = home.at_peer_door("POST", "/peer/hello", TOKEN, GREETING).body;
    let number = |name: &str| -> u64 {
        let rest = hello.split_once(&format!("\"{name}\":")).expect("the field").1;
        let digits = rest.split(|it: char| !it.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).expect("a number")
    };
    let (process, expires) = (number("process"), number("now_us") + 900_000);
    let ask = |home: &Instance, key: u64| -> Answer {
        let target = format!("/peer/accounts/2?key={key:x}&process={process:x}&expires={expires}");
        home.at_peer_door("POST", &target, TOKEN, CREDIT)
    };
    let first = ask(&home, 7);
    assert_eq!((first.status, &*first.body), (200, r#"{"limite":80000,"saldo":1}"#));
    home.kill();
    home.start_again();
    assert_eq!(ask(&home, 7).body, first.body);
    assert_eq!(ask(&home, 8).status, 410, "one that it has not carried out");
    assert_eq!(balance(&home), "1");
}

#[test]
fn whoever_waits_for_the_home_is_answered_before_the_end() {
    let [home, mut other] = pair([free_address(), free_address()], &[]);
    home.galo.freeze();
    let mut client = other.client();
    client.send(credit());
    // By the time that this one is answered, the other request has been read.
    assert_eq!(other.get("/clientes/1/extrato").status, 200);
    other.galo.signal(SIGTERM);
    let answer = client.receive().expect("an answer");
    assert!(matches!(answer.status, 503 | 504), "{answer:?}");
    let (status, log) = other.galo.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    home.galo.thaw();
}
