//! `GET /payments/{id}` and `galo export`, on the real binaries: where each payment is, whichever
//! instance is asked, also after restarts, and from books that are read from the disk.

use crate::support::journals::Scratch;
use crate::support::system::{
    Booking, Instance, Processor, addresses, assert_books_balance, decimal, free_address, id, iso,
    pair, pair_with, payment,
};
use crate::support::{Answer, Client, request, wait_until};
use galo::base::clock::Timestamp;
use galo::base::money::Cents;
use galo::journal::history;
use galo::payments::{self, PaymentId, Settlement};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::process::{Command, Output};

fn ask(instance: &Instance, id: &str) -> Answer {
    instance.get(&format!("/payments/{id}"))
}

fn story(instance: &Instance, id: &str) -> Value {
    let answer = ask(instance, id);
    assert_eq!(answer.status, 200, "{id}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// To the cent, as it was posted: a number that was read is not exact any more.
fn assert_amount(instance: &Instance, id: &str, amount: &str) {
    let answer = ask(instance, id);
    assert!(answer.body.contains(&format!("\"amount\":{amount},")), "{answer:?}");
}

/// Both instances tell of each payment what the processors' books say.
fn assert_told(instances: &[Instance], books: &[Vec<Booking>; 2]) {
    for (name, fee_percent, bookings) in [("default", 5, &books[0]), ("fallback", 15, &books[1])] {
        for Booking { id, cents, at_ms, .. } in bookings {
            for instance in instances {
                let told = story(instance, id);
                assert_amount(instance, id, &decimal(*cents));
                assert_eq!(told["correlationId"], **id);
                assert_eq!((&told["state"], &told["processor"]), (&"settled".into(), &name.into()));
                assert_eq!(told["requestedAt"], iso(*at_ms));
                let fee = told["fee"].as_f64().unwrap();
                assert!((fee - (*cents * fee_percent) as f64 / 10_000.0).abs() < 1e-9, "{told}");
                assert!(told["attempts"].as_u64().unwrap() >= 1, "{told}");
            }
        }
    }
}

fn export(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_galo")).arg("export").args(args).output().unwrap()
}

/// The lines of a whole export: `record` and the rest.
fn exported(directories: &[&str]) -> Vec<Vec<String>> {
    let output = export(directories);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (before, last) = text.trim_end().rsplit_once('\n').unwrap();
    let digest = format!("digest,crc32c:{:08x},,,,,,,", crc32c(&format!("{before}\n")));
    assert_eq!(last, digest);
    let cells = |line: &str| line.split(',').map(str::to_owned).collect();
    before.lines().skip(1).map(cells).collect()
}

/// Bit by bit, as RFC 3720 has it.
fn crc32c(text: &str) -> u32 {
    !text.bytes().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 }
        })
    })
}

#[test]
fn where_a_payment_went_is_told_by_both_instances_and_after_restarts() {
    let mut processors = Processor::both();
    let scratch = Scratch::new();
    let data = [scratch.join("1"), scratch.join("2")];
    let args = data.each_ref().map(|data| ["--data", &data[..], "--patience", "10ms"]);
    let mut instances = pair_with(addresses(&processors), args.each_ref().map(|it| &it[..]));
    let mut accepted = HashMap::new();
    let mut pay = |number: u64, instances: &[Instance]| {
        let cents = 100 + i128::from(number);
        let answer = instances[number as usize % 2].pay(&id(number), &decimal(cents));
        assert_eq!(answer.status, 202);
        accepted.insert(id(number), cents);
    };
    (0..20).for_each(|number| pay(number, &instances));
    instances.iter().for_each(Instance::settle);
    processors[0].set_failing(true);
    (20..40).for_each(|number| pay(number, &instances));
    instances.iter().for_each(Instance::settle);
    for round in 0..3 {
        let books = assert_books_balance(&accepted, &mut processors, &instances);
        assert!(books.iter().all(|books| !books.is_empty()));
        assert_told(&instances, &books);
        assert_eq!(ask(&instances[round % 2], &id(99)).status, 404);
        instances.iter_mut().for_each(Instance::kill);
        let found = exported(&[&data[0], &data[1]]);
        let settled = found.iter().filter(|line| line[0] == "settled");
        let settled: Vec<_> =
            settled.map(|it| (it[1].clone(), it[2].clone(), it[4].clone())).collect();
        for (name, books) in ["default", "fallback"].into_iter().zip(&books) {
            for Booking { id, at_ms, .. } in books {
                assert!(settled.contains(&(id.clone(), name.into(), iso(*at_ms))), "{id}");
            }
            let total = found.iter().find(|line| line[0] == "total" && line[2] == name).unwrap();
            assert_eq!(total[1], books.len().to_string());
        }
        assert_eq!(settled.len(), accepted.len());
        assert!(settled.is_sorted_by_key(|(.., at)| at.clone()), "in the order of their time");
        instances.iter_mut().for_each(Instance::start_again);
        crate::support::system::see_each_other(&instances);
    }
}

