//! An instance as an HTTP server, on the real binary over raw sockets: framing, pipelining, the
//! life and the end of connections, and everything that a slow or crowding client meets.

use crate::support::system::{Instance, Summary, id, payment};
use crate::support::{Answer, request, wait_until};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

const CONTINUE: u16 = 100;

/// A payment's head with these fields, and its body.
fn in_parts(number: u64, fields: &str) -> (String, String) {
    let body = format!(r#"{{"correlationId":"{}","amount":1.00}}"#, id(number));
    let head = format!("POST /payments HTTP/1.1\r\nHost: test\r\n{fields}");
    (head, body)
}

fn with_length(number: u64, fields: &str) -> (String, String) {
    let (head, body) = in_parts(number, fields);
    (format!("{head}Content-Length: {}\r\n\r\n", body.len()), body)
}

fn is_accepted(answer: &Answer) -> bool {
    assert_eq!(answer.header("content-length"), Some("0"), "{answer:?}");
    answer.status == 202
}

#[test]
fn a_connection_is_kept_for_any_number_of_requests() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    for number in 0..50 {
        let answer = client.call(payment(&id(number), "1"));
        assert!(is_accepted(&answer), "{answer:?}");
        assert_eq!(answer.header("connection"), None);
    }
    // A refusal by a route does not end it either.
    assert_eq!(client.call(request("GET", "/nothing", "", "")).status, 404);
    assert_eq!(client.call(request("GET", "/healthz", "", "")).body, r#"{"status":"ok"}"#);
    assert_eq!(instance.outstanding(), 50);
}

/// How many segments with data have come in, from the kernel's `tcp_info`. With Nagle's algorithm
/// off, each write is one of its own at least.
fn segments_received(stream: &std::net::TcpStream) -> u32 {
    const DATA_SEGMENTS_IN: usize = 152; // linux/tcp.h, tcpi_data_segs_in
    let mut info = [0_u8; 256];
    let mut length = info.len() as libc::socklen_t;
    // SAFETY: the descriptor is open while `stream` is borrowed, and `length` is the buffer's.
    let result = unsafe {
        let (info, length) = ((&raw mut info).cast(), &raw mut length);
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info, length)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    u32::from_ne_bytes(info[DATA_SEGMENTS_IN..DATA_SEGMENTS_IN + 4].try_into().unwrap())
}

#[test]
fn pipelined_requests_are_answered_in_order_in_few_writes() {
    const REQUESTS: u64 = 1_000;
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    // Every tenth is another kind of request, so that a wrong order would show.
    let bytes: String = (0..REQUESTS)
        .map(|number| match number % 10 {
            3 => request("GET", "/nothing", "", ""),
            7 => payment(&id(number), "0"),
            _ => payment(&id(number), "1"),
        })
        .collect();
    client.send(bytes);
    for number in 0..REQUESTS {
        let expected = match number % 10 {
            3 => 404,
            7 => 422,
            _ => 202,
        };
        assert_eq!(client.receive().unwrap().status, expected, "answer {number}");
    }
    let writes = segments_received(client.tcp());
    assert!((1..=REQUESTS as u32 / 5).contains(&writes), "{writes} writes for {REQUESTS} answers");
    assert_eq!(instance.outstanding(), REQUESTS / 10 * 8);
}

/// The summary waits for the other instance, or could; what was sent before and after it does not
/// overtake it.
#[test]
fn a_summary_among_pipelined_payments_keeps_its_place() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let summary = request("GET", "/payments-summary", "", "");
    let (first, second, third) = (payment(&id(1), "1"), payment(&id(2), "1"), payment(&id(3), "1"));
    let health = request("GET", "/healthz", "", "");
    client.send([first, summary.clone(), second, summary, third, health].concat());
    for expected in [202, 200, 202, 200, 202, 200] {
        let answer = client.receive().unwrap();
        assert_eq!(answer.status, expected, "{answer:?}");
        if expected == 200 && !answer.body.contains("status") {
            assert_eq!(Summary::read(&answer.body), Summary::default());
        }
    }
}

