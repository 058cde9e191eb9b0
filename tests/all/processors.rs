//! Processors of a file, on the real binary: any number of them, with fees by amount, of the contest's API
//! or of another one; what is refused, what stays secret, and what SIGHUP takes over.

use crate::support::journals::Scratch;
use crate::support::system::{
    Booking, Instance, Processor, SIGTERM, TOKEN, decimal, free_address, id, pair_in_front_of,
};
use crate::support::{Client, request, wait_until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

const SIGHUP: i32 = 1;
/// What is not to be seen anywhere.
const KEYS: [&str; 2] = ["sk-0ld-s3cret", "sk-n3w-s3cret"];
/// A payment does not wait long for a processor that fails.
const QUICK: [&str; 2] = ["--patience", "20ms"];

/// Names and fees of three processors of the contest's API.
const THREE: [(&str, &str); 3] = [
    ("share", "{ percent = 5 }"),
    ("mixed", "{ percent = 2, fixed = 30 }"),
    ("dear", "{ percent = 9 }"),
];

/// A file with processors of the contest's API, each with this at its end.
fn contest_file(processors: &[(&str, &str, SocketAddr)], more: &str) -> String {
    let one = |(name, fee, address): &(&str, &str, SocketAddr)| {
        format!(
            "[[processor]]\nname = \"{name}\"\nkind = \"contest\"\nurl = \"http://{address}\"\n\
             fee = {fee}\n{more}\n"
        )
    };
    processors.iter().map(one).collect()
}

fn written(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn in_front_of(file: &str, args: &[&str]) -> Instance {
    Instance::with_urls(&[&["--processors", file][..], &QUICK, args].concat())
}

/// How `galo serve` ends with these.
fn refused(args: &[&str]) -> String {
    let first = ["serve", "--listen", "127.0.0.1:0"];
    let output = Command::new(env!("CARGO_BIN_EXE_galo")).args(first).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]), "{said}");
    said
}

/// Three of the contest's API.
struct Three {
    processors: [Processor; 3],
}

impl Three {
    fn start() -> Three {
        Three { processors: std::array::from_fn(|_| Processor::start()) }
    }

    fn file(&self, more: &str) -> String {
        let mut all = Vec::new();
        for ((name, fee), processor) in THREE.iter().zip(&self.processors) {
            all.push((*name, *fee, processor.address));
        }
        contest_file(&all, more)
    }

    /// As the summary says it: in the order of the file.
    fn summary(&mut self) -> String {
        let mut members = Vec::new();
        for ((name, _), processor) in THREE.iter().zip(&mut self.processors) {
            let books = processor.books();
            let amount = decimal(books.iter().map(|it| it.cents).sum());
            members.push(format!(
                "\"{name}\":{{\"totalRequests\":{},\"totalAmount\":{amount}}}",
                books.len()
            ));
        }
        format!("{{{}}}", members.join(","))
    }

    fn counts(&mut self) -> [usize; 3] {
        self.processors.each_mut().map(|it| it.books().len())
    }
}