#[test]
fn what_waits_is_in_doubt_or_rejected_says_so() {
    let mut processors = Processor::both();
    let scratch = Scratch::new();
    let args = ["--data", &scratch.join("1")];
    let poison = "0badf00d-7d26-4d9d-aa19-000000000001";
    let booked = format!(
        r#"{{\"correlationId\":\"{poison}\",\"amount\":5.0,\"requestedAt\":\"2999-01-01T00:00:00\"}}"#
    );
    processors[0].set_script(&format!(
        r#"{{"call":"pay","ids":"0badf00d","status":422}},
        {{"call":"look","ids":"0badf00d","status":200,"body":"{booked}"}}"#
    ));
    let instance = Instance::start(addresses(&processors), &args);
    assert_eq!(instance.pay(poison, "1.00").status, 202);
    wait_until("it is over", || instance.metric("galo_rejected_total") == 1);
    let told = story(&instance, poison);
    assert_eq!(told["state"], "rejected");
    assert_eq!(told["why"], "default holds it under another amount");
    assert_eq!(told["refusals"].to_string(), r#"{"default":200,"fallback":0}"#);
    assert_amount(&instance, poison, "1.00");

    processors[0].set_fault("hang-after-insert", 1);
    let sent_at = Timestamp(0);
    assert_eq!(instance.pay(&id(1), "2.50").status, 202);
    wait_until("it was sent", || story(&instance, &id(1))["state"] != "waiting");
    let told = story(&instance, &id(1));
    if told["state"] == "inDoubt" {
        assert_eq!((&told["processor"], &told["attempts"]), (&"default".into(), &1.into()));
        assert!(told["requestedAt"].as_str().unwrap() > &sent_at.to_string()[..]);
        assert!(told["acceptedAt"].is_string());
    }
    wait_until("it is found", || story(&instance, &id(1))["state"] == "settled");

    let nowhere =
        Instance::start([free_address(), free_address()], &["--data", &scratch.join("2")]);
    assert_eq!(nowhere.pay(&id(2), "0.10").status, 202);
    wait_until("both are found to be down", || {
        let told = story(&nowhere, &id(2));
        told["state"] == "waiting" && told["why"] == "no processor is up"
    });
}

#[test]
fn without_a_journal_the_latest_are_told() {
    let processors = Processor::both();
    let [one, two] = pair(addresses(&processors), &[]);
    assert_eq!(one.pay(&id(1), "7.00").status, 202);
    one.settle();
    two.settle();
    for instance in [&one, &two] {
        let told = story(instance, &id(1));
        assert_eq!((&told["state"], &told["processor"]), (&"settled".into(), &"default".into()));
    }
}

#[test]
fn what_is_no_payment_is_refused_and_an_absent_instance_is_missed() {
    let processors = Processor::both();
    let mut instances = pair(addresses(&processors), &[]);
    let [one, two] = &mut instances;
    for (target, status) in [
        ("/payments/", 404),
        ("/payments/4a7901b8", 400),
        ("/payments/4a7901b8-7d26-4d9d-aa19-00000000000g", 400),
        ("/payments/4A7901B8-7D26-4D9D-AA19-000000000001", 404),
        (&format!("/payments/{}/", id(1))[..], 400),
    ] {
        assert_eq!(one.get(target).status, status, "{target}");
    }
    let wrong = one.client().call(request("DELETE", &format!("/payments/{}", id(1)), "", ""));
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD")));
    let mut client = one.client();
    client.send(request("HEAD", &format!("/payments/{}", id(1)), "", ""));
    assert_eq!(client.receive_head().unwrap().status, 404);
    // Of an even id the second instance is the home, so the first one knows nothing of it.
    assert_eq!(two.client().call(payment(&id(2), "1.00")).status, 202);
    two.settle();
    two.kill();
    wait_until("nobody knows", || ask(one, &id(4)).status == 503);
    let answer = ask(one, &id(4));
    assert!(answer.header("retry-after").is_some() && answer.body.contains("other instance"));
}

/// A journal of two volumes, which no start reads: totals and payments come from the disk.
#[test]
fn books_on_the_disk_are_asked_and_exported() {
    const COUNT: i64 = 5_000;
    let scratch = Scratch::new();
    let data = scratch.join("1");
    let settlement = |number: i64| Settlement {
        processor: payments::Processor::CONTEST[usize::from(number % 20 == 0)],
        amount: Cents(100 + number),
        requested_at: Timestamp(1_700_000_000_000 + number),
    };
    let id_of = |number: i64| PaymentId(0x4a79_01b8 << 96 | number as u128);
    history::write(data.as_ref(), (0..COUNT).map(|it| (id_of(it), settlement(it)))).unwrap();
    let mut instance = Instance::alone(&["--data", &data]);
    for _ in 0..2 {
        for number in [0, 1, 511, 512, 513, 2_500, COUNT - 1] {
            let told = story(&instance, &id_of(number).to_string());
            let Settlement { processor, amount, requested_at } = settlement(number);
            assert_eq!(told["processor"], ["default", "fallback"][processor.index()]);
            assert_amount(&instance, &id_of(number).to_string(), &amount.to_string());
            assert_eq!(told["requestedAt"], requested_at.to_string());
        }
        assert_eq!(ask(&instance, &id_of(COUNT).to_string()).status, 404);
        let summary = instance.summary_between(1_700_000_000_100, 1_700_000_000_999);
        assert_eq!(summary.count(), 900);
        assert_eq!(summary.cents(), (100..1_000).map(|it| 100 + it).sum());
        instance.kill();
        instance.start_again();
    }
    let lines = exported(&[&data]);
    let settled: Vec<_> = lines.iter().filter(|line| line[0] == "settled").collect();
    assert_eq!(settled.len(), COUNT as usize);
    assert_eq!(settled[7][1], id_of(7).to_string());
    let window = ["--from", "2023-11-14T22:13:20.100Z", "--to", "2023-11-14T22:13:20.102Z"];
    let json = export(&[&["--format", "json", &data][..], &window].concat());
    let json = String::from_utf8(json.stdout).unwrap();
    let lines: Vec<Value> = json.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let records: Vec<_> = lines.iter().map(|line| line["record"].as_str().unwrap()).collect();
    assert_eq!(records, ["settled", "settled", "settled", "total", "total", "digest"]);
    assert_eq!(lines[0]["processor"], "fallback");
    assert_eq!(lines[0]["fee"], "0.30");
}

/// What is listed is asked for with the token, and comes in pages.
#[test]
fn the_admin_door_lists_what_is_not_settled() {
    let scratch = Scratch::new();
    let token_file = scratch.join("token");
    std::fs::write(&token_file, "correct-horse\n").unwrap();
    let door = free_address();
    let instance = Instance::alone(&[
        "--data",
        &scratch.join("1"),
        "--admin-listen",
        &door.to_string(),
        "--admin-token-file",
        &token_file,
    ]);
    for number in (0..7).rev() {
        assert_eq!(instance.pay(&id(number), "1.00").status, 202);
    }
    let call = |method: &str, target: &str, token: &str| {
        let authorization = format!("Authorization: Bearer {token}\r\n");
        Client::connect(door).call(request(method, target, &authorization, ""))
    };
    let get = |target: &str| {
        let answer = call("GET", target, "correct-horse");
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    let status = || get("/status.json");
    let own = |status: &Value| status["instances"][0].clone();
    wait_until("nothing is in flight", || own(&status())["payments"]["waiting"] == 7);
    let (mut found, mut after) = (Vec::new(), String::new());
    for count in [3, 3, 1] {
        let page = get(&format!("/payments?state=waiting&limit=3{after}"));
        let payments = page["payments"].as_array().unwrap();
        assert_eq!(payments.len(), count);
        assert!(payments.iter().all(|it| it["state"] == "waiting" && it["acceptedAt"].is_string()));
        found.extend(payments.iter().map(|it| it["correlationId"].as_str().unwrap().to_owned()));
        let next = page["after"].as_str();
        assert_eq!(next.is_some(), count == 3);
        after = format!("&after={}", next.unwrap_or_default());
    }
    assert_eq!(found, (0..7).map(id).collect::<Vec<_>>());
    assert_eq!(get("/payments?state=rejected")["payments"].as_array().unwrap().len(), 0);
    assert_eq!(get(&format!("/payments/{}", id(3)))["state"], "waiting");
    let status = status();
    let whereabouts = json!({
        "accepted": 7, "default": 0, "fallback": 0, "onTheirWay": 7, "rejected": 0, "cancelled": 0
    });
    assert_eq!((&status["version"], &status["whereabouts"]), (&2.into(), &whereabouts));
    let own = own(&status);
    assert_eq!((&own["phase"], &own["payments"]["outstanding"]), (&"serving".into(), &7.into()));
    assert_eq!(own["processors"][1]["name"], "fallback");
    assert_eq!(get("/payments-summary")["default"]["totalRequests"], 0);
    assert_eq!(call("GET", "/metrics", "correct-horse").status, 200);
    for (method, target, token, status) in [
        ("GET", "/status.json", "correct-hors", 401),
        ("GET", "/status.json", "", 401),
        ("GET", "/nothing", "wrong-wrong", 401),
        ("GET", "/nothing", "correct-horse", 404),
        ("POST", "/payments", "correct-horse", 405),
        ("GET", "/payments", "correct-horse", 400),
        ("GET", "/payments?state=waiting&limit=5000", "correct-horse", 400),
        ("GET", "/peer/totals", "correct-horse", 404),
        ("GET", "/healthz", "", 200),
    ] {
        assert_eq!(call(method, target, token).status, status, "{method} {target}");
    }
    // Nothing of it is known at the entry.
    assert_eq!(instance.get("/status.json").status, 404);
    assert_eq!(instance.get("/payments?state=waiting").status, 405);
}

#[test]
fn an_admin_door_without_a_token_is_refused() {
    let scratch = Scratch::new();
    let short = scratch.join("short");
    std::fs::write(&short, "1234567\n").unwrap();
    for (args, named) in [
        (vec!["--admin-listen", "127.0.0.1:0"], "--admin-token-file"),
        (
            vec!["--admin-listen", "127.0.0.1:0", "--admin-token-file", "/nowhere"],
            "/nowhere: No such",
        ),
        (vec!["--admin-listen", "127.0.0.1:0", "--admin-token-file", &short], "8 or more"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_galo")).arg("serve").args(&args).output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(named), "{args:?}: {told}");
    }
}

#[test]
fn an_export_of_what_is_no_journal_is_refused() {
    let scratch = Scratch::new();
    for (args, named) in [
        (vec!["/etc"], "no directory of a journal"),
        (vec!["/nowhere"], "cannot read /nowhere"),
        (vec![], "required"),
        (vec!["/etc", "--from", "yesterday"], "it must be a time"),
    ] {
        let output = export(&args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(named) && output.stdout.is_empty(), "{args:?}: {told}");
    }
    drop(scratch);
}
