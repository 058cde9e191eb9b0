//! Who is let in: tokens at the entry and at the admin door of the real binary, and how they are
//! changed while it serves.

use crate::support::journals::Scratch;
use crate::support::system::{Instance, free_address, id, payment};
use crate::support::{Answer, Client, request, wait_until};
use std::net::SocketAddr;
use std::process::Command;

const SIGHUP: i32 = 1;
const OLD: &str = "the-token-of-the-shop";
const NEW: &str = "the-token-of-the-till";

fn authorization(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn ask(address: SocketAddr, path: &str, headers: &str) -> u16 {
    Client::connect(address).call(request("GET", path, headers, "")).status
}

/// 401, as RFC 6750 has it, and the connection goes on.
fn assert_unauthorized(answer: &Answer) {
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{answer:?}");
    assert_eq!(answer.body, r#"{"error":"The token is missing or wrong."}"#);
    assert_eq!(answer.header("connection"), None, "{answer:?}");
}

#[test]
fn nobody_comes_in_without_a_token_but_who_asks_for_the_health() {
    let scratch = Scratch::new();
    let file = scratch.join("tokens");
    std::fs::write(&file, format!("# the shop\n{OLD}\n\n{NEW}\n")).unwrap();
    let instance = Instance::alone(&["--entry-tokens", &file, "--allow-purge"]);
    let mut client = instance.client();
    let body = format!(r#"{{"correlationId":"{}","amount":1}}"#, id(1));
    let cut = &OLD[..OLD.len() - 1];
    let wrong = [
        String::new(),
        authorization(""),
        authorization(cut),
        authorization(&format!("{OLD}x")),
        authorization(&format!("{OLD} {NEW}")),
        authorization("# the shop"),
        format!("Authorization: {OLD}\r\n"),
        format!("Authorization: Basic {OLD}\r\n"),
        format!("X-Authorization: Bearer {OLD}\r\n"),
    ];
    for headers in &wrong {
        assert_unauthorized(&client.call(request("POST", "/payments", headers, &body)));
    }
    for (method, path) in [
        ("POST", "/%70ayments"),
        ("GET", "/payments-summary"),
        ("GET", "/payments/x"),
        ("POST", "/purge-payments"),
        ("POST", "/clientes/1/transacoes"),
        ("GET", "/clientes/1/extrato"),
        ("GET", "/nothing"),
        ("BREW", "/payments"),
        ("GET", "/healthz/"),
    ] {
        assert_unauthorized(&client.call(request(method, path, &wrong[0], &body)));
    }
    assert_eq!(client.call(request("GET", "/healthz", "", "")).status, 200);
    for token in [OLD, NEW] {
        let call = request("POST", "/payments", &authorization(token), &body);
        assert_eq!(client.call(call).status, 202, "{token}");
    }
    let summary = request("GET", "/payments-summary", &authorization(OLD), "");
    assert_eq!(client.call(summary).status, 200);
    assert_eq!(instance.outstanding(), 1, "only what was let in is accepted");
}

#[test]
fn sighup_takes_new_tokens_and_keeps_the_old_ones_if_the_file_is_bad() {
    let scratch = Scratch::new();
    let file = scratch.join("tokens");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(OLD);
    let instance = Instance::alone(&["--entry-tokens", &file]);
    // Open from before: it counts there, too.
    let mut client = instance.client();
    let mut status = |token: &str| {
        client.call(request("GET", "/payments-summary", &authorization(token), "")).status
    };
    let hang_up = |said: &str| {
        instance.galo.signal(SIGHUP);
        wait_until(said, || instance.galo.stderr().contains(said));
    };
    assert_eq!((status(OLD), status(NEW)), (200, 401));
    write(&format!("{OLD}\n{NEW}"));
    assert_eq!((status(OLD), status(NEW)), (200, 401), "nothing was said yet");
    hang_up("2 tokens from now on");
    assert_eq!((status(OLD), status(NEW)), (200, 200));
    write(NEW);
    hang_up("1 token from now on");
    assert_eq!((status(OLD), status(NEW)), (401, 200));
    for (text, said) in [
        ("# nobody\n", "there is no token in it: what was known before goes on"),
        ("short", "line 1: a token is 16 to 512"),
        ("the-token-of-the-shop\ntwo words in one line", "line 2: a token is 16 to 512"),
    ] {
        write(text);
        hang_up(said);
        assert_eq!((status(OLD), status(NEW)), (401, 200), "{text}");
    }
    std::fs::remove_file(&file).unwrap();
    hang_up("No such file or directory");
    assert_eq!((status(OLD), status(NEW)), (401, 200));
    let log = instance.galo.stderr();
    assert!(!log.contains(OLD) && !log.contains(NEW), "a token is in the log: {log}");
}

#[test]
fn sighup_takes_a_new_token_of_the_admin_door() {
    let scratch = Scratch::new();
    let file = scratch.join("token");
    std::fs::write(&file, OLD).unwrap();
    let (address, door) = (free_address(), free_address());
    let door_text = door.to_string();
    let flags = ["--admin-listen", &door_text, "--admin-token-file", &file];
    let instance = Instance::start([address, address], &flags);
    let status = |token| ask(door, "/status.json", &authorization(token));
    assert_eq!((status(OLD), status(NEW)), (200, 401));
    std::fs::write(&file, NEW).unwrap();
    instance.galo.signal(SIGHUP);
    wait_until("it is read again", || instance.galo.stderr().contains("1 token from now on"));
    assert_eq!((status(OLD), status(NEW)), (401, 200));
    std::fs::write(&file, "short").unwrap();
    instance.galo.signal(SIGHUP);
    wait_until("it is refused", || instance.galo.stderr().contains("before goes on"));
    assert_eq!((status(OLD), status(NEW)), (401, 200));
    // The entry has none.
    assert_eq!(instance.client().call(payment(&id(1), "1")).status, 202);
}

#[test]
fn a_file_that_is_no_good_is_refused_at_the_start() {
    let scratch = Scratch::new();
    let file = scratch.join("tokens");
    for (text, named) in [
        (None, "No such file"),
        (Some(""), "there is no token in it"),
        (Some("four-words\n"), "line 1: a token is 16 to 512"),
    ] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let args = ["serve", "--listen", "127.0.0.1:0", "--entry-tokens", &file];
        let output = Command::new(env!("CARGO_BIN_EXE_galo")).args(args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--entry-tokens") && said.contains(named), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}
