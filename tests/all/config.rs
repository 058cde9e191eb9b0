//! `galo check-config` on the real binary: what it says of a file, and of one that is wrong; and
//! `galo rehearse` of the same.

use crate::support::journals::Scratch;
use std::process::{Command, Output};

fn check(args: &[&str], folder: &str, variables: &[(&str, &str)]) -> Output {
    galo(&[&["check-config"], args].concat(), folder, variables)
}

fn galo(args: &[&str], folder: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_galo"));
    command.args(args).current_dir(folder);
    command.envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_examples_are_right_and_show_no_secret() {
    let secrets = [("CARDS_KEY", "sk_s3cret"), ("WALLET_KEY", "wk_s3cret")];
    for (file, costs, sent) in [
        ("stripe-style.toml", "0.8771", "POST /v1/payment_intents HTTP/1.1"),
        ("mercadopago-style.toml", "0.9910", "POST /v1/payments HTTP/1.1"),
    ] {
        let output = check(&[&format!("deploy/processors/{file}")], ".", &secrets);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
        for part in [costs, sent, "Authorization: Bearer ***", "unknown     all else, and none"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!said.contains("s3cret") && !said.contains("  mind "), "{said}");
        // What is for people has 80 columns; what is sent has as many as it has.
        for line in said.lines() {
            let is_sent = line.contains("4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3");
            assert!(line.chars().count() <= 80 || is_sent, "{line}");
        }
    }
    let without = check(&["deploy/processors/stripe-style.toml"], ".", &[]);
    assert_eq!(without.status.code(), Some(2));
    assert!(text(&without.stderr).contains("toml:11:29: env CARDS_KEY is not set"), "{without:?}");
}

#[test]
fn what_is_wrong_is_said_a_line_each() {
    let scratch = Scratch::new();
    let folder = scratch.path().to_str().unwrap();
    let write = |text: &str| std::fs::write(scratch.path().join("p.toml"), text).unwrap();
    write(
        "[[processor]]\nname = 'A'\nkind = 'contest'\nurl = 'http://a'\nfee = { percent = 100 }\n\
         headers = { Host = 'x', X-Key = { file = 'gone' } }\n",
    );
    let output = check(&["p.toml"], folder, &[]);
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(2), ""));
    assert_eq!(
        text(&output.stderr),
        "p.toml:2:8: a name is 1 to 32 of a to z, 0 to 9 and -\n\
         p.toml:5:19: `percent` must be from 0 to below 100, with at most four decimals\n\
         p.toml:6:13: the header Host is galo's own to write\n\
         p.toml:6:33: gone: No such file or directory (os error 2)\n"
    );
    write(
        "[[processor]]\nname = 'a'\nkind = 'contest'\nurl = 'http://a:8001'\nfee = { percent = 5 }\n",
    );
    let id = "11111111-2222-3333-4444-555555555555";
    let output = check(&["p.toml", "--amount", "1000", "--id", id], folder, &[]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        said.contains(&format!("GET /payments/{id} HTTP/1.1")) && said.contains("50.0000"),
        "{said}"
    );
    assert_eq!(check(&["gone.toml"], folder, &[]).status.code(), Some(2));
    assert_eq!(check(&["p.toml", "--amount", "0"], folder, &[]).status.code(), Some(2));
}

#[test]
fn a_rehearsal_of_a_file_tells_its_processors_by_name_and_checks_it_likewise() {
    let scratch = Scratch::new();
    let folder = scratch.path().to_str().unwrap();
    let write = |text: &str| std::fs::write(scratch.path().join("p.toml"), text).unwrap();
    let rehearse = |flags: &[&str]| {
        galo(&[&["rehearse", "--processors", "p.toml"], flags].concat(), folder, &[])
    };
    write(
        "[[processor]]\nname = 'a'\nkind = 'contest'\nurl = 'http://a'\nfee = { percent = 100 }\n",
    );
    let output = rehearse(&[]);
    assert_eq!((output.status.code(), &*text(&output.stdout)), (Some(2), ""));
    assert_eq!(text(&output.stderr), text(&check(&["p.toml"], folder, &[]).stderr));
    assert!(text(&output.stderr).starts_with("p.toml:5:19: `percent` must be from 0 to below 100"));
    write(
        "[[processor]]\nname = 'a'\nkind = 'contest'\nurl = 'http://a'\nfee = { percent = 5 }\n\
         [[processor]]\nname = 'b'\nkind = 'idempotent'\nurl = 'http://b'\nfee = { percent = 2 }\n",
    );
    let output = rehearse(&["--tables", "2"]);
    let said = text(&output.stdout);
    assert_eq!((output.status.code(), &*text(&output.stderr)), (Some(0), ""), "{said}");
    let line = |start: &str| said.lines().find(|it| it.starts_with(start)).unwrap_or("").to_owned();
    assert!(line("a ").contains(" to ") && line("b ").contains(" to "), "{said}");
    assert!(line("held by two ").contains(" 0 "), "{said}");
    let refused = rehearse(&["--attempt-latency-max", "10s"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(
        text(&refused.stderr),
        "galo: p.toml: processor a: its time-out for an answer must be longer than \
         --attempt-latency-max\n"
    );
}
