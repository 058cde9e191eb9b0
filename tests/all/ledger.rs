//! The ledger's contract, row by row, on the real binary: two instances, one account's home is the
//! one, another's the other, and everything is asked at both.
//!
//! What the contest of 2024/Q1 states and what it leaves open and was settled here. Random
//! concurrency and kills are in `ledger_model.rs`, owners that are away in `ledger_away.rs`.

use crate::support::ledger::{Balance, Bank, body, get, post};
use crate::support::request;
use crate::support::system::Random;
use std::thread;

/// The contest's accounts: id and limit in cents.
const CONTEST: [(u64, i64); 5] =
    [(1, 100_000), (2, 80_000), (3, 1_000_000), (4, 10_000_000), (5, 500_000)];
/// An account of each instance.
const ACCOUNTS: [u64; 2] = [1, 2];
/// Asked at either instance, about an account of either.
const EVERYWHERE: [(usize, u64); 4] = [(0, 1), (0, 2), (1, 1), (1, 2)];

const GOOD: &str = r#"{"valor":1,"tipo":"c","descricao":"a"}"#;

#[test]
fn without_a_file_there_are_the_contests_five_accounts_with_nothing_in_them() {
    let mut bank = Bank::open(&[]);
    for (id, limit) in CONTEST {
        let statement = bank.look_at_both(id);
        assert_eq!((statement.total, statement.limit), (0, limit), "account {id}");
        assert_eq!(statement.newest, [], "account {id}");
    }
    for at in [0, 1] {
        assert_eq!(bank.call(at, get(6)).status, 404);
        assert_eq!(bank.post(at, 6, GOOD).status, 404);
    }
}

#[test]
fn a_transaction_is_answered_with_the_limit_and_the_balance_behind_it() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        let limit = bank.look(at, id).limit;
        let before = bank.look(at, id).total;
        let credit = bank.post(at, id, &body(1000, "toma"));
        assert_eq!(Balance::read(&credit), Balance { limite: limit, saldo: before + 1000 });
        let debit = bank.post(at, id, &body(-300, "devolve"));
        assert_eq!(Balance::read(&debit), Balance { limite: limit, saldo: before + 700 });
        let statement = bank.look_at_both(id);
        assert_eq!(statement.total, before + 700);
        let expected = [(-300, "devolve".to_owned()), (1000, "toma".to_owned())];
        assert_eq!(statement.changes()[..2], expected);
    }
}

/// What is not an object with one of each field.
const BAD_DOCUMENTS: &[&str] = &[
    "",
    " ",
    "{",
    "null",
    "true",
    "1",
    "[]",
    "{}",
    "\"\"",
    "not JSON",
    "\u{feff}{}",
    r#"{"tipo":"c","descricao":"a"}"#,
    r#"{"valor":1,"descricao":"a"}"#,
    r#"{"valor":1,"tipo":"c"}"#,
    r#"[{"valor":1,"tipo":"c","descricao":"a"}]"#,
    r#"{"valor":1,"tipo":"c","descricao":"a""#,
    r#"{"valor":1,"tipo":"c","descricao":"a"}}"#,
    r#"{"valor":1,"tipo":"c","descricao":"a",}"#,
    r#"{"valor":1,"valor":1,"tipo":"c","descricao":"a"}"#,
    r#"{"Valor":1,"tipo":"c","descricao":"a"}"#,
];

/// What is not an integer above zero that fits into 64 bits.
const BAD_VALUES: &[&str] = &[
    "0",
    "-1",
    "-0",
    "1.0",
    "1.2",
    "1e2",
    "1E0",
    "0.5",
    "01",
    "+1",
    "0x1",
    "1_000",
    "\"1\"",
    "\"\"",
    "true",
    "false",
    "null",
    "[1]",
    "{}",
    "NaN",
    "9223372036854775808",
    "18446744073709551617",
    "-9223372036854775808",
    "100000000000000000000000000000000",
];

const BAD_KINDS: &[&str] =
    &["\"x\"", "\"C\"", "\"D\"", "\"cd\"", "\"\"", "\" c\"", "1", "null", "[\"c\"]"];

