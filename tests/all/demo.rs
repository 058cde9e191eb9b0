//! `galo demo` as somebody at a terminal meets it: the real binary, its output, its exit status,
//! and what it leaves behind.

use crate::support::journals::Scratch;
use crate::support::wait_until;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// A running demo on free ports, and all that it has written. Killed when dropped.
struct Demo {
    process: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let free = ["demo", "--port", "0", "--processor-ports", "0,0"];
        let inside = ["--peer-ports", "0,0", "--admin-ports", "0,0", "--page-port", "0"];
        Demo::with(&[&free[..], &inside, args].concat())
    }

    fn with(args: &[&str]) -> Demo {
        let mut process = Command::new(env!("CARGO_BIN_EXE_galo"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let output = Arc::new(Mutex::new(String::new()));
        let read = |stream: Box<dyn Read + Send>| {
            let output = output.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    output.lock().unwrap().push_str(&format!("{line}\n"));
                }
            })
        };
        let stdout = process.stdout.take().expect("stdout is piped");
        let stderr = process.stderr.take().expect("stderr is piped");
        let readers = vec![read(Box::new(stdout)), read(Box::new(stderr))];
        Demo { process, output, readers }
    }

    fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The processes it has started, by name, from the lines that introduce them.
    fn children(&self) -> HashMap<String, u32> {
        let said = self.output();
        let child = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == "process")?;
            Some((words[0].to_owned(), words.get(at + 1)?.parse().ok()?))
        };
        said.lines().filter_map(child).collect()
    }

    /// Waits for a status line with payments settled → all children.
    fn wait_until_settling(&self) -> HashMap<String, u32> {
        wait_until("settled payments in the status line", || {
            status_lines(&self.output()).any(|[_, settled, _]| settled > 0)
        });
        let children = self.children();
        assert_eq!(children.len(), 4, "{}", self.output());
        children
    }

    /// Waits for its end → its status and all it has written.
    fn wait(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().expect("the demo can be waited for");
        self.readers.drain(..).for_each(|reader| reader.join().expect("it reads"));
        (status, self.output())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- output of the demo ---\n{}---", self.output());
        }
    }
}

/// Accepted, settled at default, settled at fallback: of each status line.
fn status_lines(output: &str) -> impl Iterator<Item = [u64; 3]> + '_ {
    output.lines().filter_map(|line| {
        line.get(..5)?.trim().strip_suffix(" s")?.parse::<u64>().ok()?;
        let number = |columns: std::ops::Range<usize>| {
            line.get(columns)?.trim().replace(',', "").parse::<u64>().ok()
        };
        Some([number(5..14)?, number(29..37)?, number(44..53)?])
    })
}

fn signal(process: u32, signal: i32) {
    let status = Command::new("kill").args([format!("-{signal}"), process.to_string()]).status();
    assert!(status.expect("kill(1) runs").success());
}