#[test]
fn requests_may_come_one_byte_at_a_time() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let (head, body) = in_parts(2, "Transfer-Encoding: chunked\r\n\r\n");
    let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\nX-Trailer: y\r\n\r\n", body.len());
    for whole in [payment(&id(1), "1"), chunked, request("GET", "/healthz", "", "")] {
        for byte in whole.as_bytes() {
            client.send([*byte]);
        }
        assert!(matches!(client.receive().unwrap().status, 200 | 202), "{whole}");
    }
    assert_eq!(instance.outstanding(), 2);
}

#[test]
fn bodies_may_come_in_chunks() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let (head, body) = in_parts(1, "Transfer-Encoding: chunked\r\n\r\n");
    let (first, second) = body.split_at(20);
    let chunks = format!(
        "{:X};extension=\"a b\"\r\n{first}\r\n{:03x}\r\n{second}\r\n00\r\nTrailer: x\r\n\r\n",
        first.len(),
        second.len()
    );
    // A second request right behind it must be found.
    client.send(format!("{head}{chunks}{}", request("GET", "/healthz", "", "")));
    assert!(is_accepted(&client.receive().unwrap()));
    assert_eq!(client.receive().unwrap().status, 200);
    assert_eq!(instance.client().call(payment(&id(1), "1")).status, 202, "the same id");
    assert_eq!(instance.outstanding(), 1);
}

#[test]
fn a_client_that_waits_to_be_told_to_go_on_is_told_once() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    for number in 1..=2 {
        let (head, body) = with_length(number, "Expect: 100-continue\r\n");
        assert_eq!(client.call(head).status, CONTINUE);
        assert!(client.is_silent_for(Duration::from_millis(20)), "told once");
        let (first, second) = body.split_at(9);
        client.send(first);
        assert!(client.is_silent_for(Duration::from_millis(20)), "it goes on already");
        assert!(is_accepted(&client.call(second)));
    }
    // Behind another request: first that one's answer, then the go-ahead.
    let (head, body) = with_length(3, "Expect: 100-Continue\r\n");
    client.send(request("GET", "/healthz", "", "") + &head);
    assert_eq!(client.receive().unwrap().status, 200);
    assert_eq!(client.receive().unwrap().status, CONTINUE);
    assert!(is_accepted(&client.call(body)));
}

#[test]
fn a_client_that_does_not_wait_is_not_told_to_go_on() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let (head, body) = with_length(1, "Expect: 100-continue\r\n");
    assert!(is_accepted(&client.call(format!("{head}{body}"))));
    let (head, body) = with_length(2, "Expect: 100-continue\r\n");
    client.send(format!("{head}{}", &body[..5]));
    assert!(client.is_silent_for(Duration::from_millis(20)), "the body is on its way");
    assert!(is_accepted(&client.call(&body[5..])));
    // An HTTP/1.0 client does not know the interim answer.
    let (head, body) = with_length(3, "Expect: 100-continue\r\n");
    client.send(head.replace("HTTP/1.1", "HTTP/1.0"));
    assert!(client.is_silent_for(Duration::from_millis(20)));
    assert!(is_accepted(&client.call(body)));
    client.end().unwrap();
}

