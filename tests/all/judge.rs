//! `galo judge` after a run: the real binary between real processors and instances, on books that
//! agree and on books that do not.

use crate::support::journals::Scratch;
use crate::support::request;
use crate::support::system::{Instance, Processor, QUICK, addresses, free_address, pair};
use galo::tools::judge::k6::payment_id;
use std::net::SocketAddr;
use std::process::Command;

const SEED: u32 = 7;
const POSTS: u32 = 40;
const GOOD: &str = "every accepted payment is held by exactly one processor; 50 windows agree";

/// A run that is over: every post was accepted, and is settled at one of the processors.
struct Run {
    processors: [Processor; 2],
    instances: [Instance; 2],
    files: Scratch,
}

impl Run {
    fn play() -> Run {
        let mut processors = Processor::both();
        let instances = pair(addresses(&processors), &QUICK);
        for number in 0..POSTS {
            if number == POSTS / 2 {
                instances.iter().for_each(Instance::settle);
                processors[0].set_failing(true);
            }
            let answer = instances[number as usize % 2].pay(&id(number), "19.90");
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        instances.iter().for_each(Instance::settle);
        let run = Run { processors, instances, files: Scratch::new() };
        std::fs::write(run.files.join("console.log"), "").unwrap();
        run
    }

    fn held(&mut self) -> [usize; 2] {
        [0, 1].map(|index: usize| self.processors[index].books().len())
    }

    /// The sheet that k6 would have written, with something else in a place.
    fn write_sheet(&mut self, place: &str, other: &str) {
        let [default, fallback] = self.held();
        let [first, second, third] = [0, 1, 2].map(id);
        let [of_default, of_fallback] = [default * 1_990, fallback * 1_990];
        // The fees are 5 and 15 %, the bonus of a p99 of 1 ms is 20 %.
        let score = (of_default * 95 + of_fallback * 85) * 12 / 1_000;
        let sheet = format!(
            r#"{{"contest":"preview","complete":true,"timeDivisor":1,"amountCents":1990,
            "seed":{SEED},
            "firstIds":["{first}","{second}","{third}"],"droppedIterations":0,
            "posts":{{"attempted":{POSTS},"accepted":{POSTS},"failed":0,"refused":0,"unanswered":0}},
            "audits":{{"done":6,"unanswered":0,"inconsistent":0,"differencePayments":0,
            "inconsistentStrict":0,"differenceCentsStrict":0}},"latencyMs":{{"p50":0.5,"p99":1}},
            "held":{{"default":{{"payments":{default},"cents":{of_default},"fee":0.05}},
            "fallback":{{"payments":{fallback},"cents":{of_fallback},"fee":0.15}}}},
            "backend":{{"default":{{"payments":{default},"cents":{of_default}}},
            "fallback":{{"payments":{fallback},"cents":{of_fallback}}}}},
            "score":{{"lag":0,"disqualified":false,"scoreCents":{score}}}}}"#
        );
        assert!(sheet.contains(place), "{place}");
        std::fs::write(self.files.join("sheet.json"), sheet.replace(place, other)).unwrap();
    }

    /// Asks for judgement, with the second instance as the backend: its code and what it printed.
    fn judge(&self, args: &[&str]) -> (Option<i32>, String) {
        let processors = self.processors.each_ref().map(|processor| processor.address);
        judge(&self.files, self.instances[1].entry, processors, args)
    }

    /// Books a payment at a processor behind everybody's back.
    fn book(&mut self, which: usize, id: &str, amount: &str) {
        let body = format!(
            r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"2025-07-01T00:00:00Z"}}"#
        );
        let post = request("POST", "/payments", "content-type: application/json\r\n", &body);
        self.processors[which].set_failing(false);
        let answer = self.processors[which].client().call(post);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn id(number: u32) -> String {
    payment_id(SEED, number).to_string()
}

fn judge(
    files: &Scratch,
    backend: SocketAddr,
    processors: [SocketAddr; 2],
    args: &[&str],
) -> (Option<i32>, String) {
    let [default, fallback] = processors.map(|address| format!("http://{address}"));
    let output = Command::new(env!("CARGO_BIN_EXE_galo"))
        .args(["judge", "--sheet", &files.join("sheet.json")])
        .args(["--console", &files.join("console.log"), "--wait", "0s"])
        .args(["--backend-url", &format!("http://{backend}")])
        .args(["--default-url", &default, "--fallback-url", &fallback])
        .args(args)
        .output()
        .expect("the binary starts");
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
    (output.status.code(), said)
}

