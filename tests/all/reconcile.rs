//! `galo reconcile` on the real binary: galo's books, from journals and from exports, against real
//! processors that are asked and against their statements as files.

use crate::support::journals::Scratch;
use crate::support::request;
use crate::support::system::{
    Booking, Instance, Processor, QUICK, addresses, decimal, free_address, id, iso, pair_with,
};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const PAYMENTS: u32 = 30;
/// A payment of nobody here.
const STRANGER: &str = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";

/// A pair that has settled payments at both processors and stands still.
struct Books {
    processors: [Processor; 2],
    instances: [Instance; 2],
    scratch: Scratch,
}

impl Books {
    fn play() -> Books {
        let scratch = Scratch::new();
        let mut processors = Processor::both();
        let data = ["1", "2"].map(|name| scratch.join(name));
        let args = data.each_ref().map(|data| [&["--data", &**data], &QUICK[..]].concat());
        let instances = pair_with(addresses(&processors), args.each_ref().map(|it| &it[..]));
        for number in 0..PAYMENTS {
            if number == PAYMENTS / 2 {
                instances.iter().for_each(Instance::settle);
                processors[0].set_failing(true);
            }
            let answer = instances[number as usize % 2].pay(&id(number.into()), "1234.56");
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        instances.iter().for_each(Instance::settle);
        processors[0].set_failing(false);
        Books { processors, instances, scratch }
    }

    /// Compares what the two journals hold.
    fn reconcile(&self, args: &[&str]) -> (Option<i32>, String) {
        let data = ["1", "2"].map(|name| self.scratch.join(name));
        reconcile(&[&[&*data[0], &*data[1]], args].concat())
    }

    fn asking(&self) -> Vec<String> {
        let names = ["default", "fallback"].into_iter().zip(&self.processors);
        names.map(|(name, it)| format!("--processor={name}=http://{}", it.address)).collect()
    }

    /// Writes a processor's books as a statement, by a line for each.
    fn write(&mut self, which: usize, header: &str, line: impl Fn(&Booking) -> String) -> String {
        let lines = self.processors[which].books();
        assert!(!lines.is_empty(), "each processor holds some");
        let text = lines.iter().map(|it| line(it) + "\n").collect::<String>();
        let path = self.scratch.join(["default.csv", "fallback.csv"][which]);
        std::fs::write(&path, format!("{header}\n{text}")).unwrap();
        path
    }

    fn statements(&mut self) -> [String; 2] {
        [("default", 0), ("fallback", 1)].map(|(name, which)| {
            let line = |it: &Booking| format!("{},{},{}", it.id, decimal(it.cents), iso(it.at_ms));
            let path = self.write(which, "id,amount,requestedAt", line);
            format!("--statement={name}={path}")
        })
    }

    /// Books a payment behind galo's back.
    fn book(&mut self, which: usize, id: &str, amount: &str) {
        let body = format!(
            r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"2025-07-01T00:00:00Z"}}"#
        );
        let post = request("POST", "/payments", "content-type: application/json\r\n", &body);
        let answer = self.processors[which].client().call(post);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn reconcile(args: &[&str]) -> (Option<i32>, String) {
    let mut galo = Command::new(env!("CARGO_BIN_EXE_galo"));
    let output = galo.arg("reconcile").args(args).output().expect("the binary starts");
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap()).concat();
    (output.status.code(), said)
}

/// Kind and processor → how many payments.
fn differences(said: &str) -> BTreeMap<String, u64> {
    let document: serde_json::Value = serde_json::from_str(said).expect(said);
    let differences = document["differences"].as_array().unwrap().iter();
    let named = differences.map(|it| {
        let name = [&it["kind"], &it["processor"]].map(|it| it.as_str().unwrap());
        (name.join(", "), it["payments"].as_u64().unwrap())
    });
    named.collect()
}