/// What is not a text of 1 to 10 code points.
const BAD_TEXTS: &[&str] = &[
    "\"\"",
    "\"12345678901\"",
    "\"123456789 e mais um pouco\"",
    "null",
    "1",
    "true",
    "[]",
    "[\"a\"]",
    "{\"a\":1}",
    "\"\\ud800\"",
    "\"a\\udc00\"",
    "\"\\ud800\\u0041\"",
    "\"\\x\"",
    "\"\\u00e\"",
    "\"😀😀😀😀😀😀😀😀😀😀😀\"",
    "\"ééééééééééé\"",
    "\"a\nb\"",
    "\"\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\\u0061\"",
];

/// Whatever is wrong with a body, the answer is 422.
fn bad_bodies() -> Vec<String> {
    let mut bodies: Vec<String> = BAD_DOCUMENTS.iter().map(|it| (*it).to_owned()).collect();
    for kind in ["c", "d"] {
        for value in BAD_VALUES {
            bodies.push(format!(r#"{{"valor":{value},"tipo":"{kind}","descricao":"a"}}"#));
        }
        for text in BAD_TEXTS {
            bodies.push(format!(r#"{{"valor":1,"tipo":"{kind}","descricao":{text}}}"#));
        }
    }
    for kind in BAD_KINDS {
        bodies.push(format!(r#"{{"valor":1,"tipo":{kind},"descricao":"a"}}"#));
    }
    bodies
}

#[test]
fn a_bad_body_is_422_and_changes_nothing() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        bank.change(at, id, 100, "before");
        let before = bank.look_at_both(id);
        for body in bad_bodies() {
            let answer = bank.post(at, id, &body);
            assert_eq!(answer.status, 422, "{body} at {at}: {answer:?}");
            assert_eq!(bank.look(1 - at, id), before, "{body} at {at}");
        }
        let raw = |text: &[u8]| {
            let body = [br#"{"valor":1,"tipo":"c","descricao":""#, text, br#""}"#].concat();
            let head = format!("POST /clientes/{id}/transacoes HTTP/1.1\r\nhost: test\r\n");
            let length = format!("content-length: {}\r\n\r\n", body.len());
            [head.as_bytes(), length.as_bytes(), &body].concat()
        };
        // Not UTF-8, an encoded surrogate, and NUL as it is.
        for text in [&b"\xff"[..], b"\xed\xa0\x80", b"\xc0\x80", b"\0"] {
            assert_eq!(bank.call(at, raw(text)).status, 422, "{text:?}");
        }
        assert_eq!(bank.look_at_both(id), before);
    }
}

#[test]
fn what_is_not_said_to_be_wrong_is_taken() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        for body in [
            GOOD,
            r#"  { "descricao" : "a" , "tipo" : "c" , "valor" : 1 }  "#,
            "{\r\n\t\"valor\":1,\"tipo\":\"c\",\"descricao\":\"a\"\r\n}\r\n",
            r#"{"valor":1,"tipo":"c","descricao":"a","more":[1,{"valor":"x"}],"":null}"#,
            r#"{"v\u0061lor":1,"tipo":"\u0063","descricao":"a"}"#,
            r#"{"valor":1,"tipo":"c","descricao":" "}"#,
            r#"{"valor":1,"tipo":"c","descricao":"1234567890"}"#,
        ] {
            let before = bank.look(at, id).total;
            assert_eq!(Balance::read(&bank.post(at, id, body)).saldo, before + 1, "{body}");
        }
        // Nobody has to say that it is JSON.
        for headers in ["", "content-type: text/plain\r\n", "content-type: nonsense\r\n"] {
            let request = request("POST", &format!("/clientes/{id}/transacoes"), headers, GOOD);
            assert_eq!(bank.call(at, request).status, 200, "{headers}");
        }
        let chunked = format!(
            "POST /clientes/{id}/transacoes HTTP/1.1\r\nhost: test\r\n\
             transfer-encoding: chunked\r\n\r\n{:x}\r\n{GOOD}\r\n0\r\n\r\n",
            GOOD.len()
        );
        assert_eq!(bank.call(at, chunked).status, 200);
    }
}

/// No account has these ids: other numbers, other spellings, and what is one of them in fewer bits.
const MISSING_IDS: &[&str] = &[
    "6",
    "7",
    "0",
    "00",
    "01",
    "001",
    "-1",
    "+1",
    "1.0",
    "1e0",
    "1a",
    "abc",
    "0x1",
    "%20",
    "%2B1",
    "",
    "4294967297",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551617",
    "340282366920938463463374607431768211457",
    "99999999999999999999999999999999999999999999",
];

const MISSING_PATHS: &[&str] = &[
    "/",
    "/clientes",
    "/clientes/",
    "/clientes/1",
    "/clientes/1/",
    "/clientes/1/extrato/",
    "/clientes/1/transacoes/",
    "/clientes/1/transacoes/1",
    "/clientes/1/saldo",
    "/clientes//1/extrato",
    "/Clientes/1/extrato",
    "/clientes/1/Extrato",
    "/cliente/1/extrato",
];

/// Also with a body that is bad, and with a method that is wrong.
#[test]
fn what_is_not_there_is_404_before_anything_else() {
    let mut bank = Bank::open(&[]);
    for at in [0, 1] {
        for id in MISSING_IDS {
            for (method, resource, body) in [
                ("GET", "extrato", ""),
                ("POST", "transacoes", GOOD),
                ("POST", "transacoes", r#"{"valor":-1}"#),
                ("POST", "transacoes", "not JSON"),
                ("POST", "transacoes", ""),
                ("GET", "transacoes", ""),
                ("PUT", "transacoes", GOOD),
                ("DELETE", "extrato", ""),
                ("POST", "extrato", GOOD),
            ] {
                let target = format!("/clientes/{id}/{resource}");
                let status = bank.call(at, request(method, &target, "", body)).status;
                assert_eq!(status, 404, "{method} {target} {body} at {at}");
            }
        }
        for path in MISSING_PATHS {
            for (method, body) in [("GET", ""), ("POST", GOOD), ("PUT", GOOD)] {
                let answer = bank.call(at, request(method, path, "", body));
                assert_eq!(answer.status, 404, "{method} {path} at {at}");
            }
        }
    }
    for (id, _) in CONTEST {
        assert_eq!(bank.look_at_both(id).newest, []);
    }
}

#[test]
fn a_wrong_method_is_405_with_those_that_are_right() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        for (resource, allow, methods) in [
            ("transacoes", "POST", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]),
            ("extrato", "GET, HEAD", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        ] {
            for method in methods {
                let target = format!("/clientes/{id}/{resource}");
                let answer = bank.call(at, request(method, &target, "", GOOD));
                assert_eq!(answer.status, 405, "{method} {target} at {at}: {answer:?}");
                assert_eq!(answer.header("allow"), Some(allow), "{method} {target} at {at}");
            }
        }
    }
    for id in ACCOUNTS {
        assert_eq!(bank.look_at_both(id).newest, []);
    }
}

#[test]
fn the_head_of_a_statement_is_that_of_a_statement() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        let length = bank.call(at, get(id)).header("content-length").map(str::to_owned);
        let client = &mut bank.clients[at];
        client.send(request("HEAD", &format!("/clientes/{id}/extrato"), "", ""));
        let head = client.receive_head().expect("an answer");
        assert_eq!((head.status, head.header("content-length")), (200, length.as_deref()));
        assert_eq!(bank.look(at, id).newest, [], "the connection is still in step");
    }
}

