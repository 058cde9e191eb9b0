//! The processors of a storm: the contest's two, or some of a file, with fees by which each is the
//! cheapest for some amounts, limits by amount, and APIs that differ.

use crate::support::system::{CONTEST, Random, decimal};
use std::net::SocketAddr;

/// Clients pay from a cent to this.
const LARGEST_CENTS: u64 = 1_000_000;

/// Whose API it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Contest,
    /// The same, but as the file describes it.
    Described,
    Idempotent,
}

impl Api {
    const ALL: [Api; 3] = [Api::Contest, Api::Described, Api::Idempotent];

    fn name(self) -> &'static str {
        match self {
            Api::Contest => "contest",
            Api::Described => "described",
            Api::Idempotent => "idempotent",
        }
    }

    /// Under which statuses it may refuse a payment for good, and with which body, as it stands in a
    /// text of JSON.
    pub fn refusals(self) -> (&'static [u16], &'static str) {
        match self {
            Api::Contest | Api::Described => (&[400, 401, 404, 413, 422], ""),
            Api::Idempotent => (&[200, 201, 400, 402, 404, 422], r#"{\"status\":\"rejected\"}"#),
        }
    }
}

/// A processor, as its file has it.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub api: Api,
    fee: String,
    /// Amounts of one payment in cents, both included.
    smallest: Option<i128>,
    largest: Option<i128>,
    concurrency: u32,
}

impl Entry {
    /// Whether it may be sent a payment of this amount.
    pub fn takes(&self, cents: i128) -> bool {
        self.smallest.is_none_or(|it| it <= cents) && self.largest.is_none_or(|it| cents <= it)
    }

    fn text(&self, address: SocketAddr) -> String {
        let Entry { name, api, fee, smallest, largest, concurrency } = self;
        let limit = |key: &str, cents: &Option<i128>| {
            cents.map(|it| format!(", {key} = {}", decimal(it))).unwrap_or_default()
        };
        let (smallest, largest) = (limit("smallest", smallest), limit("largest", largest));
        let more = if *api == Api::Described { DESCRIPTION } else { "" };
        format!(
            "[[processor]]\nname = \"{name}\"\nkind = \"{}\"\nurl = \"http://{address}\"\n\
             fee = {{ {fee} }}\n\
             limits = {{ concurrency = {concurrency}{smallest}{largest} }}\n\
             timeouts = {{ connect = \"200ms\", answer = \"500ms\" }}\n{more}\n",
            api.name()
        )
    }
}

/// The contest's two, which no file describes.
pub fn contest() -> Vec<Entry> {
    let entry = |name: &str| Entry {
        name: name.into(),
        api: Api::Contest,
        fee: String::new(),
        smallest: None,
        largest: None,
        concurrency: 0,
    };
    CONTEST.map(entry).into()
}

/// So many for a file.
pub fn draw(count: usize, random: &mut Random) -> Vec<Entry> {
    let first_api = random.below(3) as usize;
    // For each amount there is one that takes it.
    let unlimited = random.below(count as u64) as usize;
    // Each costs half a percent less than the one before it, and more by as much of a bound: up to
    // that bound the one before is the cheaper one.
    let (mut fixed, mut all) = (0, Vec::new());
    for index in 0..count {
        let api = Api::ALL[(first_api + index) % Api::ALL.len()];
        let halves = 2 + count - index;
        let fee = format!("percent = {}.{}, fixed = {fixed}", halves / 2, halves % 2 * 5);
        let bound = LARGEST_CENTS * (index as u64 + 1) / count as u64;
        fixed += bound / 200;
        let kind = random.below(4);
        let mut limit = |is_there: bool, from: u64| {
            let cents = i128::from(from + random.below(LARGEST_CENTS / 3));
            (is_there && index != unlimited).then_some(cents)
        };
        let smallest = limit(kind == 0 || kind == 1, 1);
        let largest = limit(kind == 1 || kind == 2, LARGEST_CENTS / 2);
        let concurrency = *random.pick(&[4, 20, 400]);
        let name = format!("{}-{index}", api.name());
        all.push(Entry { name, api, fee, smallest, largest, concurrency });
    }
    all
}

/// A file of these, in any order: the two instances of a pair may have another one each.
pub fn file(all: &[(&Entry, SocketAddr)], random: &mut Random) -> String {
    let mut left: Vec<_> = all.iter().map(|(entry, address)| entry.text(*address)).collect();
    let mut text = String::new();
    while !left.is_empty() {
        text += &left.swap_remove(random.below(left.len() as u64) as usize);
    }
    text
}

/// The contest's API in the words of a file.
const DESCRIPTION: &str = r#"
[processor.pay]
path = "/payments"
body = '{"correlationId":"{id}","amount":{amount},"requestedAt":"{requestedAt}"}'
repeated = "refused"

[[processor.pay.answer]]
status = 200
at = "/message"
text = true
means = "booked"

[[processor.pay.answer]]
status = 429
means = "pause"

[[processor.pay.answer]]
status = 500
empty = true
means = "not-booked"

[[processor.pay.answer]]
status = 422
at = "/message"
is = "CorrelationId already exists"
means = "unknown"

[[processor.pay.answer]]
status = [408, 409, 423, 425, 499]
means = "unknown"

[[processor.pay.answer]]
status = "4xx"
means = "rejected"

[processor.look]
path = "/payments/{id}"

[[processor.look.answer]]
status = 200
means = "booked"
id = "/correlationId"
amount = "/amount"
unit = "decimal"
time = "/requestedAt"

[[processor.look.answer]]
status = 404
means = "absent"

[[processor.look.answer]]
status = 429
means = "pause"

[processor.health]
path = "/payments/service-health"

[[processor.health.answer]]
status = 200
at = "/failing"
is = true
means = "failing"
delay-ms = "/minResponseTime"

[[processor.health.answer]]
status = 200
at = "/failing"
is = false
means = "well"
delay-ms = "/minResponseTime"
"#;
