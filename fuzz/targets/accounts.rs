//! The file of accounts: read whole, as it was written, or refused with the number of a line.

#![no_main]

use galo::ledger::accounts::{Limits, digest, parse};
use galo_fuzz::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(limits) => {
            assert!(!limits.is_empty() && limits.len() <= text.lines().count());
            assert!(limits.iter().all(|(id, limit)| id.0 > 0 && limit.0 >= 0));
            // In whatever order and form.
            let mut lines: Vec<_> =
                limits.iter().map(|(id, limit)| format!("{},{}", id.0, limit.0)).collect();
            lines.sort();
            check(&lines.join("\n"), &limits);
            lines.reverse();
            check(&format!("# ours\r\n\n {} # theirs", lines.join(" \r\n\t")), &limits);
            // One that is there twice could have either limit.
            let twice = format!("{text}\n{}", lines[0]);
            let refused = parse(&twice).expect_err("an account is there twice");
            assert!(refused.ends_with("is there twice"), "{refused}");
        }
        Err(reason) if reason.starts_with("there is no account") => {}
        Err(reason) => {
            let number = reason.strip_prefix("line ").and_then(|it| it.split_once(": "));
            let (number, _) = number.unwrap_or_else(|| panic!("{reason}"));
            let number: usize = number.parse().expect("a number");
            assert!((1..=text.lines().count()).contains(&number), "{reason}");
            assert!(!reason.contains('\n') && reason.len() < 200);
            // The lines before it are not at fault.
            let before: Vec<_> = text.lines().take(number - 1).collect();
            let before = parse(&before.join("\n"));
            assert!(
                before.is_ok() || before.is_err_and(|it| it.starts_with("there is no account"))
            );
        }
    }
});

fn check(text: &str, limits: &Limits) {
    let read = parse(text).unwrap_or_else(|reason| panic!("{reason}: {text:?}"));
    assert_eq!(&read, limits);
    assert_eq!(digest(&read), digest(limits));
}