#[test]
fn connections_end_when_the_client_says_so() {
    let instance = Instance::alone(&[]);
    for (fields, version, connection) in [
        ("", "1.0", Some("close")),
        ("Connection: keep-alive\r\n", "1.0", Some("keep-alive")),
        ("Connection: keep-alive, close\r\n", "1.0", Some("close")),
        ("Connection: close\r\n", "1.1", Some("close")),
        ("Connection: x, CLOSE\r\n", "1.1", Some("close")),
        ("Connection: keep-alive\r\n", "1.1", None),
        ("", "1.1", None),
    ] {
        for target in ["GET /healthz", "GET /nothing", "GET /payments-summary"] {
            let mut client = instance.client();
            let one = format!("{target} HTTP/{version}\r\nHost: test\r\n{fields}\r\n");
            // The second is not answered on a connection that ends with the first.
            client.send(one.repeat(2));
            let answer = client.receive().unwrap();
            assert_eq!(answer.header("connection"), connection, "{one}");
            if connection == Some("close") {
                client.end().unwrap();
            } else {
                assert_eq!(client.receive().unwrap(), answer, "{one}");
            }
        }
    }
    let mut client = instance.client();
    let (head, body) = with_length(1, "Connection: close\r\n");
    let answer = client.call(head + &body);
    assert_eq!((answer.status, answer.header("connection")), (202, Some("close")));
    client.end().unwrap();
}

#[test]
fn a_client_that_only_closes_its_own_side_gets_its_answers() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    client.send(payment(&id(1), "1") + &request("GET", "/payments-summary", "", ""));
    client.half_close();
    assert!(is_accepted(&client.receive().unwrap()));
    assert_eq!(client.receive().unwrap().status, 200);
    client.end().unwrap();
    let mut half = instance.client();
    half.send(&payment(&id(2), "1")[..80]);
    half.half_close();
    half.end().unwrap();
    assert_eq!(instance.outstanding(), 1, "half a request is none");
}

#[test]
fn head_is_get_without_the_body() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    for target in ["/healthz", "/payments-summary", "/payments-summary?from=never", "/nothing"] {
        let get = client.call(request("GET", target, "", ""));
        client.send(request("HEAD", target, "", ""));
        let head = client.receive_head().unwrap();
        assert_eq!((head.status, &head.headers), (get.status, &get.headers), "{target}");
        assert_eq!(head.header("content-length"), Some(&*get.body.len().to_string()));
    }
    assert_eq!(
        client.call(request("GET", "/healthz", "", "")).status,
        200,
        "no body was left over"
    );
}