/// Written by another encoder than it is read by: as JSON text, and what it means.
const DESCRIPTIONS: [(&str, &str); 16] = [
    ("a", "a"),
    ("1234567890", "1234567890"),
    ("áéíóúçãõàâ", "áéíóúçãõàâ"),
    ("😀😀😀😀😀😀😀😀😀😀", "😀😀😀😀😀😀😀😀😀😀"),
    ("\\ud83d\\ude00", "😀"),
    ("\\u00e9\\u0301", "\u{e9}\u{301}"),
    // Two ways to write the same letter stay two.
    ("e\u{301}", "e\u{301}"),
    ("👨‍👩‍👧‍👦", "👨‍👩‍👧‍👦"),
    ("\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\u{8}\u{c}\n\r\t"),
    ("\\u0000", "\0"),
    ("\\u0000\\u0001\\u001f\u{7f}", "\0\u{1}\u{1f}\u{7f}"),
    ("\\u2028\\u2029\\ufeff\\uffff", "\u{2028}\u{2029}\u{feff}\u{ffff}"),
    ("</script>", "</script>"),
    ("   ", "   "),
    ("{\\\"a\\\":1}", "{\"a\":1}"),
    ("\\udbff\\udfff", "\u{10ffff}"),
];

#[test]
fn a_description_comes_back_to_the_code_point() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        for (written, meant) in DESCRIPTIONS {
            let body = format!(r#"{{"valor":1,"tipo":"c","descricao":"{written}"}}"#);
            assert_eq!(bank.post(at, id, &body).status, 200, "{body}");
            let newest = bank.look_at_both(id).newest;
            assert_eq!(newest[0].descricao, meant, "{body}");
        }
    }
}