#[test]
fn a_good_run_is_good() {
    let mut run = Run::play();
    run.write_sheet("", "");
    let [default, fallback] = run.held();
    assert!(default > 0 && fallback > 0, "both hold some");
    let (code, said) = run.judge(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(GOOD) && !said.contains("WRONG"), "{said}");
    let row = said.lines().find(|line| line.trim_start().starts_with("fallback")).unwrap();
    let money = format!("{}.{:02}", fallback * 1_990 / 100, fallback * 1_990 % 100);
    let expected = ["fallback", &fallback.to_string(), &money];
    assert!(row.split_whitespace().take(3).eq(expected), "{said}");
}

#[test]
fn each_difference_is_found_and_named() {
    let mut run = Run::play();
    run.write_sheet("", "");
    // What was accepted last is at the fallback, what came first at the default.
    let [first, last, stranger] = [id(0), id(POSTS - 1), id(POSTS)];
    run.book(1, &first, "19.90");
    run.book(0, &last, "19.91");
    run.book(0, &stranger, "19.90");
    let (code, said) = run.judge(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains(GOOD), "{said}");
    let both = said.lines().find(|line| line.contains("held by both processors: 2 (")).unwrap();
    assert!(both.contains(&first) && both.contains(&last), "{said}");
    for finding in [
        format!("  WRONG: held by default with a wrong amount: 1 ({last})"),
        format!("  WRONG: held by default but never sent: 1 ({stranger})"),
        "  WRONG: in all the backend says ".into(),
    ] {
        assert!(said.contains(&finding), "{finding}\n{said}");
    }
}

#[test]
fn what_was_lost_is_found_and_so_is_what_the_sheet_alone_shows() {
    let mut run = Run::play();
    run.write_sheet(r#""droppedIterations":0"#, r#""droppedIterations":3"#);
    let [_, lost] = run.held();
    assert_eq!(run.processors[1].admin("POST", "/admin/purge-payments", "").status, 200);
    let (code, said) = run.judge(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("WRONG: 3 iterations dropped"), "{said}");
    assert!(said.contains(&format!("WRONG: accepted but held by none: {lost} (")), "{said}");
}

#[test]
fn a_post_that_failed_is_told_by_the_console_and_may_be_excused() {
    let mut run = Run::play();
    let [counted, failed] = [
        format!(r#""attempted":{POSTS},"accepted":{POSTS},"failed":0,"refused":0"#),
        format!(r#""attempted":{},"accepted":{POSTS},"failed":1,"refused":1"#, POSTS + 1),
    ];
    run.write_sheet(&counted, &failed);
    let line = format!("failed-post {POSTS} 502 {} from 1 to 2 ", id(POSTS));
    std::fs::write(run.files.join("console.log"), line).unwrap();
    let (code, said) = run.judge(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("WRONG: 1 posts failed: 1 refused"), "{said}");
    let (code, said) = run.judge(&["--excused-posts", "1"]);
    assert_eq!(code, Some(0), "{said}");
    std::fs::write(run.files.join("console.log"), "").unwrap();
    let (code, said) = run.judge(&["--excused-posts", "1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("names 0 failed posts, the sheet 1"), "{said}");
    assert!(said.contains("accepted but held by none: 1"), "{said}");
}

#[test]
fn what_cannot_be_judged_is_refused_in_one_line() {
    let mut run = Run::play();
    let refused = |(code, said): (Option<i32>, String), words: &str| {
        assert_eq!(code, Some(2), "{said}");
        assert!(said.starts_with("galo: ") && said.contains(words), "{words}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    };
    refused(run.judge(&[]), "sheet.json: No such file");
    std::fs::write(run.files.join("sheet.json"), "[]").unwrap();
    refused(run.judge(&[]), "sheet.json: no score sheet: it is JSON of another shape");
    run.write_sheet("", "");
    refused(run.judge(&["--token", "124"]), "it answers 401");
    let [nobody, fallback] = [free_address(), run.processors[1].address];
    let alone = judge(&run.files, run.instances[1].entry, [nobody, fallback], &[]);
    refused(alone, "/admin/payments-summary: Connection refused");
    std::fs::remove_file(run.files.join("console.log")).unwrap();
    refused(run.judge(&[]), "console.log: No such file");
}