fn assert_late(mut client: crate::support::Client, since: Instant) {
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    assert_eq!(answer.body, r#"{"error":"The request did not arrive in time."}"#);
    client.end().unwrap();
    assert!(since.elapsed() >= Duration::from_millis(300), "too soon: {:?}", since.elapsed());
}

#[test]
fn a_request_that_is_not_whole_in_time_is_408() {
    let instance = Instance::alone(&["--request-timeout", "300ms"]);
    let started = Instant::now();
    let (head, body) = with_length(1, "");
    let mut slow_head = instance.client();
    slow_head.send(&head[..30]);
    let mut slow_body = instance.client();
    slow_body.send(format!("{head}{}", &body[..30]));
    let mut expecting = instance.client();
    let (waits, _) = with_length(2, "Expect: 100-continue\r\n");
    assert_eq!(expecting.call(waits).status, CONTINUE);
    assert_late(slow_head, started);
    assert_late(slow_body, started);
    assert_late(expecting, started);

    // Single bytes do not buy more time, after a first request or before.
    let mut drip = instance.client();
    assert_eq!(drip.call(request("GET", "/healthz", "", "")).status, 200);
    let started = Instant::now();
    let mut bytes = std::iter::repeat(b"x\r\nx: ".iter()).flatten();
    drip.send("GET / HTTP/1.1\r\nx: ");
    while drip.is_silent_for(Duration::from_millis(20)) {
        assert!(started.elapsed() < Duration::from_secs(10), "single bytes buy time");
        drip.send([*bytes.next().unwrap()]);
    }
    assert_late(drip, started);
}

/// The time for a request began when its connection became idle, not when its first byte came: on
/// a connection that had been idle for longer than the request's time-out, a request in two pieces
/// was answered 408 before its second piece could come. A balancer's pooled connections are idle
/// for long, and a request with `Expect: 100-continue` always comes in two pieces.
#[test]
fn the_time_for_a_request_begins_with_its_first_byte() {
    let instance = Instance::alone(&["--request-timeout", "1s"]);
    let mut client = instance.client();
    for number in 1..=2 {
        assert!(client.is_silent_for(Duration::from_millis(1_100)), "idle connections are kept");
        let (head, body) = with_length(number, "Expect: 100-continue\r\n");
        assert_eq!(client.call(head).status, CONTINUE);
        assert!(client.is_silent_for(Duration::from_millis(250)), "it has a second");
        assert!(is_accepted(&client.call(body)));
    }
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let instance = Instance::alone(&["--idle-timeout", "200ms"]);
    let started = Instant::now();
    let mut fresh = instance.client();
    let mut used = instance.client();
    assert_eq!(used.call(request("GET", "/healthz", "", "")).status, 200);
    fresh.end().unwrap();
    used.end().unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[test]
fn connections_beyond_the_limit_are_answered_503() {
    let instance = Instance::alone(&["--connections-max", "2"]);
    let mut first = instance.client();
    let mut second = instance.client();
    for client in [&mut first, &mut second] {
        assert_eq!(client.call(request("GET", "/healthz", "", "")).status, 200);
    }
    let mut third = instance.client();
    let answer = third.receive().unwrap();
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.body, r#"{"error":"There are too many connections."}"#);
    third.end().unwrap();
    drop((second, third));
    wait_until("the place is free again", || {
        let mut another = instance.client();
        another.send(request("GET", "/healthz", "", ""));
        another.receive().is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(first.call(request("GET", "/healthz", "", "")).status, 200, "others go on");
}

/// A client that sends for ever and never reads is cut off by its own full buffers, and nobody else
/// notices.
#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let instance = Instance::alone(&[]);
    let greedy = instance.client();
    let bytes = request("GET", "/nothing", "", "").repeat(200);
    let mut stream = greedy.tcp();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let refusal = loop {
        if let Err(error) = std::io::Write::write_all(&mut stream, bytes.as_bytes()) {
            break error;
        }
    };
    assert!(matches!(refusal.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{refusal}");
    assert_eq!(instance.get("/healthz").status, 200);
    // It is not lost for good either: it may begin to read.
    let mut some = [0; 4096];
    assert!(stream.read(&mut some).unwrap() > 0);
}

/// Answers that did not fit into the socket's buffer go out when there is room, though the client
/// asks for nothing more.
#[test]
fn a_client_that_reads_late_gets_every_answer() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let requests = request("GET", "/nothing", "", "").repeat(50);
    let mut stream = client.tcp();
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    // Until the client's own buffers are full: by then so are those of the answers.
    let mut blocked_at = None;
    while blocked_at.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(200)) {
        let rest = &requests.as_bytes()[sent % requests.len()..];
        match std::io::Write::write(&mut stream, rest) {
            Ok(length) => (sent, blocked_at) = (sent + length, None),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                blocked_at.get_or_insert_with(Instant::now);
                std::thread::yield_now();
            }
        }
    }
    stream.set_nonblocking(false).unwrap();
    let each = requests.len() / 50;
    for _ in 0..sent / each {
        assert_eq!(client.receive().unwrap().status, 404);
    }
}

#[test]
fn what_has_a_body_is_kept_by_no_cache() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let transaction = r#"{"valor":1,"tipo":"c","descricao":"x"}"#;
    for (method, target, body) in [
        ("GET", "/payments-summary", ""),
        ("HEAD", "/payments-summary", ""),
        ("GET", "/healthz", ""),
        ("GET", "/nothing", ""),
        ("GET", "/payments", ""),
        ("GET", "/clientes/1/extrato", ""),
        ("GET", "/clientes/9/extrato", ""),
        ("POST", "/clientes/1/transacoes", transaction),
    ] {
        client.send(request(method, target, "", body));
        let answer = if method == "HEAD" { client.receive_head() } else { client.receive() };
        let answer = answer.unwrap();
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{target}: {answer:?}");
    }
    // The answer to nearly every request has none, and is as short as it can be.
    let accepted = client.call(payment(&id(1), "1"));
    assert_eq!(accepted.headers, [("content-length".to_owned(), "0".to_owned())]);
}

#[test]
fn options_of_the_server_as_a_whole_are_told() {
    let instance = Instance::alone(&[]);
    for address in [instance.entry, instance.peer_door] {
        let mut client = crate::support::Client::connect(address);
        let answer = client.call(request("OPTIONS", "*", "", ""));
        assert_eq!(
            (answer.status, answer.header("allow")),
            (204, Some("GET, HEAD, POST, OPTIONS"))
        );
        assert_eq!(client.call(request("GET", "/healthz", "", "")).status, 200);
    }
}

/// RFC 9110, 2.5: a higher minor version is one that we understand as well as 1.1.
#[test]
fn a_higher_minor_version_is_served() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    for version in ["HTTP/1.2", "HTTP/1.9", "HTTP/1.1"] {
        for (text, status) in
            [(payment(&id(1), "1"), 202), (request("GET", "/healthz", "", ""), 200)]
        {
            let answer = client.call(text.replace("HTTP/1.1", version));
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{version}");
        }
    }
    // A token is found in its head as well.
    let head = format!("Authorization: Bearer {}\r\n", crate::support::system::TOKEN);
    let metrics = request("GET", "/metrics", &head, "").replace("HTTP/1.1", "HTTP/1.3");
    assert_eq!(crate::support::Client::connect(instance.peer_door).call(metrics).status, 200);
}