#[test]
fn what_was_answered_is_seen_at_once_at_either_instance() {
    const ROUNDS: u64 = 200;
    let mut bank = Bank::open(&[]);
    let mut random = Random(1);
    let mut balances = [0, 0];
    for round in 0..ROUNDS {
        let (at, which) = (random.below(2) as usize, random.below(2) as usize);
        let (id, text) = (ACCOUNTS[which], round.to_string());
        let change = random.below(200) as i64 - 100;
        let change = if change == 0 { 1 } else { change };
        balances[which] += change;
        assert_eq!(bank.change(at, id, change, &text), balances[which]);
        for reader in [1 - at, at] {
            let statement = bank.look(reader, id);
            assert_eq!(statement.total, balances[which], "round {round}");
            assert_eq!(statement.newest[0].change(), (change, text.clone()), "round {round}");
        }
    }
}

#[test]
fn a_statement_lists_the_ten_newest_the_newest_first() {
    let mut bank = Bank::open(&[]);
    for id in ACCOUNTS {
        let mut expected = Vec::new();
        for number in 1..=25 {
            let change = if number % 3 == 0 { -number } else { number };
            let text = format!("number {number}");
            bank.change(number as usize % 2, id, change, &text);
            expected.insert(0, (change, text));
            expected.truncate(10);
            assert_eq!(bank.look_at_both(id).changes(), expected);
        }
    }
}

#[test]
fn to_exactly_the_limit_and_not_a_cent_further() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        let limit = bank.look(at, id).limit;
        let balance = bank.look(at, id).total;
        assert_eq!(bank.change(at, id, -(limit + balance), "all"), -limit);
        let before = bank.look_at_both(id);
        for value in [1, 2, limit, i64::MAX] {
            let answer = bank.post(at, id, &body(-value, "more"));
            assert_eq!(answer.status, 422, "{value}: {answer:?}");
            assert_eq!(bank.look_at_both(id), before, "{value}");
        }
        assert_eq!(bank.change(1 - at, id, 1, "one"), 1 - limit);
        assert_eq!(bank.post(at, id, &body(-2, "two")).status, 422);
        assert_eq!(bank.change(at, id, -1, "one"), -limit);
        assert_eq!(bank.change(at, id, limit, "back"), 0);
    }
}

#[test]
fn a_credit_that_64_bits_cannot_hold_is_422_and_changes_nothing() {
    let mut bank = Bank::open(&[]);
    for id in ACCOUNTS {
        for at in [0, 1] {
            let balance = bank.look(at, id).total;
            assert_eq!(bank.change(at, id, i64::MAX - balance, "all"), i64::MAX);
            let before = bank.look_at_both(id);
            for value in [1, i64::MAX] {
                assert_eq!(bank.post(at, id, &body(value, "more")).status, 422);
                assert_eq!(bank.look_at_both(id), before);
            }
            assert_eq!(bank.change(at, id, -i64::MAX, "back"), 0);
            assert_eq!(bank.change(at, id, -1, "below"), -1);
            assert_eq!(bank.change(at, id, 1, "zero"), 0);
        }
    }
}

/// 25 debits of 1 at once, then 25 credits of 1, at both instances: what the contest began with, and
/// what broke every seventh entry.
#[test]
fn no_update_is_lost() {
    let mut bank = Bank::open(&[]);
    for id in ACCOUNTS {
        for (change, expected) in [(-1, -25), (1, 0)] {
            let answers = at_once(&bank, 25, id, &body(change, "validacao"));
            let mut balances: Vec<i64> =
                answers.iter().map(|answer| Balance::read(answer).saldo).collect();
            balances.sort_unstable_by_key(|balance| balance * change);
            let expected_balances: Vec<i64> =
                (1..=25).map(|count| expected - change * (25 - count)).collect();
            assert_eq!(balances, expected_balances);
            assert_eq!(bank.look_at_both(id).total, expected);
        }
    }
}