fn map(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// An export of journals in which nothing is settled.
fn nothing_settled() -> String {
    let header = "record,id,processor,amount,requested_at,fee,attempts,accepted_at,note\n\
                  total,0,default,0.00,,0,,,\ntotal,0,fallback,0.00,,0,,,\n";
    let digest = crc32c::crc32c(header.as_bytes());
    format!("{header}digest,crc32c:{digest:08x},,,,,,,\n")
}

#[track_caller]
fn refused((code, said): (Option<i32>, String), words: &str) {
    assert_eq!(code, Some(2), "{said}");
    assert!(said.starts_with("galo: ") && said.contains(words), "{words}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn books_that_agree_agree_however_they_are_told() {
    let mut books = Books::play();
    let asking = books.asking();
    let asking: Vec<_> = asking.iter().map(|it| &**it).collect();
    let [default, fallback] = books.statements();
    let good = |(code, said): (Option<i32>, String)| {
        assert_eq!(code, Some(0), "{said}");
        assert!(said.ends_with("\n  no difference\n"), "{said}");
        said
    };
    let [held, other] = [0, 1].map(|which: usize| books.processors[which].books().len());
    assert_eq!(held + other, PAYMENTS as usize);
    let said = good(books.reconcile(&asking));
    let row = said.lines().find(|line| line.trim_start().starts_with("fallback")).unwrap();
    let columns: Vec<_> = row.split_whitespace().collect();
    assert_eq!((columns[1], columns[3]), (&*other.to_string(), &*other.to_string()), "{said}");
    assert_eq!(columns[2], columns[4], "{said}");
    good(books.reconcile(&[&default, &fallback]));
    good(books.reconcile(&[&default, asking[1]]));
    good(books.reconcile(&[&default]));
    // From an export, while the instances are gone.
    books.instances.iter_mut().for_each(Instance::kill);
    let data = ["1", "2"].map(|name| books.scratch.join(name));
    let mut galo = Command::new(env!("CARGO_BIN_EXE_galo"));
    let exported = galo.arg("export").args(&data).output().unwrap();
    assert!(exported.status.success(), "{exported:?}");
    let path = books.scratch.join("books.csv");
    std::fs::write(&path, &exported.stdout).unwrap();
    good(reconcile(&[&path, &default, &fallback]));
    good(books.reconcile(&asking));
    // Half of it is none.
    std::fs::write(&path, &exported.stdout[..exported.stdout.len() / 2]).unwrap();
    refused(reconcile(&[&path, &default]), &format!("galo: {path}"));
}

#[test]
fn each_difference_is_found_by_asking_and_in_statements() {
    let mut books = Books::play();
    books.book(0, STRANGER, "5.00");
    let [first, last] = [id(0), id(u64::from(PAYMENTS) - 1)];
    books.book(1, &first, "1234.56");
    books.book(0, &last, "1234.57");
    let asking = books.asking();
    let asking: Vec<_> = asking.iter().map(|it| &**it).collect();
    let (code, said) = books.reconcile(&[&asking[..], &["--json"]].concat());
    assert_eq!(code, Some(1), "{said}");
    let expected = map(&[
        ("missing here, default", 1),
        ("other processor, default", 1),
        ("other processor, fallback", 1),
        ("other amount, default", 1),
        ("held by both, default", 1),
        ("held by both, fallback", 1),
    ]);
    assert_eq!(differences(&said), expected, "{said}");
    let (code, said) = books.reconcile(&asking);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.ends_with("\n  3 payments differ\n"), "{said}");
    let stranger = format!(
        "missing here, default:\n    {STRANGER}\n      here   not known\n      \
         there  5.00, held by default, 2025-07-01T00:00:00.000Z\n"
    );
    assert!(said.contains(&stranger), "{said}");

    // A statement that has lost a line, tells another twice, and is off by a millisecond for a third.
    let [_, fallback] = books.statements();
    let path = fallback.rsplit('=').next().unwrap().to_owned();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with(&first));
    lines.remove(1);
    lines.push(lines[1].clone());
    let at = lines[2].rsplit(',').next().unwrap().to_owned();
    let digit = if &at[22..23] == "9" { "8" } else { "9" };
    lines[2] = lines[2].replace(&at, &format!("{}{digit}Z", &at[..22]));
    std::fs::write(&path, lines.join("\r\n") + "\r\n").unwrap();
    let (code, said) = books.reconcile(&[&fallback, "--json", "--examples", "0"]);
    assert_eq!(code, Some(1), "{said}");
    let expected = map(&[
        ("missing there, fallback", 1),
        ("twice there, fallback", 1),
        ("other time, fallback", 1),
    ]);
    assert_eq!(differences(&said), expected, "{said}");
    let (_, said) = books.reconcile(&[&fallback, "--json", "--time-tolerance", "10ms"]);
    assert!(!differences(&said).contains_key("other time, fallback"), "{said}");
    // Of another window there is nothing to say.
    let (code, said) = books.reconcile(&[&fallback, "--to", "2001-01-01T00:00:00Z"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_statement_from_elsewhere_is_read_with_flags_and_refused_without() {
    let mut books = Books::play();
    let european = |cents: i128| {
        let (whole, cents) = (cents / 100, cents % 100);
        format!("{}.{:03},{cents:02}", whole / 1_000, whole % 1_000)
    };
    let path = books.write(1, "\u{feff}Zeitpunkt;Betrag;\"Vorgang\"", |it| {
        format!("{};{};\"{}\"", iso(it.at_ms).trim_end_matches('Z'), european(it.cents), it.id)
    });
    let statement = format!("--statement=fallback={path}");
    let columns =
        ["--id-column=Vorgang", "--amount-column=Betrag", "--time-column=Zeitpunkt", &statement];
    let points = ["--decimal-point=,", "--thousands-separator=."];
    let all = [&columns[..], &points, &["--separator=;"]].concat();
    let (code, said) = books.reconcile(&all);
    assert_eq!(code, Some(0), "{said}");
    refused(books.reconcile(&columns), "line 1: there is no column \"Vorgang\"");
    refused(books.reconcile(&columns), "is it --separator ';'?");
    let without_points = [&columns[..], &["--separator=;"]].concat();
    refused(books.reconcile(&without_points), "line 2: \"1.234,56\" is no amount");
    let cents = [&all[..], &["--amounts=cents"]].concat();
    refused(books.reconcile(&cents), "line 2: \"1.234,56\" is no whole number of cents");
}

#[test]
fn what_cannot_be_compared_is_refused_in_one_line() {
    let scratch = Scratch::new();
    let write = |name: &str, text: &[u8]| {
        let path = scratch.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let nothing = nothing_settled();
    let books = write("books.csv", nothing.as_bytes());
    let statement = |text: &[u8]| {
        let path = write("statement.csv", text);
        reconcile(&[&books, &format!("--statement=default={path}")])
    };
    let good = format!("id,amount,requestedAt\n{STRANGER},5.00,2025-07-01T00:00:00Z\n");
    assert_eq!(statement(good.as_bytes()).0, Some(1));
    let flaw = |text: &str, what: &str| {
        refused(statement(text.as_bytes()), &format!("statement.csv, {what}"));
    };
    flaw(&good.replace(STRANGER, "1"), "line 2: \"1\" is no payment id, a UUID");
    flaw(&good[..good.len() - 2], "line 2: the last line has no end: it may have been cut off");
    flaw(&good.replace(',', "\t"), "line 1: there is no column \"id\" but");
    flaw(&good.replace("5.00", "1.234"), "line 2: \"1.234\" may be a thousand times as much");
    flaw(&format!("{good}{}\n", "x".repeat(100_000)), "line 3: a record of more than 65536 bytes");
    refused(statement(b""), "statement.csv: it is empty");
    refused(statement(good.replace("5.00", "500").as_bytes()), "--amounts cents");
    let default = format!("--statement=default={}", scratch.join("statement.csv"));
    refused(reconcile(&[&scratch.join("none"), &default]), "none: No such file");
    refused(reconcile(&[&books, "--statement=default=/none"]), "cannot read /none: No such file");
    refused(reconcile(&[&scratch.path().display().to_string(), &default]), "is no directory of a");
    refused(reconcile(&[&scratch.join("statement.csv"), &default]), "is no export of galo");
    refused(reconcile(&[&books]), "with what?");
    let nobody = format!("--processor=default=http://{}", free_address());
    refused(reconcile(&[&books, &nobody]), "/admin/payments: Connection refused");
    refused(reconcile(&[&books, &default, &nobody]), "two sources for the books of default");
    let window = ["--from=2025-07-01T00:00:01Z", "--to=2025-07-01T00:00:00Z"];
    refused(reconcile(&[&[&*books, &default], &window[..]].concat()), "--from is after --to");
    let same = ["--decimal-point=,", "--thousands-separator=,"];
    refused(reconcile(&[&[&*books, &default], &same[..]].concat()), "cannot be both");
    let processor = Processor::start();
    let asked = format!("--processor=default=http://{}", processor.address);
    refused(reconcile(&[&books, &asked, "--token=124"]), "it answers 401");
    assert_eq!(reconcile(&[&books, &asked]).0, Some(0));
    assert!(Path::new(&books).exists(), "nothing is changed");
    assert_eq!(std::fs::read_to_string(&books).unwrap(), nothing, "nothing is changed");
}

/// A line of a gigabyte is refused as soon as it is too long for one, whatever comes after.
#[test]
fn a_line_without_end_is_refused_in_little_memory() {
    let scratch = Scratch::new();
    let endless = |name: &str, beginning: &str| {
        let path = scratch.join(name);
        std::fs::write(&path, beginning).unwrap();
        // Zeros that take no room on the disk.
        std::fs::File::options().append(true).open(&path).unwrap().set_len(1 << 30).unwrap();
        path
    };
    let reconcile = |books: &str, statement: &str| {
        let output = Command::new("bash")
            .args(["-c", "ulimit -v 262144; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_galo")])
            .args(["reconcile", books, &format!("--statement=default={statement}")])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let header = "record,id,processor,amount,requested_at,fee,attempts,accepted_at,note\n";
    let quoted = endless("books.csv", &format!("{header}\""));
    let what = "line 2: a record of more than 65536 bytes";
    refused(reconcile(&quoted, "/none"), &format!("books.csv, {what}"));
    let books = scratch.join("none.csv");
    std::fs::write(&books, nothing_settled()).unwrap();
    let statement = endless("endless.csv", "id,amount,requestedAt\n1,2,");
    refused(reconcile(&books, &statement), &format!("endless.csv, {what}"));
}

/// Ten million payments on each side, as an export and as two statements, in the order of their time and with
/// two differences. `cargo test --release --test all figures_of_reconciling -- --ignored --nocapture`
#[test]
#[ignore = "prints figures for a person to read"]
fn figures_of_reconciling() {
    const PAYMENTS: u64 = 10_000_000;
    let scratch = Scratch::new();
    let create = |name: &str| std::fs::File::create(scratch.join(name)).unwrap();
    let mut files = ["books.csv", "default.csv", "fallback.csv"].map(create);
    // Odd numbers times an odd one: ids that look like random ones, and no two alike.
    let id = |number: u64| {
        let high = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        uuid::Uuid::from_u128(u128::from(high) << 64 | u128::from(number))
    };
    let (mut digest, mut totals) = (0, [0_u64; 2]);
    let mut texts = [
        "record,id,processor,amount,requested_at,fee,attempts,accepted_at,note\n".into(),
        "id,amount,requestedAt\n".to_owned(),
        "id,amount,requestedAt\n".to_owned(),
    ];
    let mut flush = |texts: &mut [String; 3]| {
        digest = crc32c::crc32c_append(digest, texts[0].as_bytes());
        for (file, text) in files.iter_mut().zip(texts) {
            std::io::Write::write_all(file, text.as_bytes()).unwrap();
            text.clear();
        }
        digest
    };
    for number in 0..PAYMENTS {
        let which = usize::from(number % 20 == 0);
        let (name, at) = (["default", "fallback"][which], iso(1_751_328_000_000 + number as i64));
        totals[which] += 1;
        texts[0] += &format!("settled,{},{name},19.90,{at},0.995,1,,\n", id(number));
        let amount = if number == 77 { "19.91" } else { "19.90" };
        if number != 5_000_000 {
            texts[1 + which] += &format!("{},{amount},{at}\n", id(number));
        }
        if number % 4_096 == 0 {
            flush(&mut texts);
        }
    }
    for (name, count) in ["default", "fallback"].into_iter().zip(totals) {
        texts[0] += &format!("total,{count},{name},{},,0,,,\n", decimal(i128::from(count) * 1_990));
    }
    let digest = flush(&mut texts);
    texts[0] = format!("digest,crc32c:{digest:08x},,,,,,,\n");
    flush(&mut texts);
    let started = std::time::Instant::now();
    let mut galo = Command::new(env!("CARGO_BIN_EXE_galo"))
        .args(["reconcile", &scratch.join("books.csv"), "--examples=1"])
        .arg(format!("--statement=default={}", scratch.join("default.csv")))
        .arg(format!("--statement=fallback={}", scratch.join("fallback.csv")))
        .spawn()
        .unwrap();
    // What is left of it once it has ended says nothing of its memory.
    let mut peak = None;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", galo.id())).unwrap();
        let now = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).map(str::to_owned);
        peak = now.or(peak);
        if let Some(status) = galo.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    println!("{PAYMENTS} payments: {status}, {:?}, peak {}", started.elapsed(), peak.unwrap());
    assert_eq!(status.code(), Some(1));
}
