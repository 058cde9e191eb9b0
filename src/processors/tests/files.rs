//! What is wrong with a file, each with the place it is told at; and what a right one says.

use super::{Made, attempt, one};
use crate::base::money::{Cents, Fee};
use crate::net::http::request::{self, Method, Parsed};
use crate::payments::fee::FeeSchedule;
use crate::payments::terms::Limits;
use crate::processors::{Kind, Processors, Timeouts};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::LazyLock;
use std::time::Duration;

const GOOD: &str = r#"
[[processor]]
name = "card"
url = "https://api.example.com/v1"
fee = { percent = 2.9, fixed = 30 }
limits = { concurrency = 50, per-second = 20, smallest = 0.50, largest = 999.99, day = 5000 }
timeouts = { connect = "500ms", answer = "8s" }
tls = { ca = "ca.pem", certificate = "our.pem", key = "our.key" }
headers = { Authorization = { file = "key", prefix = "Bearer " }, X-Version = "2" }

[processor.pay]
path = "/charges"
headers = { Idempotency-Key = "{id}" }
body = '{ "amount": {cents}, "ref": "{id}", "at": "{requestedAt}" }'

[[processor.pay.answer]]
status = "2xx"
at = "/status"
is = ["succeeded", 7, true]
means = "booked"
id = "/ref"
amount = "/amount"
unit = "cents"
time = "/at"

[[processor.pay.answer]]
status = [402, "404-407"]
means = "rejected"

[processor.look]
path = "/charges?ref={id}"

[[processor.look.answer]]
status = 200
at = "/data"
empty = true
means = "absent"

[[processor.look.answer]]
status = 200
means = "booked"
"#;

/// A certificate and its key, as PEM.
fn certified() -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let pem = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    };
    [pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", &made.signing_key.serialize_der())]
}

fn made() -> Made {
    static OURS: LazyLock<[String; 2]> = LazyLock::new(certified);
    static OTHER: LazyLock<[String; 2]> = LazyLock::new(certified);
    let [certificate, key] = &*OURS;
    let cut = &certificate[..certificate.len() / 2];
    Made::of(&[
        ("other.key", &OTHER[1]),
        ("cut.pem", cut),
        ("key", "sk_s3cret\n"),
        ("ca.pem", certificate),
        ("our.pem", certificate),
        ("our.key", key),
        ("EMPTY", ""),
        ("LONG", &"x".repeat(4_097)),
        ("none.pem", "hello"),
    ])
}

fn faults(text: &str) -> Vec<String> {
    let refused = Processors::read("f", text, &made()).err();
    let faults = refused.map_or(Vec::new(), |it| it.faults);
    let shown = faults.iter().map(|it| format!("{}:{}: {}", it.line, it.column, it.reason));
    shown.collect()
}