/// The same request so many times, each on its own connection, half of them at each instance.
fn at_once(bank: &Bank, count: usize, id: u64, body: &str) -> Vec<crate::support::Answer> {
    let request = post(id, body);
    let ready = std::sync::Barrier::new(count);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..count)
            .map(|number| {
                let (mut client, request) = (bank.instances[number % 2].client(), &request);
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    client.call(request)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("it answers")).collect()
    })
}

// --- what the project's first ledger got wrong ----------------------------------------------------

/// Its balance was changed before the entry was written, and an error in between was told as 422.
#[test]
fn django_422_yet_money_moved() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        let before = bank.look_at_both(id);
        for body in [
            // More than its column could hold, texts its database refused, and what was not a text.
            r#"{"valor":92233720368547758070,"tipo":"c","descricao":"a"}"#,
            r#"{"valor":1,"tipo":"c","descricao":"\ud800"}"#,
            r#"{"valor":1,"tipo":"c","descricao":["abcdefghij"]}"#,
            r#"{"valor":1,"tipo":"c","descricao":{"abcdefgh":1}}"#,
        ] {
            assert_eq!(bank.post(at, id, body).status, 422, "{body}");
            assert_eq!(bank.look_at_both(id), before, "{body}");
        }
        // What it could not hold and this one can is carried out whole: money and entry.
        let large = r#"{"valor":3000000000,"tipo":"c","descricao":"a\u0000b"}"#;
        assert_eq!(Balance::read(&bank.post(at, id, large)).saldo, before.total + 3_000_000_000);
        let after = bank.look_at_both(id);
        assert_eq!(after.changes()[0], (3_000_000_000, "a\0b".to_owned()));
        assert_eq!(after.total, before.total + 3_000_000_000);
        bank.change(at, id, -3_000_000_000, "back");
    }
}

/// Two debits that each fit could both pass between the other's check and its change.
#[test]
fn django_limit_crossed_by_simultaneous_debits() {
    let mut bank = Bank::open(&[]);
    let mut random = Random(7);
    for round in 0..20 {
        let id = ACCOUNTS[round % 2];
        let statement = bank.look_at_both(id);
        let room = statement.total + statement.limit;
        let fit = 1 + random.below(15) as i64;
        let value = room / (fit + 1) + 1;
        let expected = room / value;
        let answers = at_once(&bank, 20, id, &body(-value, "rush"));
        let accepted = answers.iter().filter(|answer| answer.status == 200).count() as i64;
        let refused = answers.iter().filter(|answer| answer.status == 422).count() as i64;
        assert_eq!((accepted, refused), (expected, 20 - expected), "{room} / {value}");
        let after = bank.look_at_both(id);
        assert_eq!(after.total, statement.total - expected * value);
        bank.change(round % 2, id, expected * value, "back");
    }
}

/// The view had no answer for it but an error page.
#[test]
fn django_500_on_a_wrong_method() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        for (method, resource) in [("GET", "transacoes"), ("POST", "extrato"), ("PUT", "extrato")] {
            let target = format!("/clientes/{id}/{resource}");
            assert_eq!(bank.call(at, request(method, &target, "", "")).status, 405, "{target}");
        }
    }
}

/// A transaction of an account that did not exist was caught with all other errors.
#[test]
fn django_404_swallowed_into_422() {
    let mut bank = Bank::open(&[]);
    for at in [0, 1] {
        for body in [GOOD, r#"{"valor":0}"#, ""] {
            assert_eq!(bank.post(at, 6, body).status, 404, "{body}");
        }
    }
}

/// They were carried out: a negative credit took money, a negative debit gave it.
#[test]
fn django_negative_and_zero_amounts() {
    let mut bank = Bank::open(&[]);
    for (at, id) in EVERYWHERE {
        for value in ["0", "-1", "-100000000", "true"] {
            for kind in ["c", "d"] {
                let body = format!(r#"{{"valor":{value},"tipo":"{kind}","descricao":"a"}}"#);
                assert_eq!(bank.post(at, id, &body).status, 422, "{body}");
            }
        }
        let statement = bank.look_at_both(id);
        assert_eq!((statement.total, statement.newest.len()), (0, 0));
    }
}