/// RFC 3986, 6.2.2.2: an encoded letter is that letter.
#[test]
fn names_are_compared_when_they_are_decoded() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let encoded = payment(&id(1), "1").replace("/payments", "/%70ayment%73");
    assert_eq!(client.call(encoded).status, 202);
    assert_eq!(instance.outstanding(), 1);
    for target in [
        "/payments%2Dsummary?%66rom=2025-07-01T12:00:00Z",
        "/p%61yments-summary?from=2025-07-01+12:00:00Z&to=2025-07-01%2012:00:01-03:00",
        "/payments-summary?to=2025-07-01T12:00:00%2B00:00",
        "/payments-summary?to=2025-07-01T12:00:00+00:00",
        "/%63lientes/%31/extrat%6F",
        "/%68ealthz",
    ] {
        assert_eq!(client.call(request("GET", target, "", "")).status, 200, "{target}");
    }
}

/// A refusal ends a connection, but not before everything asked ahead of it is answered.
#[test]
fn errors_among_pipelined_requests_keep_their_place() {
    let instance = Instance::alone(&[]);
    let health = request("GET", "/healthz", "", "");
    let refused = "GET /healthz HTTP/1.1\r\nHost: a:b\r\n\r\n".to_owned();
    let wrong = payment(&id(1), "0");
    let mut client = instance.client();
    client.send([payment(&id(2), "1"), wrong, health.clone(), refused, health].concat());
    for expected in [202, 422, 200, 400] {
        assert_eq!(client.receive().unwrap().status, expected);
    }
    client.end().unwrap();
    assert_eq!(instance.outstanding(), 1);
}

/// Clients that come and go, with or without a word, in order or with a reset, leave nothing behind.
#[test]
fn connections_that_end_in_any_way_are_forgotten() {
    let instance = Instance::alone(&[]);
    let whole = payment(&id(1), "1");
    for number in 0..400 {
        let mut client = instance.client();
        match number % 4 {
            0 => {}
            1 => client.send(&whole[..number % whole.len()]),
            2 => client.send(&whole),
            _ => assert_eq!(client.call(&whole).status, 202),
        }
        if number % 8 < 4 {
            // Closing resets the connection then.
            socket2::SockRef::from(client.tcp()).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    wait_until("all are forgotten", || instance.metric("galo_connections{door=\"entry\"}") == 0);
    assert_eq!(instance.outstanding(), 1);
}
