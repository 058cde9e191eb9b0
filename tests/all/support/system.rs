//! The system under test as real processes: processors, instances, pairs of instances; and what a
//! test needs to compare them to the cent and the millisecond.
//!
//! Speaks only the public surfaces: the entry, the peer's door, the processors' API and admin calls.

use super::names::Hosts;
use super::{Answer, Client, Galo, PATIENCE, request, wait_until_within};
use galo::instance::status::InstanceStatus;
use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

pub const SIGKILL: i32 = 9;
pub const SIGTERM: i32 = 15;

/// What the two instances of a test share.
pub const TOKEN: &str = "a-token-of-the-tests";

/// Flags that make every time-out short, for tests of what happens after one.
pub const QUICK: [&str; 8] = [
    "--processor-timeout",
    "300ms",
    "--attempt-latency-max",
    "200ms",
    "--connect-timeout",
    "200ms",
    "--patience",
    "20ms",
];

/// A simulated processor.
pub struct Processor {
    pub galo: Galo,
    pub address: SocketAddr,
    pub admin: Client,
}

impl Processor {
    pub fn start() -> Processor {
        Processor::with(&["--service-time", "0"])
    }

    pub fn with(args: &[&str]) -> Processor {
        let first = ["processor", "--listen", "127.0.0.1:0"];
        Processor::of(Galo::start(first.iter().chain(args)))
    }

    pub fn at(address: SocketAddr) -> Processor {
        let address = address.to_string();
        Processor::of(Galo::start(["processor", "--service-time", "0", "--listen", &address]))
    }

    pub fn of(mut galo: Galo) -> Processor {
        let address = galo.address();
        Processor { galo, address, admin: Client::connect(address) }
    }