/// A process that has ended but was not waited for yet counts as gone.
fn is_gone(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.map_or(true, |stat| stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn assert_gone(children: &HashMap<String, u32>) {
    for (name, process) in children {
        assert!(!Path::new(&format!("/proc/{process}")).exists(), "{name} has outlived the demo");
    }
}

#[test]
fn it_shows_payments_being_settled_and_ctrl_c_leaves_nothing_behind() {
    for end in [SIGINT, SIGTERM] {
        let demo = Demo::start(&[]);
        let children = demo.wait_until_settling();
        signal(demo.process.id(), end);
        let (status, output) = demo.wait();
        assert_eq!(status.code(), Some(0), "{output}");
        assert!(output.contains("the books agree"), "{output}");
        assert_gone(&children);
    }
}

#[test]
fn without_a_load_of_its_own_it_only_waits() {
    let demo = Demo::start(&["--rate", "0"]);
    wait_until("a status line", || status_lines(&demo.output()).next().is_some());
    signal(demo.process.id(), SIGINT);
    let (status, output) = demo.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(status_lines(&output).all(|line| line == [0; 3]), "{output}");
}

#[test]
fn a_child_that_dies_ends_it_and_is_named() {
    for name in ["galo-2", "processor-default"] {
        let demo = Demo::start(&[]);
        let children = demo.wait_until_settling();
        signal(children[name], SIGKILL);
        let (status, output) = demo.wait();
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains(&format!("{name} has died")), "{output}");
        assert_gone(&children);
    }
}

#[test]
fn its_children_die_with_it() {
    let demo = Demo::start(&[]);
    let children = demo.wait_until_settling();
    let journals = journals_of(demo.process.id());
    assert!(journals.join("2").is_dir(), "{}", journals.display());
    signal(demo.process.id(), SIGKILL);
    drop(demo);
    wait_until("all children are gone", || children.values().all(|process| is_gone(*process)));
    let next = Demo::start(&["--rate", "0"]);
    wait_until("the next one has started", || next.children().len() == 4);
    assert!(!journals.exists(), "the journals of the one that was killed stay");
}

fn journals_of(process: u32) -> PathBuf {
    std::env::temp_dir().join(format!("galo-demo-{process}"))
}

/// The page's address, and its token.
fn page(demo: &Demo) -> (String, String) {
    let said = demo.output();
    let line =
        said.lines().find_map(|line| line.trim().strip_prefix("http://")?.split_once("/#token="));
    let (address, token) = line.unwrap_or_else(|| panic!("no page:\n{said}"));
    (address.to_owned(), token.to_owned())
}

fn ask(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the door is there");
    let text = format!("{request}\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("it takes requests");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn its_story_is_told_in_80_columns_and_its_report_needs_no_server() {
    let folder = Scratch::new();
    let file = folder.path().join("report.html");
    let demo = Demo::start(&["--once", "--speed", "8", "--report", file.to_str().unwrap()]);
    let journals = journals_of(demo.process.id());
    let (status, output) = demo.wait();
    assert_eq!(status.code(), Some(0), "{output}");
    for line in output.lines().filter(|line| !line.starts_with("the report is in ")) {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    let words = output.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "fallback takes over",
        "are queued: no fault",
        "debit of 100,000.00: 422, refused by its limit, and nothing has changed",
        "Instance 2 is killed (kill -9)",
        "Instance 2 is started again",
        "none is lost",
        "Balanced: ",
        "the books agree, to the cent",
        "had a 202 for",
        "transactions done, 1 refused",
    ] {
        assert!(words.contains(part), "{part}: {output}");
    }
    assert!(!journals.exists(), "{} is left behind", journals.display());
    let report = std::fs::read_to_string(file).unwrap();
    for part in [
        "Content-Security-Policy",
        "connect-src 'none'",
        "\"documents\":[{\"version\":",
        "\"good\":true",
    ] {
        assert!(report.contains(part), "no {part} in the report");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_refused_in_one_line() {
    let (status, output) = Demo::start(&["--report", "/nowhere/report.html"]).wait();
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(output.starts_with("galo: --report /nowhere/report.html: "), "{output}");
    assert_eq!(output.lines().count(), 1, "{output}");
}

#[test]
fn its_page_is_for_those_who_have_its_address_and_its_buttons_do_what_they_say() {
    let demo = Demo::start(&[]);
    demo.wait_until_settling();
    let (address, token) = page(&demo);
    let token = format!("Authorization: Bearer {token}");
    let get = |path: &str| ask(&address, &format!("GET {path} HTTP/1.1\r\n{token}"));
    let press = |name: &str| ask(&address, &format!("POST /do/{name} HTTP/1.1\r\n{token}"));
    let served = ask(&address, "GET / HTTP/1.1");
    assert!(served.starts_with("HTTP/1.1 200 ") && served.contains("connect-src 'self'"));
    for (headers, status) in [
        ("X: y".to_owned(), 401),
        ("Authorization: Bearer wrong".into(), 401),
        (format!("{token}\r\nOrigin: http://example.org"), 403),
    ] {
        let answer = ask(&address, &format!("POST /do/kill HTTP/1.1\r\n{headers}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let answer = ask(&address, &format!("GET /status.json HTTP/1.1\r\n{headers}"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    assert!(get("/do/kill").starts_with("HTTP/1.1 405 "));
    assert!(press("nothing").starts_with("HTTP/1.1 404 "));
    let has_both = |both: bool| get("/status.json").contains("\"instance\":2") == both;
    assert!(press("start").starts_with("HTTP/1.1 409 "));
    assert!(press("kill").contains("Instance 2 has been killed."));
    assert!(press("kill").starts_with("HTTP/1.1 409 "));
    wait_until("instance 2 is gone", || has_both(false));
    assert!(press("start").contains("\"done\""));
    wait_until("instance 2 is back", || has_both(true));
    assert!(press("cut").contains("\"done\""));
    wait_until("they do not hear each other", || has_both(false));
    assert!(press("fail").contains("\"done\""));
    assert!(
        get("/status.json").contains("default is failing, fallback is well, the instances are cut")
    );
    // All of that is made well again at the end.
    signal(demo.process.id(), SIGINT);
    let (status, output) = demo.wait();
    assert_eq!(status.code(), Some(0), "{output}");
}

#[test]
fn a_port_in_use_is_refused_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (flag, value) in [
        ("--port", port.to_string()),
        ("--processor-ports", format!("0,{port}")),
        ("--peer-ports", format!("{port},0")),
        ("--admin-ports", format!("0,{port}")),
        ("--page-port", port.to_string()),
    ] {
        let all = [
            ("--port", "0".to_owned()),
            ("--processor-ports", "0,0".into()),
            ("--peer-ports", "0,0".into()),
            ("--admin-ports", "0,0".into()),
            ("--page-port", "0".into()),
        ];
        let args: Vec<_> = all
            .iter()
            .flat_map(|(name, free)| [*name, if *name == flag { &value } else { free }])
            .collect();
        let (status, output) = Demo::with(&[&["demo"], &args[..]].concat()).wait();
        assert_eq!(status.code(), Some(2), "{output}");
        assert_eq!(output.lines().count(), 1, "{output}");
        assert!(output.contains(&format!("port {port} is in use; {flag} ")), "{output}");
    }
}

/// The run is much too short to be a good one: what was sent to a slow processor may still be
/// under way when the totals are read. But whatever happened, the sheet must add up.
#[test]
fn a_short_contest_ends_with_a_sheet_that_adds_up() {
    let folder = Scratch::new();
    let file = folder.path().join("report.html");
    let args = ["--contest", "preview", "--speed", "20", "--report", file.to_str().unwrap()];
    let (status, output) = Demo::start(&args).wait();
    assert!(output.contains("Score sheet: preview, NOT COMPARABLE"), "{output}");
    let report = std::fs::read_to_string(file).unwrap();
    assert!(report.contains("Score sheet: preview") && report.contains("\"buttons\":[]"));
    let line = |label: &str| {
        let found = output.lines().find_map(|line| line.strip_prefix(&format!("  {label:<16}")));
        found.unwrap_or_else(|| panic!("no line {label}:\n{output}"))
    };
    let cents = |text: &str| text.replace([',', '.'], "").parse::<i128>().unwrap();
    let first = |label: &str| cents(line(label).split(' ').next().unwrap());
    let (accepted, lag) = (first("payments"), first("lag"));
    let held = [first("default holds"), first("fallback holds")];
    assert!(accepted > 500, "{output}");
    assert!(line("payments").contains(" 0 failed"), "{output}");
    assert_eq!(accepted - lag, held[0] + held[1], "{output}");
    assert_eq!(first("duplicates"), 0, "{output}");
    let gross = first("gross");
    assert_eq!(gross, (held[0] + held[1]) * 1_990, "{output}");
    let fees_20ths = held[0] * 1_990 + held[1] * 1_990 * 3;
    assert_eq!(first("fees"), (fees_20ths + 10) / 20, "{output}");
    let factor = 100 + first("bonus") - first("fine");
    let score = ((gross * 20 - fees_20ths) * factor + 1_000) / 2_000;
    assert_eq!(first("score"), score, "{output}");
    let is_good = !output.contains("WRONG");
    assert_eq!(status.code(), Some(if is_good { 0 } else { 1 }), "{output}");
    assert!(is_good || lag > 0 || first("audits") > 0, "{output}");
}
