//! What lies around an instance and is no part of the money: signals, whoever reads the log, and
//! what a start waits for. On the real binary.

use crate::support::journals::Scratch;
use crate::support::system::{Instance, SIGTERM, free_address, id};
use crate::support::{Client, Galo, PATIENCE, request, wait_until, wait_until_within};
use std::io::{PipeReader, Read, Write, pipe};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

const SIGHUP: i32 = 1;
const SIGUSR1: i32 = 10;
const SIGUSR2: i32 = 12;
const SIGALRM: i32 = 14;

#[test]
fn signals_that_do_not_ask_for_the_end_are_none() {
    let mut instance = Instance::alone(&["--log", "debug"]);
    assert_eq!(instance.pay(&id(1), "1").status, 202);
    for signal in [SIGUSR1, SIGUSR2, SIGALRM, SIGHUP] {
        instance.galo.signal(signal);
    }
    wait_until("the last one is seen", || instance.galo.stderr().contains("SIGHUP"));
    assert_eq!(instance.outstanding(), 1);
    assert!(instance.galo.is_running());
}

/// Its accounts come from a pipe that stays open, so this start would never end.
#[test]
fn a_start_that_waits_ends_when_it_is_told_to() {
    let path = std::env::temp_dir().join(format!("galo-{}-accounts", std::process::id()));
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let accounts = path.to_str().unwrap();
    let mut galo = Galo::start(["serve", "--listen", "127.0.0.1:0", "--accounts", accounts]);
    // Opened when it is opened for reading as well.
    let _open = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    galo.signal(SIGTERM);
    let (code, stderr) = galo.wait_for_end();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("stopped while starting"), "{stderr}");
}

/// A child whose log goes into a pipe that is full, and its read end.
fn with_a_full_log(args: &[&str]) -> (Child, PipeReader) {
    const PIPE_SIZE: usize = 65_536;
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&[b'.'; PIPE_SIZE]).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_galo"));
    command.arg("serve").args(args).stdout(Stdio::piped()).stderr(writer);
    (command.spawn().unwrap(), reader)
}

fn code_of(child: &mut Child) -> Option<i32> {
    wait_until_within(PATIENCE, "it ends", || match child.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        other => Err(format!("{other:?}")),
    })
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_service_nor_its_end() {
    let urls = ["--default-url", "http://127.0.0.1:1", "--fallback-url", "http://127.0.0.1:1"];
    let args = [&urls[..], &["--listen", "127.0.0.1:0", "--log", "debug"]].concat();
    let (mut child, mut log) = with_a_full_log(&args);
    let mut said = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while !said.ends_with('\n') {
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        said.push(char::from(byte[0]));
    }
    let entry: SocketAddr = said.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
    for signal in [SIGHUP, SIGTERM] {
        let call = request("GET", "/healthz", "", "");
        assert_eq!(Client::connect(entry).call(call).status, 200, "before signal {signal}");
        let arguments = [format!("-{signal}"), child.id().to_string()];
        assert!(Command::new("kill").args(arguments).status().unwrap().success());
    }
    assert_eq!(code_of(&mut child), Some(0));
    let mut read = String::new();
    log.read_to_string(&mut read).unwrap();
    assert!(read.bytes().all(|byte| byte == b'.'), "it was full: {read}");
}

#[test]
fn a_refusal_that_nobody_reads_is_one_all_the_same() {
    let (mut child, _log) = with_a_full_log(&["--listen", "192.0.2.1:0"]);
    assert_eq!(code_of(&mut child), Some(2));
}

/// A service manager that asks for it is told when the instance serves, and when it is about to end.
#[test]
fn a_service_manager_is_told_of_the_start_and_the_end() {
    let scratch = Scratch::new();
    let name = scratch.join("notify");
    let manager = UnixDatagram::bind(&name).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let said = || {
        let mut state = [0; 64];
        let length = manager.recv(&mut state).unwrap();
        String::from_utf8(state[..length].to_vec()).unwrap()
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_galo"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &name);
    let mut galo = Galo::spawn(command);
    let address = galo.address();
    assert_eq!(said(), "READY=1");
    assert_eq!(Client::connect(address).call(request("GET", "/healthz", "", "")).status, 200);
    galo.signal(SIGTERM);
    assert_eq!(said(), "STOPPING=1");
    assert!(galo.wait().0.success());
}

/// The peer's token may come from a file, which no list of processes shows.
#[test]
fn the_peers_token_is_read_from_a_file() {
    let scratch = Scratch::new();
    let file = scratch.join("token");
    std::fs::write(&file, "from-a-file\n").unwrap();
    let processors = [free_address(), free_address()];
    let instance = Instance::start_with_token(processors, &["--peer-token-file", &file]);
    for (token, status) in [("from-a-file", 200), ("from-a-fil", 401), ("", 401)] {
        let answer = instance.at_peer_door("GET", "/peer/totals", token, "");
        assert_eq!(answer.status, status, "{token}");
    }
    // While it is changed there are two.
    std::fs::write(&file, "the-new-one\nfrom-a-file\n").unwrap();
    instance.galo.signal(SIGHUP);
    wait_until("both are known", || instance.galo.stderr().contains("2 tokens from now on"));
    for (token, status) in [("from-a-file", 200), ("the-new-one", 200), ("the-new-on", 401)] {
        let answer = instance.at_peer_door("GET", "/peer/totals", token, "");
        assert_eq!(answer.status, status, "{token}");
    }
    std::fs::write(&file, "the-new-one\nfrom-a-file\nand-a-third\n").unwrap();
    instance.galo.signal(SIGHUP);
    wait_until("three are refused", || {
        instance.galo.stderr().contains("than two lines in it: what")
    });
    assert_eq!(instance.at_peer_door("GET", "/peer/totals", "the-new-one", "").status, 200);
    let both = ["serve", "--peer-token-file", &file, "--peer-token", "from-the-line"];
    let output = Command::new(env!("CARGO_BIN_EXE_galo")).args(both).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