    pub fn both() -> [Processor; 2] {
        [Processor::start(), Processor::start()]
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn admin(&mut self, method: &str, target: &str, body: &str) -> Answer {
        self.admin.call(request(method, target, "X-Rinha-Token: 123\r\n", body))
    }

    pub fn configure(&mut self, name: &str, body: &str) -> Answer {
        let answer = self.admin("PUT", &format!("/admin/configurations/{name}"), body);
        assert!(matches!(answer.status, 200 | 204), "{answer:?}");
        answer
    }

    /// This fault for the next `count` payments; 0: until changed.
    pub fn set_fault(&mut self, name: &str, count: u32) {
        let body = format!(r#"{{"fault":"{name}","count":{count},"latenessMs":150}}"#);
        self.configure("fault", &body);
    }

    /// Answers calls by these rules (`simulator/script.rs`), separated by commas.
    pub fn set_script(&mut self, rules: &str) {
        let answer = self.admin("PUT", "/admin/script", &format!(r#"{{"rules":[{rules}]}}"#));
        assert_eq!(answer.status, 200, "{rules}");
    }

    pub fn set_delay_ms(&mut self, delay_ms: u64) {
        self.configure("delay", &format!(r#"{{"delay":{delay_ms}}}"#));
    }

    pub fn set_failing(&mut self, failing: bool) {
        self.configure("failure", &format!(r#"{{"failure":{failing}}}"#));
    }

    pub fn counters(&mut self) -> String {
        self.admin("GET", "/admin/counters", "").body
    }

    /// Everything it holds, in the order it was booked.
    pub fn books(&mut self) -> Vec<Booking> {
        let listing = self.admin("GET", "/admin/payments", "");
        assert_eq!(listing.status, 200);
        listing.body.lines().map(Booking::read).collect()
    }
}

/// One payment in a processor's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    pub id: String,
    pub cents: i128,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

impl Booking {
    fn read(line: &str) -> Booking {
        let read = || {
            let rest = line.strip_prefix(r#"{"correlationId":""#)?;
            let (id, rest) = rest.split_once(r#"","amount":"#)?;
            let (amount, rest) = rest.split_once(r#","requestedAt":""#)?;
            let at: jiff::Timestamp = rest.strip_suffix(r#""}"#)?.parse().ok()?;
            assert_eq!(at.as_nanosecond() % 1_000_000, 0, "galo sends whole milliseconds");
            Some(Booking { id: id.into(), cents: cents(amount)?, at_ms: at.as_millisecond() })
        };
        read().unwrap_or_else(|| panic!("not a booking: {line}"))
    }
}

/// A decimal with exactly two places → cents.
pub fn cents(decimal: &str) -> Option<i128> {
    let (whole, fraction) = decimal.split_once('.')?;
    (fraction.len() == 2).then(|| format!("{whole}{fraction}").parse().ok())?
}

/// Cents → a decimal with exactly two places.
pub fn decimal(cents: i128) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// As it stands in a query: ISO 8601 in UTC, to the millisecond.
pub fn iso(at_ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at_ms).expect("a time within range");
    format!("{at:.3}")
}

/// Count and cents of one processor.
pub type Totals = (u64, i128);

/// The names of the contest's two, in the order in which the tests have them.
pub const CONTEST: [&str; 2] = ["default", "fallback"];

/// Reads the document of a summary strictly: these fields, in this order, two decimals. Returns the
/// processors in its order.
fn read_summary(body: &str) -> Vec<(String, Totals)> {
    let member = |text: &str| {
        let (name, rest) = text.strip_prefix('"')?.split_once(r#"":{"totalRequests":"#)?;
        let (count, amount) = rest.split_once(r#","totalAmount":"#)?;
        Some((name.to_owned(), (count.parse().ok()?, cents(amount)?)))
    };
    let read = || {
        let members = body.strip_prefix('{')?.strip_suffix("}}")?;
        members.split("},").map(member).collect::<Option<Vec<_>>>()
    };
    read().unwrap_or_else(|| panic!("not a summary: {body}"))
}

/// The totals of default and fallback. Compares as the documents do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub default: Totals,
    pub fallback: Totals,
}

impl Summary {
    /// Reads the document strictly: these two, in this order.
    pub fn read(body: &str) -> Summary {
        match &read_summary(body)[..] {
            [(first, default), (second, fallback)] if [first, second] == CONTEST => {
                Summary { default: *default, fallback: *fallback }
            }
            _ => panic!("not a summary of these two: {body}"),
        }
    }

    /// What the books say about a window with inclusive bounds; `None` is open.
    pub fn of(books: [&[Booking]; 2], from_ms: Option<i64>, to_ms: Option<i64>) -> Summary {
        let [default, fallback] = books.map(|rows| totals(rows, from_ms, to_ms));
        Summary { default, fallback }
    }

    pub fn count(&self) -> u64 {
        self.default.0 + self.fallback.0
    }

    pub fn cents(&self) -> i128 {
        self.default.1 + self.fallback.1
    }
}

/// What one processor's books say about a window with inclusive bounds; `None` is open.
fn totals(rows: &[Booking], from_ms: Option<i64>, to_ms: Option<i64>) -> Totals {
    rows.iter()
        .filter(|row| from_ms.is_none_or(|from| from <= row.at_ms))
        .filter(|row| to_ms.is_none_or(|to| row.at_ms <= to))
        .fold((0, 0), |(count, cents), row| (count + 1, cents + row.cents))
}

/// The totals of any number of processors, by their names.
type ByName = BTreeMap<String, Totals>;

/// The same of each of several processors, which have these names.
fn totals_by_name(
    names: &[impl AsRef<str>],
    books: &[Vec<Booking>],
    from_ms: Option<i64>,
    to_ms: Option<i64>,
) -> ByName {
    assert_eq!(names.len(), books.len());
    let names = names.iter().map(|name| name.as_ref().to_owned());
    names.zip(books.iter().map(|rows| totals(rows, from_ms, to_ms))).collect()
}

/// An address of this machine that no other test and no other process uses: the port is a free one,
/// and the host is one of the loopback's sixteen million, named after this process and a count.
/// Kernels pick ports for outgoing connections on 127.0.0.1 only, so it stays free.
pub fn free_address() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed) % 250 + 1;
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, count as u8, high, low);
    let listener = TcpListener::bind((host, 0)).expect("every loopback address can be bound");
    listener.local_addr().expect("a bound address")
}

/// One instance.
pub struct Instance {
    pub galo: Galo,
    pub entry: SocketAddr,
    pub peer_door: SocketAddr,
    /// What it was started with, to start it again.
    args: Vec<String>,
    /// The table of names it sees, if it is one of its own.
    hosts: Option<Hosts>,
}

impl Instance {
    /// An instance without a peer, in front of these processors.
    pub fn start(processors: [SocketAddr; 2], args: &[&str]) -> Instance {
        let all = common_args("127.0.0.1:0", "127.0.0.1:0", processors);
        Instance::with(all.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect())
    }

    /// One whose token is among `args`.
    pub fn start_with_token(processors: [SocketAddr; 2], args: &[&str]) -> Instance {
        let mut all = common_args("127.0.0.1:0", "127.0.0.1:0", processors);
        all.retain(|arg| arg != "--peer-token" && arg != TOKEN);
        Instance::with(all.into_iter().chain(args.iter().map(|arg| (*arg).to_owned())).collect())
    }

    /// One in front of processors that are not there.
    pub fn alone(args: &[&str]) -> Instance {
        Instance::start([free_address(), free_address()], args)
    }

    /// One whose processors' URLs are among `args`.
    pub fn with_urls(args: &[&str]) -> Instance {
        let first = ["serve", "--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"];
        let first = first.iter().chain(&["--peer-token", TOKEN]);
        Instance::with(first.chain(args).map(|arg| (*arg).to_owned()).collect())
    }

    fn with(args: Vec<String>) -> Instance {
        Instance::of(Galo::start(&args), args, None)
    }

    fn of(mut galo: Galo, args: Vec<String>, hosts: Option<Hosts>) -> Instance {
        let (entry, peer_door) = (galo.address(), galo.address());
        Instance { galo, entry, peer_door, args, hosts }
    }

    /// Ends it as kill -9 does.
    pub fn kill(&mut self) {
        self.galo.signal(SIGKILL);
        self.galo.wait();
    }

    /// Starts it again with the addresses it had.
    pub fn start_again(&mut self) {
        self.galo.wait();
        let (args, hosts) = (std::mem::take(&mut self.args), self.hosts.take());
        *self = Instance::of(start_seeing(&args, hosts.as_ref()), args, hosts);
    }

    pub fn client(&self) -> Client {
        Client::connect(self.entry)
    }

    pub fn get(&self, target: &str) -> Answer {
        self.client().call(request("GET", target, "", ""))
    }

    pub fn pay(&self, id: &str, amount: &str) -> Answer {
        self.client().call(payment(id, amount))
    }

    /// Asks for the summary; it must be given.
    pub fn summary(&self, query: &str) -> Summary {
        Summary::read(&self.summary_document(query))
    }

    fn summary_document(&self, query: &str) -> String {
        let answer = self.get(&format!("/payments-summary{query}"));
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        answer.body
    }

    /// The summary of any number of processors, in whichever order this instance has them.
    fn summary_by_name(&self, query: &str) -> ByName {
        let members = read_summary(&self.summary_document(query));
        let count = members.len();
        let by_name: ByName = members.into_iter().collect();
        assert_eq!(by_name.len(), count, "each name once: {by_name:?}");
        by_name
    }

    /// The summary of a window, both bounds given.
    pub fn summary_between(&self, from_ms: i64, to_ms: i64) -> Summary {
        self.summary(&format!("?from={}&to={}", iso(from_ms), iso(to_ms)))
    }

    /// The value of a metric, named with its labels.
    pub fn metric(&self, series: &str) -> u64 {
        let answer = Client::connect(self.peer_door).call(request("GET", "/metrics", "", ""));
        assert_eq!(answer.status, 200, "{answer:?}");
        let value = |line: &str| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok();
        answer.body.lines().find_map(value).unwrap_or_else(|| panic!("{series}:\n{}", answer.body))
    }

    pub fn outstanding(&self) -> u64 {
        self.metric("galo_outstanding")
    }

    /// Waits until everything that was accepted is settled.
    pub fn settle(&self) {
        wait_until_within(PATIENCE, "all is settled", || match self.outstanding() {
            0 => Ok(()),
            left => Err(format!("{left} left\n{}", self.galo.stderr())),
        });
    }

    /// Every payment that it took on since its start is somewhere, by its own count.
    pub fn assert_balanced(&self) {
        // With an event loop for the dispatcher a payment may be between two of the numbers.
        wait_until_within(PATIENCE, "every payment is somewhere", || {
            let answer = self.at_peer_door("GET", "/peer/status", TOKEN, "");
            let status: InstanceStatus = serde_json::from_str(&answer.body).expect("a status");
            let is_balanced = status.whereabouts.missing() == 0;
            is_balanced.then_some(()).ok_or_else(|| format!("{:?}", status.whereabouts))
        });
    }

    /// A call at the peer's door, with a token.
    pub fn at_peer_door(&self, method: &str, target: &str, token: &str, body: &str) -> Answer {
        let authorization = format!("Authorization: Bearer {token}\r\n");
        Client::connect(self.peer_door).call(request(method, target, &authorization, body))
    }
}

/// Starts the binary, with that table of names if there is one.
fn start_seeing(args: &[String], hosts: Option<&Hosts>) -> Galo {
    match hosts {
        None => Galo::start(args),
        Some(hosts) => Galo::spawn(hosts.command(args)),
    }
}

fn common_args(
    entry: &str,
    peer_door: &str,
    processors: [impl std::fmt::Display; 2],
) -> Vec<String> {
    let first = ["serve", "--listen", entry, "--peer-listen", peer_door, "--peer-token", TOKEN];
    first.map(str::to_owned).into_iter().chain(urls_of(processors)).collect()
}

/// Flags that name these.
fn urls_of(processors: [impl std::fmt::Display; 2]) -> Vec<String> {
    let [default, fallback] = processors.map(|authority| format!("http://{authority}"));
    vec!["--default-url".into(), default, "--fallback-url".into(), fallback]
}

/// Two instances that know each other, that have found each other, in front of these processors.
pub fn pair(processors: [SocketAddr; 2], args: &[&str]) -> [Instance; 2] {
    pair_with(processors, [args, args])
}

/// Two instances in front of processors that are known by their names.
pub fn pair_seeing(hosts: &Hosts, names: [String; 2], args: [&[&str]; 2]) -> [Instance; 2] {
    let flags = urls_of(names);
    pair_of([flags.clone(), flags], args, |door| door, Some(hosts))
}

/// Two instances in front of the processors of these files.
pub fn pair_in_front_of(files: [&str; 2], args: [&[&str]; 2]) -> [Instance; 2] {
    let flags = files.map(|file| vec!["--processors".to_owned(), file.to_owned()]);
    pair_of(flags, args, |door| door, None)
}

/// The same, with arguments for each.
pub fn pair_with(processors: [SocketAddr; 2], args: [&[&str]; 2]) -> [Instance; 2] {
    pair_via(processors, args, |door| door)
}

/// The same, but `via` says where each one's door is to be reached by the other.
pub fn pair_via(
    processors: [SocketAddr; 2],
    args: [&[&str]; 2],
    via: impl FnMut(SocketAddr) -> SocketAddr,
) -> [Instance; 2] {
    let flags = urls_of(processors);
    pair_of([flags.clone(), flags], args, via, None)
}

fn pair_of(
    processors: [Vec<String>; 2],
    args: [&[&str]; 2],
    mut via: impl FnMut(SocketAddr) -> SocketAddr,
    hosts: Option<&Hosts>,
) -> [Instance; 2] {
    let doors = [free_address(), free_address()];
    let reached = doors.map(&mut via);
    // Both before either is waited for: each looks for the other before it serves.
    let started = [0, 1].map(|index| {
        let entry = free_address().to_string();
        let door = doors[index].to_string();
        let first = ["serve", "--listen", &entry, "--peer-listen", &door, "--peer-token", TOKEN];
        let mut all: Vec<String> = first.map(str::to_owned).to_vec();
        all.extend(processors[index].iter().cloned());
        all.extend(["--peer".into(), format!("http://{}", reached[1 - index])]);
        all.extend(["--instance".into(), (index + 1).to_string()]);
        all.extend(args[index].iter().map(|arg| (*arg).to_owned()));
        (start_seeing(&all, hosts), all)
    });
    let instances = started.map(|(galo, args)| Instance::of(galo, args, hosts.cloned()));
    see_each_other(&instances);
    instances
}

/// Waits until each knows that the other is there.
pub fn see_each_other(instances: &[Instance]) {
    for instance in instances {
        wait_until_within(PATIENCE, "the peers see each other", || {
            let up = instance.metric("galo_peer_up") == 1;
            up.then_some(()).ok_or_else(|| instance.galo.stderr())
        });
    }
}

pub fn addresses(processors: &[Processor; 2]) -> [SocketAddr; 2] {
    processors.each_ref().map(|processor| processor.address)
}

/// The `number`-th id of a test.
pub fn id(number: u64) -> String {
    format!("4a7901b8-7d26-4d9d-aa19-{number:012x}")
}

/// `POST /payments`
pub fn payment(id: &str, amount: &str) -> String {
    let body = format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#);
    request("POST", "/payments", "content-type: application/json\r\n", &body)
}

/// What every test of payments ends with: nothing is outstanding; each accepted payment (id and
/// cents) is in the books of exactly one processor, and nothing else is; and every instance's
/// summary says what the books say. Returns the books.
pub fn assert_books_balance(
    accepted: &HashMap<String, i128>,
    processors: &mut [Processor; 2],
    instances: &[Instance],
) -> [Vec<Booking>; 2] {
    instances.iter().for_each(Instance::settle);
    let books = assert_books_are(accepted, &CONTEST, processors, instances);
    books.try_into().expect("the books of two")
}

/// The same of any number of processors that have these names, but for what may be outstanding still.
pub fn assert_books_are(
    accepted: &HashMap<String, i128>,
    names: &[impl AsRef<str>],
    processors: &mut [Processor],
    instances: &[Instance],
) -> Vec<Vec<Booking>> {
    let books: Vec<_> = processors.iter_mut().map(Processor::books).collect();
    let mut booked = HashMap::new();
    for row in books.iter().flatten() {
        let other = booked.insert(row.id.clone(), row.cents);
        assert_eq!(other, None, "paid twice: {row:?}\n{books:?}");
    }
    assert_same(accepted, &booked);
    let expected = totals_by_name(names, &books, None, None);
    for instance in instances {
        assert_eq!(instance.summary_by_name(""), expected, "{}", instance.galo.stderr());
        instance.assert_balanced();
    }
    books
}

/// Compares random windows of the summaries of the contest's two, see [`assert_windows_are`].
pub fn assert_windows_agree(
    random: &mut Random,
    windows: usize,
    books: &[Vec<Booking>; 2],
    instances: &[Instance],
) {
    assert_windows_are(random, windows, &CONTEST, books, instances);
}

/// Compares random windows of the summaries, whose bounds are at, or a millisecond beside, times
/// that are in the books of the processors with these names. There must be some.
pub fn assert_windows_are(
    random: &mut Random,
    windows: usize,
    names: &[impl AsRef<str>],
    books: &[Vec<Booking>],
    instances: &[Instance],
) {
    let rows: Vec<&Booking> = books.iter().flatten().collect();
    for _ in 0..windows {
        let mut bound = || random.pick(&rows).at_ms + random.below(3) as i64 - 1;
        let (one, other) = (bound(), bound());
        let (from, to) = (one.min(other), one.max(other));
        let queries = [
            (Some(from), Some(to), format!("?from={}&to={}", iso(from), iso(to))),
            (Some(from), None, format!("?from={}", iso(from))),
            (None, Some(to), format!("?to={}", iso(to))),
        ];
        for (from, to, query) in queries {
            let expected = totals_by_name(names, books, from, to);
            for instance in instances {
                assert_eq!(instance.summary_by_name(&query), expected, "{query}");
            }
        }
    }
}

fn assert_same(accepted: &HashMap<String, i128>, booked: &HashMap<String, i128>) {
    let lacks = |of: &HashMap<String, i128>, other: &HashMap<String, i128>| {
        let mut lacks: Vec<_> =
            of.iter().filter(|(id, cents)| other.get(*id) != Some(cents)).collect();
        lacks.sort();
        format!("{lacks:?}")
    };
    assert!(
        accepted == booked,
        "accepted and not booked: {}\nbooked and not accepted: {}",
        lacks(accepted, booked),
        lacks(booked, accepted)
    );
}

/// Pseudo-random numbers, the same for the same seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// A UUID of version 4.
    pub fn uuid(&mut self) -> String {
        let (a, b) = (self.next(), self.next());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            0x8000 | ((b >> 48) & 0x3fff),
            b & 0xffff_ffff_ffff
        )
    }
}
