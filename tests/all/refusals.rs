//! Every way an instance says no, on the real binary over raw sockets: the status, the JSON that
//! names the reason, and whether the connection lives on.

use crate::support::system::{Instance, TOKEN, id, payment};
use crate::support::{Answer, Client, request};

/// Every refusal has a JSON body with one field, which says why.
fn reason(answer: &Answer) -> &str {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let reason = answer.body.strip_prefix(r#"{"error":""#).and_then(|it| it.strip_suffix("\"}"));
    let reason = reason.unwrap_or_else(|| panic!("not an error document: {answer:?}"));
    assert!(reason.ends_with('.') && !reason.contains('"'), "a sentence: {reason}");
    reason
}

/// Refused for this reason, and the connection goes on.
fn refused(client: &mut Client, request: &str, status: u16, named: &str) -> Answer {
    let answer = client.call(request);
    assert_eq!(answer.status, status, "{request:?}: {answer:?}");
    assert!(reason(&answer).contains(named), "{request:?}: {answer:?}");
    assert_eq!(answer.header("connection"), None, "{request:?}: {answer:?}");
    answer
}

/// Refused on a connection of its own, which is closed in order after the answer.
fn refused_for_good(instance: &Instance, bytes: &[u8], status: u16, named: &str) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let mut client = instance.client();
    client.send(bytes);
    let answer = client.receive().unwrap_or_else(|error| panic!("{shown:?}: {error}"));
    assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
    assert!(reason(&answer).contains(named), "{shown:?}: {answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{shown:?}: {answer:?}");
    client.end().unwrap_or_else(|error| panic!("{shown:?}: closed badly: {error}"));
}

#[test]
fn unknown_paths_are_404_and_the_peers_door_is_not_known_at_the_entry() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    for path in [
        "/",
        "/payments/",
        "/payments%2Fx",
        "/%2Fpayments",
        "/Payments",
        "/metrics",
        "//payments",
        "/%",
    ] {
        refused(&mut client, &request("GET", path, "", ""), 404, "nothing at this path");
    }
    let authorized = format!("Authorization: Bearer {TOKEN}\r\n");
    for (method, path) in [
        ("POST", "/peer/hello"),
        ("GET", "/peer/totals"),
        ("POST", "/peer/health"),
        ("POST", "/peer/purge"),
        ("POST", "/purge-payments"),
    ] {
        refused(&mut client, &request(method, path, &authorized, ""), 404, "nothing");
    }
}

#[test]
fn wrong_methods_are_405_and_told_the_right_ones() {
    let instance = Instance::alone(&["--allow-purge"]);
    let mut client = instance.client();
    for (method, path, allowed) in [
        ("GET", "/payments", "POST"),
        ("DELETE", "/payments", "POST"),
        ("PUT", "/payments?x=1", "POST"),
        ("PATCH", "/payments", "POST"),
        ("OPTIONS", "/payments", "POST"),
        ("TRACE", "/healthz", "GET, HEAD"),
        ("DELETE", "/clientes/1/extrato", "GET, HEAD"),
        ("PUT", "/clientes/1/transacoes", "POST"),
        ("POST", "/payments-summary", "GET, HEAD"),
        ("OPTIONS", "/payments-summary", "GET, HEAD"),
        ("POST", "/healthz", "GET, HEAD"),
        ("GET", "/purge-payments", "POST"),
    ] {
        let answer = refused(&mut client, &request(method, path, "", ""), 405, "method");
        assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
    }
}

#[test]
fn methods_that_nobody_defines_are_501_wherever_they_are_asked() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let mut peer = Client::connect(instance.peer_door);
    for method in ["post", "Get", "BREW", "PROPFIND", "G"] {
        for path in ["/payments", "/nothing", "/clientes/1/extrato"] {
            refused(&mut client, &request(method, path, "", ""), 501, "method");
        }
        refused(&mut peer, &request(method, "/peer/hello", "", ""), 501, "method");
    }
    // But of those that are known, an unknown path is what is wrong.
    refused(&mut client, &request("DELETE", "/nothing", "", ""), 404, "nothing");
}