#[test]
fn each_payment_goes_to_the_cheapest_for_its_amount_and_fails_over_to_the_next() {
    let (scratch, mut three) = (Scratch::new(), Three::start());
    let file = written(&scratch, "p.toml", &three.file("limits = { largest = 500.00 }"));
    let instance = in_front_of(&file, &[]);
    for number in 0..5 {
        assert_eq!(instance.pay(&id(number), "1.00").status, 202);
        assert_eq!(instance.pay(&id(100 + number), "100.00").status, 202);
    }
    instance.settle();
    assert_eq!(three.counts(), [5, 5, 0]);
    assert_eq!(instance.get("/payments-summary").body, three.summary());
    three.processors[1].set_failing(true);
    for number in 200..205 {
        assert_eq!(instance.pay(&id(number), "100.00").status, 202);
    }
    instance.settle();
    assert_eq!(three.counts(), [10, 5, 0], "the next cheapest");
    three.processors[0].set_failing(true);
    for number in 300..305 {
        assert_eq!(instance.pay(&id(number), "100.00").status, 202);
    }
    instance.settle();
    assert_eq!(three.counts(), [10, 5, 5], "the last one");
    assert_eq!(instance.get("/payments-summary").body, three.summary());
    // No processor takes it, and nothing is kept of it.
    let dear = instance.pay(&id(400), "500.01");
    assert_eq!(dear.status, 422, "{dear:?}");
    assert_eq!(dear.body, r#"{"error":"No processor takes a payment of this amount."}"#);
    assert_eq!(instance.get(&format!("/payments/{}", id(400))).status, 404);
    assert_eq!(instance.pay(&id(400), "500.00").status, 202, "under the same id");
    instance.settle();
    instance.assert_balanced();
}

#[test]
fn everything_is_told_by_name() {
    let (scratch, mut three) = (Scratch::new(), Three::start());
    let file = written(&scratch, "p.toml", &three.file(""));
    let instance = in_front_of(&file, &[]);
    for number in 0..3 {
        assert_eq!(instance.pay(&id(number), "100.00").status, 202);
    }
    instance.settle();
    let story = instance.get(&format!("/payments/{}", id(0))).body;
    assert!(story.contains(r#""processor":"mixed""#) && story.contains(r#""fee":2.30"#), "{story}");
    for (name, count) in [("share", 0), ("mixed", 3), ("dear", 0)] {
        let series = |metric: &str| format!("{metric}{{processor=\"{name}\"}}");
        assert_eq!(instance.metric(&series("galo_settled_total")), count, "{name}");
        assert_eq!(instance.metric(&series("galo_fees_cents_total")), 230 * count, "{name}");
        assert_eq!(instance.metric(&series("galo_processor_up")), 1, "{name}");
    }
    let status = instance.at_peer_door("GET", "/peer/status", TOKEN, "");
    let status: Value = serde_json::from_str(&status.body).unwrap();
    let settled = json!({"share": 0, "mixed": 3, "dear": 0});
    assert_eq!(status["whereabouts"]["settled"], settled);
    let names: Vec<_> =
        status["processors"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["share", "mixed", "dear"]);
    assert_eq!(status["processors"][1]["fee"], "6.90");
    let totals = instance.at_peer_door("GET", "/peer/totals", TOKEN, "").body;
    assert_eq!(totals, r#"{"share":[0,"0"],"mixed":[3,"30000"],"dear":[0,"0"]}"#);
    three.processors[1].set_failing(true);
    assert_eq!(instance.pay(&id(10), "100.00").status, 202);
    wait_until("it is told", || {
        instance.galo.stderr().contains("processor mixed is down: failing")
    });
}

#[test]
fn a_rejection_is_told_by_name() {
    let (scratch, three) = (Scratch::new(), Three::start());
    let at = "2025-07-10T12:34:56.123Z";
    let body = format!(r#"{{"correlationId":"{}","amount":2.00,"requestedAt":"{at}"}}"#, id(1));
    let booked = three.processors[1].client().call(request("POST", "/payments", "", &body));
    assert_eq!(booked.status, 200, "{booked:?}");
    let file = written(&scratch, "p.toml", &three.file(""));
    let instance = in_front_of(&file, &[]);
    assert_eq!(instance.pay(&id(1), "100.00").status, 202);
    let story = || instance.get(&format!("/payments/{}", id(1))).body;
    wait_until("it is rejected", || story().contains("rejected"));
    let told: Value = serde_json::from_str(&story()).unwrap();
    assert_eq!(told["refusals"], json!({"share": 0, "mixed": 200, "dear": 0}), "{told}");
    assert_eq!(told["why"], "mixed holds it under another amount");
    let said =
        || instance.galo.stderr().contains("is rejected: mixed holds it under another amount");
    wait_until("the log says so", said);
}

/// What is in the journal is of a name, whichever number that has, and stays so when the name is not used
/// any more.
#[test]
fn books_are_kept_by_name_over_restarts_with_other_files() {
    let (scratch, mut three) = (Scratch::new(), Three::start());
    let (text, data) = (three.file(""), scratch.join("data"));
    let file = written(&scratch, "p.toml", &text);
    let start = || in_front_of(&file, &["--data", &data]);
    let pay = |instance: &mut Instance, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let amount = if number % 2 == 0 { "1.00" } else { "100.00" };
            assert_eq!(instance.pay(&id(number), amount).status, 202);
        }
        instance.settle();
        instance.assert_balanced();
        let body = instance.get("/payments-summary").body;
        instance.galo.signal(SIGTERM);
        let (status, said) = instance.galo.wait();
        assert!(status.success(), "{said}");
        body
    };
    let member = |name: &str, count: i128, cents: i128| {
        let amount = decimal(count * cents);
        format!("\"{name}\":{{\"totalRequests\":{count},\"totalAmount\":{amount}}}")
    };
    let said = pay(&mut start(), 0..6);
    let (share, mixed, dear) =
        (member("share", 3, 100), member("mixed", 3, 10_000), member("dear", 0, 0));
    assert_eq!(said, format!("{{{share},{mixed},{dear}}}"));
    // Another order, and another one of which the journal knows nothing.
    let mut blocks: Vec<String> = text.split("[[").skip(1).map(|it| format!("[[{it}")).collect();
    blocks.reverse();
    let fourth = Processor::start();
    let more = contest_file(&[("more", "{ percent = 1 }", fourth.address)], "");
    written(&scratch, "p.toml", &(more.clone() + &blocks.concat()));
    let said = pay(&mut start(), 6..10);
    let (share, more_said) =
        (member("share", 3, 100), "\"more\":{\"totalRequests\":4,\"totalAmount\":202.00}");
    assert_eq!(said, format!("{{{more_said},{dear},{mixed},{share}}}"));
    // And without those that were paid at first: they keep what they hold.
    written(&scratch, "p.toml", &(blocks[0].clone() + &more));
    let said = pay(&mut start(), 10..10);
    assert_eq!(said, format!("{{{dear},{more_said},{share},{mixed}}}"));
    assert_eq!(three.counts(), [3, 3, 0]);
}

#[test]
fn a_pair_with_three_processors_keeps_the_books() {
    let (scratch, mut three) = (Scratch::new(), Three::start());
    let text = three.file("");
    // The order is one's own: names are what counts between the two.
    let mut blocks: Vec<String> = text.split("[[").skip(1).map(|it| format!("[[{it}")).collect();
    blocks.reverse();
    let files = [written(&scratch, "1.toml", &text), written(&scratch, "2.toml", &blocks.concat())];
    let pair = pair_in_front_of(files.each_ref().map(|it| &it[..]), [&QUICK, &QUICK]);
    for number in 0..60 {
        let instance = &pair[number as usize % 2];
        let amount = if number % 3 == 0 { "1.00" } else { "100.00" };
        assert_eq!(instance.pay(&id(number), amount).status, 202);
        if number == 30 {
            three.processors[1].set_failing(true);
        }
    }
    pair.iter().for_each(Instance::settle);
    let [share, mixed, dear] = three.counts();
    assert_eq!(share + mixed + dear, 60);
    assert!(mixed > 0 && share > 20, "{share} {mixed} {dear}");
    assert_eq!(pair[0].get("/payments-summary").body, three.summary());
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parse(&pair[1].get("/payments-summary").body), parse(&three.summary()));
    pair.iter().for_each(Instance::assert_balanced);
}

/// One instance's journal is new, and was never told the name of a processor that holds payments.
#[test]
fn what_only_one_instance_of_a_pair_has_books_of_is_in_the_summary_of_both() {
    let (scratch, three) = (Scratch::new(), Three::start());
    let data = ["first", "second", "new"].map(|name| scratch.join(name));
    let start = |text: &str, second: &str| {
        let file = written(&scratch, "p.toml", text);
        let args = |data| ["--adopt-after", "400ms", "--data", data];
        pair_in_front_of([&file, &file], [&args(&data[0]), &args(second)])
    };
    let all = three.file("");
    let pair = start(&all, &data[1]);
    (0..4).for_each(|it| assert_eq!(pair[0].pay(&id(2 * it), "1.00").status, 202));
    pair.iter().for_each(Instance::settle);
    drop(pair);
    let without: Vec<&str> = all.split_inclusive("[[processor]]").collect();
    let pair = start(&format!("[[processor]]{}", without[2..].concat()), &data[2]);
    for instance in &pair {
        let said = instance.get("/payments-summary").body;
        assert!(said.contains(r#""share":{"totalRequests":4,"totalAmount":4.00}"#), "{said}");
    }
}

#[test]
fn a_pair_must_agree_about_its_processors() {
    let (scratch, three) = (Scratch::new(), Three::start());
    let file = written(&scratch, "1.toml", &three.file(""));
    let [one, other] = [free_address(), free_address()].map(|it| it.to_string());
    let urls = [&one, &other].map(|it| format!("http://{it}"));
    let args = |file: &str, own: usize| {
        let (door, peer) = ([&one, &other][own], &urls[1 - own]);
        let text = format!(
            "--processors {file} --peer-listen {door} --peer {peer} --peer-token {TOKEN} \
             --instance {}",
            own + 1
        );
        text.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let first = ["serve", "--listen", "127.0.0.1:0"].map(str::to_owned);
    let running = crate::support::Galo::start(first.into_iter().chain(args(&file, 0)));
    wait_until("it looks for its peer", || running.stderr().contains("peer"));
    let dearer = three.file("").replace("percent = 9", "percent = 8");
    let another = three.file("").replace("name = \"dear\"", "name = \"cheap\"");
    for (text, named) in [(dearer, "processor dear is "), (another, "processor cheap is ")] {
        let file = written(&scratch, "2.toml", &text);
        let args = args(&file, 1);
        let said = refused(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.contains(named) && said.contains("both must be the same"), "{said}");
    }
}

/// A processor of an API of its own, which wants to see a key. Its thread ends with the test.
struct Cards {
    address: SocketAddr,
    state: Arc<Mutex<CardsState>>,
}

#[derive(Default)]
struct CardsState {
    key: String,
    booked: Vec<Booking>,
    declines: bool,
    turned_away: usize,
}

impl Cards {
    fn start(key: &str) -> Cards {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = CardsState { key: key.into(), ..CardsState::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || converse(&stream, &state));
            }
        });
        Cards { address, state }
    }

    fn file(&self, name: &str) -> String {
        CARDS.replace("NAME", name).replace("ADDRESS", &self.address.to_string())
    }

    fn booked(&self) -> usize {
        self.state.lock().unwrap().booked.len()
    }
}

const CARDS: &str = r#"
[[processor]]
name = "NAME"
url = "http://ADDRESS/v2"
fee = { percent = 1 }
headers = { Authorization = { file = "cards.key", prefix = "Bearer " } }

[processor.pay]
path = "/charges"
body = '{ "ref": "{id}", "cents": {cents}, "at": "{requestedAt}" }'
repeated = "refused"

[[processor.pay.answer]]
status = 200
at = "/state"
is = "paid"
means = "booked"
id = "/ref"
time = "/at"

[[processor.pay.answer]]
status = 402
at = "/state"
is = "declined"
means = "rejected"

[processor.look]
path = "/charges/{id}"

[[processor.look.answer]]
status = 200
means = "booked"
id = "/ref"
amount = "/cents"
unit = "cents"
time = "/at"

[[processor.look.answer]]
status = 404
means = "absent"
"#;

fn converse(stream: &TcpStream, state: &Mutex<CardsState>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    loop {
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.parse().ok()?;
            }
            head.push(line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (status, body) = answer(&head, &body, &mut state.lock().unwrap());
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}");
        (&*stream).write_all(answer.as_bytes()).ok()?;
    }
}

fn answer(head: &[String], body: &[u8], state: &mut CardsState) -> (u16, String) {
    if !head.contains(&format!("Authorization: Bearer {}", state.key)) {
        state.turned_away += 1;
        return (401, r#"{"state":"who are you"}"#.into());
    }
    let show = |it: &Booking| {
        let at = crate::support::system::iso(it.at_ms);
        json!({"state": "paid", "ref": it.id, "cents": it.cents as i64, "at": at}).to_string()
    };
    if let Some(id) = head[0].strip_prefix("GET /v2/charges/") {
        let id = id.split(' ').next().unwrap();
        let found = state.booked.iter().find(|it| it.id == id);
        return found.map_or((404, "{}".into()), |it| (200, show(it)));
    }
    assert_eq!(head[0], "POST /v2/charges HTTP/1.1");
    if state.declines {
        return (402, r#"{"state":"declined"}"#.into());
    }
    let asked: Value = serde_json::from_slice(body).unwrap();
    let at: jiff::Timestamp = asked["at"].as_str().unwrap().parse().unwrap();
    let (id, cents) = (asked["ref"].as_str().unwrap().into(), asked["cents"].as_i64().unwrap());
    let booking = Booking { id, cents: cents.into(), at_ms: at.as_millisecond() };
    assert!(state.booked.iter().all(|it| it.id != booking.id), "paid twice");
    let said = show(&booking);
    state.booked.push(booking);
    (200, said)
}

#[test]
fn a_described_processor_is_paid_and_what_it_declines_goes_to_the_next() {
    let (scratch, cards, mut other) = (Scratch::new(), Cards::start(KEYS[0]), Processor::start());
    written(&scratch, "cards.key", KEYS[0]);
    let contest = contest_file(&[("other", "{ percent = 3 }", other.address)], "");
    let file = written(&scratch, "p.toml", &(cards.file("cards") + &contest));
    let instance = in_front_of(&file, &[]);
    for number in 0..20 {
        assert_eq!(instance.pay(&id(number), "19.90").status, 202);
    }
    instance.settle();
    assert_eq!((cards.booked(), other.books().len()), (20, 0));
    assert_eq!(
        instance.get("/payments-summary").body,
        r#"{"cards":{"totalRequests":20,"totalAmount":398.00},"other":{"totalRequests":0,"totalAmount":0.00}}"#
    );
    cards.state.lock().unwrap().declines = true;
    assert_eq!(instance.pay(&id(30), "19.90").status, 202);
    instance.settle();
    assert_eq!((cards.booked(), other.books().len()), (20, 1));
    // What a file describes is nothing odd.
    let said = instance.galo.stderr();
    assert!(!said.contains("answers a POST"), "{said}");
}

#[test]
fn a_credential_is_taken_over_while_payments_wait_for_it_and_shown_nowhere() {
    let (scratch, cards) = (Scratch::new(), Cards::start(KEYS[1]));
    written(&scratch, "cards.key", KEYS[0]);
    let file = written(&scratch, "p.toml", &cards.file("cards"));
    let admin = free_address();
    let (door, token) = (admin.to_string(), written(&scratch, "token", "correct-horse"));
    let instance = in_front_of(
        &file,
        &["--admin-listen", &door, "--admin-token-file", &token, "--log", "debug"],
    );
    assert_eq!(instance.pay(&id(1), "19.90").status, 202);
    wait_until("it is turned away", || cards.state.lock().unwrap().turned_away > 1);
    assert_eq!(cards.booked(), 0);
    let hang_up = |said: &str| {
        instance.galo.signal(SIGHUP);
        wait_until(said, || instance.galo.stderr().contains(said));
    };
    hang_up("nothing has changed");
    written(&scratch, "cards.key", "no\nkey");
    hang_up("a secret is one line");
    assert_eq!(cards.booked(), 0);
    written(&scratch, "cards.key", KEYS[1]);
    hang_up("cards from now on as it says");
    instance.settle();
    assert_eq!(cards.booked(), 1);
    let authorization = "Authorization: Bearer correct-horse\r\n";
    let mut seen = vec![instance.galo.stderr()];
    for path in ["/status.json", "/metrics", "/"] {
        let answer = Client::connect(admin).call(request("GET", path, authorization, ""));
        assert_eq!(answer.status, 200, "{path}");
        seen.push(answer.body);
    }
    for text in &seen {
        assert!(!KEYS.iter().any(|key| text.contains(key)), "a secret is shown: {text}");
    }
}

#[test]
fn what_takes_a_restart_is_refused_and_the_old_goes_on() {
    let (scratch, mut three) = (Scratch::new(), Three::start());
    let text = three.file("");
    let file = written(&scratch, "p.toml", &text);
    let instance = in_front_of(&file, &[]);
    let without_the_last = text.rsplit_once("[[").unwrap().0;
    let one_more = contest_file(&[("more", "{ percent = 50 }", free_address())], "");
    let old_url = three.processors[0].address.to_string();
    for (changed, said) in [
        (
            without_the_last.to_owned(),
            "processor dear is not there any more, which takes a restart",
        ),
        (text.clone() + &one_more, "processor more is new, which takes a restart"),
        (
            text.replace(&old_url, &free_address().to_string()),
            "processor share has another URL, which takes a restart",
        ),
        (
            text.replace("percent = 5", "percent = 500") + "\nwrong = 1",
            ":5:19: `percent` must be from 0 to below 100, with at most four decimals (and 1 more)",
        ),
    ] {
        written(&scratch, "p.toml", &changed);
        instance.galo.signal(SIGHUP);
        let said = format!("{said}: what was known before goes on");
        wait_until(&said, || instance.galo.stderr().contains(&said));
    }
    assert_eq!(instance.pay(&id(1), "1.00").status, 202);
    instance.settle();
    assert_eq!(three.counts(), [1, 0, 0]);
    // What was asked for is taken over, and the rest of the file as well.
    let patient = text.replace("percent = 9 }", "percent = 9 }\ntimeouts = { answer = '7s' }");
    written(&scratch, "p.toml", &patient);
    instance.galo.signal(SIGHUP);
    let said = "dear from now on as it says";
    wait_until(said, || instance.galo.stderr().contains(said));
    assert_eq!(instance.pay(&id(2), "1.00").status, 202);
    instance.settle();
    assert_eq!(three.counts(), [2, 0, 0]);
}

#[test]
fn fees_and_limits_are_taken_over_while_it_runs_and_in_a_pair_those_of_each_alone() {
    let (scratch, mut three) = (Scratch::new(), Three::start());
    let text = three.file("");
    let file = written(&scratch, "p.toml", &text);
    let take_over = |instances: &[&Instance], text: &str, said: &str| {
        written(&scratch, "p.toml", text);
        for instance in instances {
            instance.galo.signal(SIGHUP);
            wait_until(said, || instance.galo.stderr().contains(said));
        }
    };
    let alone = in_front_of(&file, &[]);
    let pay = |instance: &Instance, number: u64| {
        assert_eq!(instance.pay(&id(number), "1.00").status, 202);
        instance.settle();
    };
    pay(&alone, 1);
    // What nobody is well enough for waits, and goes where it is cheapest when one is.
    three.processors.iter_mut().for_each(|it| it.set_failing(true));
    assert_eq!(alone.pay(&id(2), "1.00").status, 202);
    let dearer = text.replace("percent = 5", "percent = 50");
    take_over(&[&alone], &dearer, "SIGHUP: --processors");
    three.processors.iter_mut().for_each(|it| it.set_failing(false));
    alone.settle();
    pay(&alone, 3);
    let counts = three.counts();
    assert_eq!((counts[0], counts.iter().sum::<usize>()), (1, 3), "{counts:?}");
    let limits = "limits = { largest = '0.99' }";
    take_over(&[&alone], &three.file(limits), "share, mixed, dear from now on as it says");
    assert_eq!(alone.pay(&id(4), "1.00").status, 422);
    drop(alone);
    written(&scratch, "p.toml", &text);
    let pair = pair_in_front_of([&file, &file], [&QUICK, &QUICK]);
    let both = [&pair[0], &pair[1]];
    take_over(&both, &dearer, "must agree: that takes a restart of both");
    take_over(&both, &three.file("limits = { per-second = 7 }"), "from now on as it says");
    pay(both[0], 5);
    both[1].settle();
    assert_eq!(three.counts()[0], 2, "the fees are those of the start");
}

#[test]
fn a_file_that_is_wrong_is_refused_before_anything_is_opened() {
    let scratch = Scratch::new();
    let wrong =
        "[[processor]]\nname = 'A'\nkind = 'contest'\nurl = 'http://a'\nfee = { percent = 100 }\n";
    let file = written(&scratch, "p.toml", wrong);
    let data = scratch.join("data");
    assert_eq!(
        refused(&["--processors", &file, "--data", &data]),
        format!(
            "galo: {file}:2:8: a name is 1 to 32 of a to z, 0 to 9 and -\n\
             galo: {file}:5:19: `percent` must be from 0 to below 100, with at most four decimals\n"
        )
    );
    assert!(!std::path::Path::new(&data).exists());
    let said = refused(&["--processors", &file, "--default-url", "http://a"]);
    assert!(said.contains("--processors") && said.contains("--default-url"), "{said}");
    let slow = contest_file(
        &[("slow", "{ percent = 1 }", free_address())],
        "timeouts = { answer = '1s' }",
    );
    let said = refused(&["--processors", &written(&scratch, "p.toml", &slow)]);
    assert!(said.contains("processor slow: its time-out for an answer must be longer"), "{said}");
}

/// Two instances could both count one booking.
#[test]
fn a_pair_refuses_a_processor_that_does_not_tell_whose_a_booking_is() {
    let (scratch, cards) = (Scratch::new(), Cards::start(KEYS[0]));
    written(&scratch, "cards.key", KEYS[0]);
    let text = cards.file("cards").replace("time = \"/at\"\n", "");
    let file = written(&scratch, "p.toml", &text);
    let peer =
        ["--peer-listen", "127.0.0.1:0", "--peer", "http://127.0.0.1:1", "--peer-token", TOKEN];
    let said = refused(&[&["--processors", &file][..], &peer].concat());
    assert!(
        said.contains("processor cards: with --peer each booking must show its `time`"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
    in_front_of(&file, &[]);
}