#[test]
fn a_right_file_is_read() {
    let card = one(GOOD, &made());
    assert_eq!((&*card.name, card.kind), ("card", Kind::Described));
    assert_eq!(card.endpoint.to_string(), "https://api.example.com/v1");
    assert_eq!(card.fee, FeeSchedule { share: Fee(29_000), fixed: Cents(30) });
    let limits = Limits {
        concurrency: 50,
        per_second: Some(20),
        smallest: Some(Cents(50)),
        largest: Some(Cents(99_999)),
        day: Some(Cents(500_000)),
    };
    assert_eq!(card.limits, limits);
    assert!(limits.takes(Cents(50)) && limits.takes(Cents(99_999)));
    assert!(!limits.takes(Cents(49)) && !limits.takes(Cents(100_000)));
    let (connect, answer) = (Duration::from_millis(500), Duration::from_secs(8));
    assert_eq!(card.timeouts, Timeouts { connect, answer });
    assert!(card.tls.authorities.is_some() && card.tls.identity.is_some());
    assert!(!card.exchanges.tell_whose() && !card.exchanges.check_amounts());
    assert_eq!(card.exchanges.secrets, [("Authorization".into(), "file key".into())]);
    let debug = format!("{card:?}");
    assert!(!debug.contains("s3cret") && !debug.contains("PRIVATE"), "{debug}");

    let mut out = Vec::new();
    card.write_pay(&mut out, &card.endpoint.authority(), &attempt());
    let text = String::from_utf8(out.clone()).unwrap();
    for line in [
        "POST /v1/charges HTTP/1.1\r\n",
        "\r\nHost: api.example.com\r\n",
        "\r\nAuthorization: Bearer sk_s3cret\r\n",
        "\r\nX-Version: 2\r\n",
        "\r\nIdempotency-Key: 4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3\r\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let mut scratch = Vec::new();
    let Parsed::Complete { request, consumed } = request::parse(&out, &mut scratch) else {
        panic!("{text}");
    };
    assert_eq!(
        (request.method, request.path, consumed),
        (Method::Post, &b"/v1/charges"[..], out.len())
    );
    assert!(request.body.starts_with(br#"{"amount":1990,"ref":"4a7901b8"#), "{text}");
    let mut out = Vec::new();
    card.write_look(&mut out, "h", attempt().payment.id);
    let text = String::from_utf8(out).unwrap();
    let path = "GET /v1/charges?ref=4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3 HTTP/1.1\r\nHost: h\r\n";
    assert!(text.starts_with(path) && text.ends_with("\r\nX-Version: 2\r\n\r\n"), "{text}");
}

/// One edit of the good file, and the one fault that it is to have.
fn check(old: &str, new: &str, expected: &str) {
    assert!(GOOD.matches(old).count() >= 1, "{old}");
    let found = faults(&GOOD.replacen(old, new, 1));
    assert!(found.len() == 1 && found[0].starts_with(expected), "{new}: {expected}\n{found:#?}");
    assert!(!found[0].contains("s3cret"), "{found:?}");
}

#[test]
fn what_is_wrong_with_a_processor_is_told_at_its_place() {
    for (old, new, expected) in [
        ("name =", "nam =", "2:1: `name` is missing"),
        ("\"card\"", "\"Card\"", "3:8: a name is 1 to 32"),
        ("\"card\"", "''", "3:8: a name is 1 to 32"),
        ("\"card\"", "7", "3:8: `name` must be text"),
        ("url = ", "kind = 'stripe'\nurl = ", "4:8: `kind` must be one of: contest, "),
        ("https://api", "ftp://api", "4:7: a URL must begin with http"),
        ("/v1", "/v1?key=s3cret", "4:7: the URL's path"),
        ("percent = 2.9", "percent = 100", "5:19: `percent` must be from 0 to below 100"),
        ("percent = 2.9", "percent = 250.5", "5:19: `percent`"),
        ("percent = 2.9", "percent = 2.90001", "5:19: `percent`"),
        ("percent = 2.9", "percent = -1", "5:19: `percent`"),
        ("percent = 2.9", "percent = true", "5:19: `percent` must be a decimal"),
        ("percent = 2.9, fixed = 30", "", "5:7: a fee has `percent`, or"),
        ("fixed = 30", "fixed = 0.3", "5:32: `fixed` must be a whole number"),
        ("fixed = 30", "fixd = 30", "5:24: `fixd` is none of `percent`, `fixed`"),
        ("{ percent = 2.9, fixed = 30 }", "'2.9'", "5:7: this must be a table"),
        ("= 50,", "= 0,", "6:26: `concurrency` must be a whole number from 1 to 10000"),
        ("= 50,", "= 10001,", "6:26: `concurrency`"),
        ("per-second", "per-minute", "6:30: `per-minute` is none of"),
        ("smallest = 0.50", "smallest = 0.501", "6:58: `smallest` must be an amount"),
        ("smallest = 0.50", "smallest = 1000", "6:10: `smallest` is above `largest`"),
        ("day = 5000", "day = 999.98", "6:10: `largest` is above `day`"),
        ("\"500ms\"", "\"soon\"", "7:24: `connect` must be a time"),
        ("\"500ms\"", "\"9s\"", "7:12: connecting may not take longer"),
        ("\"8s\"", "\"1h\"", "7:42: `answer` must be a time"),
    ] {
        if old == "name =" {
            // Two: what is missing, and what nobody knows.
            let found = faults(&GOOD.replacen(old, new, 1));
            assert_eq!(found.len(), 2);
            assert!(
                found[0].starts_with(expected) && found[1].starts_with("3:1: `nam` is none of")
            );
            continue;
        }
        check(old, new, expected);
    }
    let without_fee = GOOD.replacen("fee =", "fees =", 1);
    let found = faults(&without_fee);
    assert!(found[0].starts_with("2:1: `fee` is missing"), "{found:?}");
}

#[test]
fn what_is_wrong_with_files_and_headers_is_told_without_what_is_in_them() {
    for (old, new, expected) in [
        ("\"ca.pem\"", "\"none.pem\"", "8:14: none.pem: there is no certificate in it"),
        ("\"ca.pem\"", "\"cut.pem\"", "8:14: cut.pem: "),
        ("\"ca.pem\"", "\"gone.pem\"", "8:14: gone.pem: entity not found"),
        ("\"our.key\"", "\"other.key\"", "8:55: other.key: it is not the key of the"),
        ("\"our.key\"", "\"our.pem\"", "8:55: our.pem: there is no private key in it"),
        (", key = \"our.key\"", "", "8:7: `certificate` and `key` belong together"),
        ("https://", "http://", "8:7: `tls` is for https"),
        ("file = \"key\"", "file = \"gone\"", "9:29: gone: entity not found"),
        ("file = \"key\"", "env = \"GONE\"", "9:29: env GONE is not set"),
        ("file = \"key\"", "file = \"EMPTY\"", "9:29: file EMPTY: a secret is one line"),
        ("file = \"key\"", "env = \"EMPTY\"", "9:29: env EMPTY: a secret is one line"),
        ("file = \"key\"", "file = \"LONG\"", "9:29: file LONG: a secret has 4096 bytes at most"),
        ("file = \"key\"", "env = \"A B\"", "9:29: a secret comes from one `file` or"),
        ("file = \"key\"", "file = \"key\", env = \"X\"", "9:29: a secret comes from one"),
        ("\"Bearer \"", "\"B\\n\"", "9:54: a prefix is"),
        ("X-Version = \"2\"", "X-Version = 2", "9:79: a header is text, or"),
        ("X-Version = \"2\"", "X-Version = \"2\\r\\nX: s3cret\"", "9:79: a header's value is"),
        ("X-Version = \"2\"", "X-Version = \"\\u0000s3cret\"", "9:79: a header's value is"),
        ("X-Version = \"2\"", "X-Version = \"{id}\"", "9:79: {id} is no place"),
        ("X-Version", "authorization", "9:67: the header authorization stands here twice"),
        ("X-Version", "Idempotency-Key", "11:1: the header Idempotency-Key stands in"),
        ("X-Version", "\"X Y\"", "9:67: a header's name is"),
        ("X-Version", "\"X:\\r\\n\"", "9:67: a header's name is"),
        ("X-Version", "Host", "9:67: the header Host is galo's own"),
        ("X-Version", "content-length", "9:67: the header content-length is galo's own"),
        ("X-Version", "Transfer-Encoding", "9:67: the header Transfer-Encoding is galo's own"),
        ("X-Version", "Connection", "9:67: the header Connection is galo's own"),
        ("X-Version", "Accept-Encoding", "9:67: the header Accept-Encoding is galo's own"),
    ] {
        check(old, new, expected);
    }
}

#[test]
fn what_is_wrong_with_a_question_is_told_at_its_place() {
    for (old, new, expected) in [
        ("path = \"/charges\"", "", "11:1: `path` is missing"),
        ("\"/charges\"", "\"charges\"", "12:8: a path must begin with one /"),
        ("\"/charges\"", "\"/ch\\u0001\"", "12:8: a path has no"),
        ("\"/charges\"", "\"/ch\\r\\nX: y\"", "12:8: a path has no"),
        ("path = \"/charges\"", "method = 'GET'\npath = '/c'", "12:10: `method` must be POST"),
        ("body = '{", "bodi = '{", "11:1: `body` is missing"),
        ("{cents}, ", "{cent}, ", "14:8: {cent} is no place that can be filled here"),
        ("{cents}, ", "{cents} ", "14:8: the body is no JSON"),
        ("\"{id}\", ", "{id}, ", "14:8: {id} must stand in quotes"),
        ("{cents}, ", "1, ", "11:1: the body has neither {amount} nor {cents}"),
        ("body =", "content-type = 'text/xml'\nbody =", "14:16: `content-type` must be"),
        ("body =", "repeated = 'maybe'\nbody =", "14:12: `repeated` must be"),
        ("\"/charges?ref={id}\"", "\"/charges\"", "30:1: {id} is not in the path"),
        ("\"/charges?ref={id}\"", "\"/c?r={amount}\"", "31:8: {amount} is no place"),
        ("[processor.look]", "[processor.lock]", "30:12: `lock` is none of"),
    ] {
        let found = faults(&GOOD.replacen(old, new, 1));
        assert!(found[0].starts_with(expected), "{new}: {expected}\n{found:#?}");
    }
    let long = "x".repeat(9_000);
    check("\"at\": \"", &format!("\"at\": \"{long}"), "14:8: a body has 8192 bytes at most");
    check("\"/charges\"", &format!("'/{long}'"), "12:8: a path has 1024 bytes at most");
    let unnamed = GOOD.replacen("\"{id}\" }", "\"x\" }", 1).replacen("\"{id}\", ", "\"x\", ", 1);
    assert_eq!(
        faults(&unnamed),
        ["11:1: {id} is in neither path, body nor headers: what is paid must be named"]
    );
}

#[test]
fn what_is_wrong_with_an_answer_is_told_at_its_place() {
    for (old, new, expected) in [
        ("\"2xx\"", "\"1xx\"", "17:10: `status` is 200 to 599"),
        ("\"2xx\"", "600", "17:10: `status` is 200 to 599"),
        ("\"2xx\"", "\"204-202\"", "17:10: `status` is 200 to 599"),
        ("\"2xx\"", "[]", "17:10: `status` is 200 to 599"),
        ("status = \"2xx\"\n", "", "16:1: `status` is missing"),
        ("\"/status\"", "\"status\"", "18:6: a JSON pointer begins with /"),
        ("\"/status\"", "\"/a~2\"", "18:6: a ~ in a pointer"),
        ("\"/status\"", "\"/a/-\"", "18:6: - points behind the end"),
        ("at = \"/status\"\n", "", "16:1: `at` is missing"),
        ("[\"succeeded\", 7, true]", "[]", "19:6: `is` has 1 to 32 texts"),
        ("[\"succeeded\", 7, true]", "1.5", "19:6: `is` has 1 to 32 texts"),
        ("is = [\"succeeded\", 7, true]\n", "", "16:1: what is wanted `at` a place"),
        ("empty = true", "empty = true\ntext = true", "33:1: what is wanted `at` a place"),
        ("empty = true", "empty = false", "36:9: `empty` can only be true"),
        ("\"booked\"", "\"done\"", "20:9: an answer to this question means one of: booked, not-"),
        ("\"booked\"", "\"absent\"", "20:9: an answer to this question means"),
        ("\"absent\"", "\"rejected\"", "37:9: an answer to this question means"),
        ("unit = \"cents\"", "", "16:1: `amount` needs its `unit`"),
        ("amount = \"/amount\"", "", "22:1: "),
        ("\"cents\"", "\"euros\"", "23:8: `unit` must be one of"),
        ("id = \"/ref\"", "ref = \"/ref\"", "21:1: `ref` is none of"),
        ("means = \"rejected\"", "means = \"rejected\"\nid = '/x'", "29:1: `id` is none of"),
    ] {
        let found = faults(&GOOD.replacen(old, new, 1));
        let has = found.iter().any(|it| it.starts_with(expected));
        // An `amount` that is gone leaves its unit behind, a line higher.
        assert!(
            has || expected == "22:1: " && found[0].contains("without an `amount`"),
            "{new}: {expected}\n{found:#?}"
        );
    }
    check(
        "[[processor.look.answer]]\nstatus = 200\nmeans = \"booked\"\n",
        "",
        "30:1: no answer means \"booked\"",
    );
}

/// The second answer to a payment, in place of the good file's.
fn with_answer(answer: &str) -> Vec<String> {
    let old = "status = [402, \"404-407\"]\nmeans = \"rejected\"\n";
    assert!(GOOD.contains(old));
    faults(&GOOD.replacen(old, &format!("{answer}\n"), 1))
}

#[test]
fn no_answer_is_made_to_say_more_than_it_can() {
    let pointed = "at = '/code'\nis = 'no'";
    for (status, condition, meaning, is_right) in [
        ("402", "", "rejected", true),
        ("'4xx'", "", "rejected", false),
        ("408", "", "rejected", false),
        ("409", "", "rejected", false),
        ("402", "", "not-booked", false),
        ("402", pointed, "not-booked", true),
        ("423", "", "not-booked", false),
        ("425", "", "rejected", false),
        ("429", "", "rejected", false),
        ("499", "", "rejected", false),
        ("500", "", "rejected", false),
        ("503", "", "not-booked", false),
        ("'3xx'", "", "not-booked", false),
        ("'5xx'", "empty = true", "rejected", false),
        ("'5xx'", "empty = true", "not-booked", true),
        ("'4xx'", pointed, "rejected", true),
        ("'5xx'", pointed, "not-booked", true),
        ("'2xx'", pointed, "rejected", true),
        ("'2xx'", "", "rejected", false),
        ("'2xx'", "", "not-booked", false),
        ("204", "", "not-booked", false),
        ("'2xx'", "", "booked", true),
        ("302", "", "booked", false),
        ("409", "", "booked", false),
        ("409", pointed, "booked", true),
        ("429", "", "pause", true),
        ("503", "", "pause", false),
        ("503", pointed, "pause", true),
        ("'200-599'", "", "unknown", true),
    ] {
        let answer = format!("status = {status}\n{condition}\nmeans = '{meaning}'");
        let found = with_answer(&answer);
        assert_eq!(found.is_empty(), is_right, "{answer}\n{found:?}");
        let shown = |it: &String| it.starts_with("26:1: ") && it.contains("by itself");
        assert!(found.iter().all(shown), "{answer}\n{found:?}");
    }
    // What stands before it takes the doubtful ones away.
    let before = "status = ['408-409', 423, 425, 429, 499]\nmeans = 'unknown'\n\n\
        [[processor.pay.answer]]\nstatus = '4xx'\nmeans = 'rejected'";
    assert_eq!(with_answer(before), Vec::<String>::new());
    let but_one = before.replace(", 425", "");
    assert!(with_answer(&but_one)[0].contains("425 does not mean \"rejected\" by itself"));
    let shadowed = "status = '4xx'\nmeans = 'unknown'\n\n\
        [[processor.pay.answer]]\nstatus = 402\nmeans = 'rejected'";
    assert!(with_answer(shadowed)[0].contains("never reached"));
    let many =
        "status = 402\nat='/a'\nis='b'\nmeans = 'rejected'\n[[processor.pay.answer]]\n".repeat(40);
    assert!(
        with_answer(&format!("{many}status = 402\nmeans = 'rejected'"))[0].contains("more than 32")
    );
    for (status, is_right) in [
        ("404", true),
        ("410", true),
        ("204", true),
        ("400", false),
        ("200", false),
        ("500", false),
    ] {
        let old = "status = 200\nat = \"/data\"\nempty = true\n";
        let found = faults(&GOOD.replacen(old, &format!("status = {status}\n"), 1));
        assert_eq!(found.is_empty(), is_right, "{status} {found:?}");
    }
}

#[test]
fn what_is_wrong_with_a_file_as_a_whole() {
    let named = |name: &str, percent: &str| {
        format!(
            "[[processor]]\nname = '{name}'\nkind = 'contest'\nurl = 'http://a'\nfee = {{ percent = {percent} }}\n"
        )
    };
    assert_eq!(faults(""), ["1:1: there is no [[processor]]"]);
    assert_eq!(faults("[processor]\nname='a'"), ["1:1: write [[processor]], in two brackets"]);
    let found = faults(&format!("version = 2\n{}", named("a", "1")));
    assert_eq!(found, ["1:1: `version` is none of `processor`"]);
    assert_eq!(
        faults(&format!("{}{}", named("a", "1"), named("a", "2"))),
        ["7:8: there is a processor a before"]
    );
    assert_eq!(
        faults(&format!("{}{}", named("a", "1"), named("b", "1.0"))),
        ["10:7: a processor before has the same fee: which of them is to be preferred?"]
    );
    let many = |count: usize| {
        (1..=count).map(|it| named(&format!("p{it}"), &it.to_string())).collect::<String>()
    };
    assert_eq!(faults(&many(8)), Vec::<String>::new());
    assert_eq!(faults(&many(9)), ["41:1: there are more than 8 processors"]);
    let built_in = format!("{}[processor.pay]\npath = '/x'\n", named("a", "1"));
    assert!(
        faults(&built_in)[0].starts_with("6:1: kind = \"contest\" brings its own `pay`"),
        "{:?}",
        faults(&built_in)
    );
    let twice =
        named("a", "1").replace("contest", "idempotent") + "headers = { idempotency-key = 'x' }\n";
    assert_eq!(
        faults(&twice),
        ["1:1: the header Idempotency-Key stands in `headers` as well"],
        "at the processor"
    );
    for broken in
        ["[[processor]", "a = ", "[[processor]]\nname = 'a'\nname = 'b'", "a = 'x\ny'", "\u{0}"]
    {
        let found = faults(broken);
        assert!(!found.is_empty(), "{broken}");
    }
    // All of it, in the order of the file.
    let found =
        faults(&GOOD.replace("2.9", "100").replace("\"8s\"", "8").replace("\"booked\"", "1"));
    let lines: Vec<_> = found.iter().map(|it| it.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["5", "7", "20", "41"], "{found:?}");
}

#[test]
fn a_file_is_read_from_the_disk_and_what_it_names_beside_it() {
    let folder = std::env::temp_dir().join(format!("galo-processors-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("p.toml");
    let text = "[[processor]]\nname='a'\nkind='contest'\nurl='http://a'\nfee={percent=5}\n\
        headers = { X-Key = { file = \"key\" } }\n";
    let load = |text: &[u8]| {
        std::fs::write(&path, text).unwrap();
        Processors::load(&path)
    };
    let refused = load(text.as_bytes()).unwrap_err();
    assert!(refused.contains("p.toml:6:21: key: No such file"), "{refused}");
    std::fs::write(folder.join("key"), "s3cret\n").unwrap();
    assert_eq!(load(text.as_bytes()).unwrap().iter().count(), 1);
    assert!(
        load(b"a\n\xff").unwrap_err().ends_with("p.toml:2:1: there is something that is no UTF-8")
    );
    assert!(load(&[b'\n'; 262_145]).unwrap_err().contains("262144 bytes at most"));
    assert!(Processors::load(&folder).unwrap_err().contains("it is no file"));
    assert!(Processors::load(&folder.join("gone")).unwrap_err().contains("No such file"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_cheapest_for_an_amount_that_it_takes_comes_first() {
    let text = [("a", "percent = 5", ""), ("b", "fixed = 50", ""), ("c", "percent = 1", "largest = 10")]
        .map(|(name, fee, limits)| {
            format!(
                "[[processor]]\nname='{name}'\nkind='contest'\nurl='http://a'\nfee={{{fee}}}\nlimits={{{limits}}}\n"
            )
        })
        .concat();
    let processors = Processors::read("p", &text, &made()).unwrap();
    let order =
        |cents| processors.cheapest_first(Cents(cents)).map(|it| &*it.name).collect::<String>();
    assert_eq!(order(500), "cab");
    assert_eq!(order(1_000), "cba"); // a and b take the same: the smaller share is first
    assert_eq!(order(1_001), "ba");
}