#[test]
fn bodies_that_are_no_json_are_400() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let good = format!(r#"{{"correlationId":"{}","amount":1}}"#, id(1));
    for body in [
        String::new(),
        "{".into(),
        "correlationId=1".into(),
        format!("{good}x"),
        format!("{good}{good}"),
        good.replace(":1}", ":01}"),
        good.replace(":1}", ":+1}"),
        good.replace(":1}", ":NaN}"),
        good.replace(":1}", ":1,}"),
        good.replace('"', "'"),
    ] {
        refused(&mut client, &request("POST", "/payments", "", &body), 400, "not JSON");
    }
    let deep = "[".repeat(4_096);
    refused(&mut client, &request("POST", "/payments", "", &deep), 400, "nested");
    assert_eq!(instance.metric(r#"galo_payments_total{outcome="refused"}"#), 11);
    assert_eq!(instance.outstanding(), 0);
}

#[test]
fn malformed_fields_are_422_and_named() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    let with = |id: &str, amount: &str| format!(r#"{{"correlationId":{id},"amount":{amount}}}"#);
    let known = format!("\"{}\"", id(1));
    let cases = [
        ("[]".into(), "object"),
        ("null".into(), "object"),
        ("{}".into(), "correlationId"),
        (r#"{"amount":1}"#.into(), "correlationId"),
        (r#"{"correlationid":"x","amount":1}"#.into(), "correlationId"),
        (format!(r#"{{"correlationId":{known}}}"#), "amount"),
        (format!(r#"{{"correlationId":{known},"amount":1,"amount":2}}"#), "amount"),
        (with("null", "1"), "correlationId"),
        (with("1", "1"), "correlationId"),
        (with("\"\"", "1"), "correlationId"),
        (with("\"4a7901b87d264d9daa194dc1c7cf60b3\"", "1"), "correlationId"),
        (with("\"{4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3}\"", "1"), "correlationId"),
        (with("\"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60bg\"", "1"), "correlationId"),
        (with(&known, "null"), "amount"),
        (with(&known, "\"19.90\""), "amount"),
        (with(&known, "{}"), "amount"),
        (with(&known, "0"), "amount"),
        (with(&known, "0.00"), "amount"),
        (with(&known, "0.005"), "amount"),
        (with(&known, "-19.90"), "amount"),
        (with(&known, "92233720368547758.08"), "amount"),
        (with(&known, "1e999"), "amount"),
    ];
    for (body, named) in &cases {
        refused(&mut client, &request("POST", "/payments", "", body), 422, named);
    }
    assert_eq!(instance.outstanding(), 0, "nothing of all this was stored");
    assert_eq!(client.call(payment(&id(1), "1")).status, 202);
}

#[test]
fn bounds_that_are_no_times_are_400_and_named() {
    let instance = Instance::alone(&[]);
    let mut client = instance.client();
    for (query, named) in [
        ("from=yesterday", "from"),
        ("to=", "to"),
        ("to=2025-07-01", "to"),
        ("to=2025-07-01T12:00:00", "to"),
        ("to=2025-02-29T12:00:00Z", "to"),
        ("from=2025-07-01T12:00:00Z&to=%zz", "to"),
        ("from=2025-07-01T12:00:00Z&from=2025-07-01T12:00:00Z", "from"),
        ("from=2025-07-01T12:00:00.001Z&to=2025-07-01T12:00:00Z", "after"),
        ("form=2025-07-01T12:00:00Z", "form"),
        ("From=2025-07-01T12:00:00Z", "From"),
        ("from=2025-07-01T12:00:00Z&until=2025-07-01T12:00:00Z", "until"),
        ("%66%72om=soon", "from"),
        ("from%3D2025-07-01T12:00:00Z", "from=2025-07-01T12:00:00Z"),
    ] {
        let target = format!("/payments-summary?{query}");
        refused(&mut client, &request("GET", &target, "", ""), 400, named);
    }
}

#[test]
fn a_body_too_large_is_413_before_it_comes() {
    let instance = Instance::alone(&[]);
    // Only the heads: what follows is not waited for, let alone read as JSON.
    let head = "POST /payments HTTP/1.1\r\nHost: test\r\n";
    let said = format!("{head}Content-Length: 4097\r\n\r\n");
    refused_for_good(&instance, said.as_bytes(), 413, "too large");
    let expecting = format!("{head}Expect: 100-continue\r\nContent-Length: 99999\r\n\r\n");
    refused_for_good(&instance, expecting.as_bytes(), 413, "too large");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n1001\r\n");
    refused_for_good(&instance, chunked.as_bytes(), 413, "too large");
    // And one that comes whole all the same: the answer must not be lost to a reset.
    let whole = request("POST", "/payments", "", &"x".repeat(60_000));
    refused_for_good(&instance, whole.as_bytes(), 413, "too large");

    let padded = format!(r#"{{"correlationId":"{}","amount":1}}"#, id(1));
    let fits = request("POST", "/payments", "", &format!("{padded:<4096}"));
    assert_eq!(instance.client().call(fits).status, 202);
}

#[test]
fn a_head_too_large_or_with_too_many_fields_is_431() {
    let instance = Instance::alone(&[]);
    let with_fields = |count: usize| {
        let fields: String = (0..count).map(|n| format!("x-{n}: y\r\n")).collect();
        format!("GET /healthz HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
    };
    assert_eq!(instance.client().call(with_fields(63)).status, 200);
    refused_for_good(&instance, with_fields(64).as_bytes(), 431, "64 header fields");

    let of_length = |length: usize| {
        let empty = "GET /healthz HTTP/1.1\r\nHost: test\r\nx: \r\n\r\n".len();
        format!("GET /healthz HTTP/1.1\r\nHost: test\r\nx: {}\r\n\r\n", "y".repeat(length - empty))
    };
    assert_eq!(instance.client().call(of_length(8_192)).status, 200);
    refused_for_good(&instance, of_length(8_193).as_bytes(), 431, "8 KiB");
    let endless = format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000));
    refused_for_good(&instance, endless.as_bytes(), 431, "8 KiB");
    let unfinished = format!("GET /healthz HTTP/1.1\r\nx: {}", "y".repeat(9_000));
    refused_for_good(&instance, unfinished.as_bytes(), 431, "8 KiB");
}

#[test]
fn what_is_not_spoken_is_refused_by_its_own_status() {
    let instance = Instance::alone(&[]);
    let head = "POST /payments HTTP/1.1\r\nHost: test\r\n";
    for (bytes, status, named) in [
        (format!("{head}Expect: 200-ok\r\nContent-Length: 0\r\n\r\n"), 417, "100-continue"),
        (format!("{head}Transfer-Encoding: gzip\r\n\r\n"), 501, "chunked"),
        (format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n"), 501, "chunked"),
        ("GET / HTTP/2.0\r\nHost: test\r\n\r\n".into(), 505, "HTTP/1.1"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, "HTTP/1.1"),
        ("GET / HTTP/0.9\r\nHost: test\r\n\r\n".into(), 505, "HTTP/1.1"),
    ] {
        refused_for_good(&instance, bytes.as_bytes(), status, named);
    }
}

/// Each of these stalls behind its last byte, and the time-out would make it 408.
#[test]
fn what_can_never_become_a_request_is_answered_at_once() {
    let instance = Instance::alone(&["--request-timeout", "5s"]);
    let post = "POST /payments HTTP/1.1\r\nHost: test\r\n";
    for (bytes, status, named) in [
        ("\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03".into(), 400, "first line"),
        ("\x16".into(), 400, "first line"),
        ("\0".into(), 400, "first line"),
        ("GET /healthz HTTP/1.1\rX".into(), 400, "CR LF"),
        ("GET nowhere".into(), 400, "target"),
        ("GET / HTTP/3".into(), 0, ""),
        ("GET / HTTP/3.0".into(), 505, "version"),
        (format!("{post}Content-Length: many\r\n"), 400, "Content-Length"),
        (format!("{post}Content-Length: 5000\r\n"), 413, "large"),
        (format!("{post}Host: test\r\n"), 400, "Host"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n5\rhello"), 400, "malformed"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\nhello"), 400, "malformed"),
    ] {
        if status > 0 {
            refused_for_good(&instance, bytes.as_bytes(), status, named);
        }
        // The same, when each byte comes alone.
        let mut client = instance.client();
        for byte in bytes.as_bytes() {
            client.send([*byte]);
        }
        if status > 0 {
            assert_eq!(client.receive().unwrap().status, status, "{bytes:?}");
        } else {
            assert!(client.is_silent_for(std::time::Duration::from_millis(50)), "{bytes:?}");
        }
    }
}

/// Two readers that disagree about where a message ends are how requests are smuggled past a
/// balancer. Each of these has a second request hidden behind it, which must not be answered.
#[test]
fn ambiguous_framing_is_400_and_the_end_of_the_connection() {
    let instance = Instance::alone(&[]);
    let post = "POST /payments HTTP/1.1\r\nHost: test\r\n";
    let hidden = payment(&id(1), "1");
    for (head, named) in [
        (format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"), "together"),
        (format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"), "together"),
        (format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\n"), "more than one"),
        (format!("{post}Content-Length: 5, 6\r\n\r\n"), "Content-Length"),
        (format!("{post}Content-Length: 70, 70\r\n\r\n"), "Content-Length"),
        (format!("{post}Content-Length: 70\r\ncONTENT-lENGTH: 070\r\n\r\n"), "more than one"),
        (format!("{post}Content-Length: 70\r\nContent-Length: 70\r\n\r\n"), "more than one"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n5;\r\nhello"), "malformed"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n5;=x\r\nhello"), "malformed"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n5;;\r\nhello"), "malformed"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n5;a=\"b\r\nhello"), "malformed"),
        ("POST /payments HTTP/1.1\r\nHost: a:b\r\n\r\n".into(), "Host"),
        ("POST /payments HTTP/1.1\r\nHost: [::1\r\n\r\n".into(), "Host"),
        ("POST /payments HTTP/1.1\r\nHost: a:1:2\r\n\r\n".into(), "Host"),
        ("POST /payments HTTP/1.1\r\nHost: %zz\r\n\r\n".into(), "Host"),
        (format!("{post}Content-Length: -5\r\n\r\n"), "Content-Length"),
        (format!("{post}Content-Length: +5\r\n\r\n"), "Content-Length"),
        (format!("{post}Content-Length: 0x5\r\n\r\n"), "Content-Length"),
        (format!("{post}Content-Length: 99999999999999999999\r\n\r\n"), "Content-Length"),
        (format!("{post}Content-Length : 5\r\n\r\n"), "before the colon"),
        (format!("{post}Content-Length: 5\r\n x\r\n\r\n"), "may not start"),
        (format!("{post}X: a\nContent-Length: 5\r\n\r\n"), "CR LF"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n5;x\n"), "malformed"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n0x5\r\n"), "malformed"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n"), "malformed"),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\n"), "malformed"),
        ("POST /payments HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), "HTTP/1.0"),
        ("POST /payments HTTP/1.1\r\nContent-Length: 0\r\n\r\n".into(), "Host"),
        (format!("{post}Host: other\r\nContent-Length: 0\r\n\r\n"), "Host"),
        ("POST /payments HTTP/1.1\r\nHost: a b\r\nContent-Length: 0\r\n\r\n".into(), "Host"),
        ("POST  /payments HTTP/1.1\r\nHost: test\r\n\r\n".into(), ""),
        ("POST /payments\r\n\r\n".into(), "first line"),
        ("CONNECT test:1 HTTP/1.1\r\nHost: test\r\n\r\n".into(), "target"),
        ("what?\r\n\r\n".into(), ""),
        ("\r\n".repeat(9) + post, "empty lines"),
        ("\x16\x03\x01\x02\x00\x01".into(), ""),
    ] {
        refused_for_good(&instance, format!("{head}{hidden}").as_bytes(), 400, named);
    }
    assert_eq!(instance.outstanding(), 0, "nothing hidden was taken");
}

#[test]
fn the_peers_door_wants_the_token() {
    let instance = Instance::alone(&[]);
    let calls = [
        ("POST", "/peer/hello"),
        ("GET", "/peer/totals"),
        ("POST", "/peer/health"),
        ("POST", "/peer/purge"),
        ("GET", "/peer/anything"),
    ];
    let longer = format!("{TOKEN}x");
    for token in ["", "x", &TOKEN[1..], &longer, &TOKEN.to_uppercase()] {
        for (method, path) in calls {
            let answer = instance.at_peer_door(method, path, token, "");
            assert_eq!(answer.status, 401, "{token}: {answer:?}");
            assert!(reason(&answer).contains("token"));
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    let mut client = Client::connect(instance.peer_door);
    let basic = format!("Authorization: Basic {TOKEN}\r\n");
    refused(&mut client, &request("GET", "/peer/hello", &basic, ""), 401, "token");
    refused(&mut client, &request("GET", "/peer/hello", "", ""), 401, "token");
    // The entry's own paths are not there.
    refused(&mut client, &payment(&id(1), "1"), 404, "nothing");
    refused(&mut client, &request("GET", "/payments-summary", "", ""), 404, "nothing");

    assert_eq!(instance.at_peer_door("GET", "/peer/totals", TOKEN, "").status, 200);
    assert_eq!(instance.at_peer_door("GET", "/peer/anything", TOKEN, "").status, 404);
    let wrong = instance.at_peer_door("PUT", "/peer/totals", TOKEN, "");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET")));
    for body in ["", "{}", r#"{"processor":"third","failing":true,"response_min_ms":1}"#] {
        assert_eq!(instance.at_peer_door("POST", "/peer/health", TOKEN, body).status, 400);
    }
}
