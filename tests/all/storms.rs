//! The weather of `membership/simulation.rs` on real processes: a pair under load with journals, whose
//! processors answer anything, fail one after the other and all together, while disks stand still,
//! instances are killed, and an old copy of a journal is put back. The processors are the contest's two,
//! which may change addresses, or three or eight of a file, of which each is the cheapest for some
//! amounts, takes no others, or speaks another API. Some payments are poison, which all processors
//! refuse for ever.
//!
//! In the end each payment that was promised is in the books of exactly one processor, one that takes
//! its amount, or it is poison and rejected; nothing else is outstanding; and the summaries of both
//! instances say by name what the processors' books say, as a whole and by windows.
//!
//! A seed decides the kind of the storm, its steps and the payments; what the kernel makes of the
//! timing is its own, so that a seed that fails may have to be run more than once.
//!
//! `cargo test` runs a few fixed seeds. `GALO_SEEDS=1000 cargo test --test all storms::` runs the
//! seeds 1 to 1000, `GALO_SEED=7` the seventh. `GALO_AT_ONCE=12` plays so many at once.

use self::lineup::{Api, Entry};
use self::weather::{Mood, Step, Weather};
use crate::support::clients::{Clients, Sent};
use crate::support::front::Front;
use crate::support::journals::{Disk, Scratch, journal, open_and_rejected};
use crate::support::names::{Hosts, Switch};
use crate::support::seeds::{StopAtEnd, number, play_seeds};
use crate::support::system::{
    Booking, CONTEST, Instance, Processor, Random, assert_books_are, assert_windows_are,
    pair_in_front_of, pair_seeing, pair_with, see_each_other,
};
use crate::support::{PATIENCE, allow_open_files, wait_until_within};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

mod lineup;
mod weather;

/// One of each kind.
const SEEDS_BY_DEFAULT: u64 = Weather::ALL.len() as u64;
const STORMS_AT_ONCE: usize = 10;
const CLIENTS: u64 = 3;
const TICK: Duration = Duration::from_millis(20);
const WINDOWS: usize = 20;
/// The switches have both ends of each connection to a processor.
const OPEN_FILES: u32 = 8_192;
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
/// Refusals are looked at again for seconds before they are believed, three by each processor.
const REJECTS_WITHIN_OF_EACH: Duration = Duration::from_secs(90);
/// Between two looks at the journals, which are long.
const POLL: Duration = Duration::from_millis(100);
/// An address that was looked up is not used for longer than this (`net/names.rs`).
const NAMES_HOLD: Duration = Duration::from_millis(1_300);

const FLAGS: [&str; 8] = [
    "--queue-capacity",
    "10000",
    "--attempt-latency-max",
    "130ms",
    "--patience",
    "10ms",
    // Longer than twice what any request is under way here.
    "--adopt-after",
    "1500ms",
];

/// What a file says of its processors itself (`lineup.rs`).
const TIMEOUTS: [&str; 4] = ["--processor-timeout", "500ms", "--connect-timeout", "200ms"];

/// In the ids of what all processors refuse for ever.
const POISON: &str = "-dead";
const POISON_ONE_IN: u64 = 40;
const NAMES: [&str; 2] = ["default.storm.test", "fallback.storm.test"];

fn draw_id(random: &mut Random) -> String {
    let is_poison = random.one_in(POISON_ONE_IN);
    loop {
        let id = random.uuid();
        if is_poison {
            return format!("{}{POISON}{}", &id[..23], &id[28..]);
        }
        if !id.contains(POISON) {
            return id;
        }
    }
}

/// Says on failure what was played, and how to play it again.
struct Story {
    seed: u64,
    weather: Weather,
    lineup: Vec<Entry>,
    steps: Vec<Step>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if thread::panicking() {
            let Story { seed, weather, lineup, steps } = self;
            let lineup: String = lineup.iter().map(|entry| format!("  {entry:?}\n")).collect();
            let steps: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            eprintln!(
                "seed {seed} failed, {weather:?}:\n{lineup}{steps}\
                 replay: GALO_SEED={seed} cargo test --test all storms::"
            );
        }
    }
}

struct Storm {
    processors: Vec<Processor>,
    lineup: Vec<Entry>,
    /// Before those that are of another API than a simulated processor's.
    _fronts: Vec<Front>,
    instances: [Instance; 2],
    data: [String; 2],
    /// By which rule of a script each refuses poison.
    refusals: Vec<String>,
    names: Option<(Hosts, Switch)>,
    disks: Vec<Disk>,
    scratch: Scratch,
}

impl Storm {
    /// `None` where what it needs is not permitted.
    fn new(weather: Weather, lineup: Vec<Entry>, random: &mut Random) -> Option<Storm> {
        let scratch = Scratch::new();
        let mut disks = Vec::new();
        let data = match weather {
            Weather::SlowDisk => {
                disks.extend([Disk::new()?, Disk::new()?]);
                [disks[0].join("journal"), disks[1].join("journal")]
            }
            _ => ["one", "other"].map(|name| scratch.join(name)),
        };
        let processors: Vec<_> = lineup.iter().map(|_| Processor::start()).collect();
        let durability = *random.pick(&["process", "disk"]);
        let timeouts = if lineup.len() == CONTEST.len() { &TIMEOUTS[..] } else { &[] };
        let args = data.each_ref().map(|data| {
            [&FLAGS[..], timeouts, &["--data", data, "--durability", durability]].concat()
        });
        let args = args.each_ref().map(Vec::as_slice);
        let (mut names, mut fronts) = (None, Vec::new());
        let instances = match (weather, &processors[..]) {
            (Weather::Swaps, [first, second]) => {
                let switch = Switch::new([first.address, second.address]);
                let hosts = Hosts::new(&table(&switch))?;
                let authorities =
                    NAMES.map(|name| format!("{name}:{}", switch.addresses[0].port()));
                let instances = pair_seeing(&hosts, authorities, args);
                names = Some((hosts, switch));
                instances
            }
            (_, [first, second]) => pair_with([first.address, second.address], args),
            _ => {
                let addresses = addresses(&lineup, &processors, &mut fronts);
                let entries: Vec<_> = lineup.iter().zip(addresses).collect();
                let files = ["one.toml", "other.toml"].map(|name| {
                    let path = scratch.join(name);
                    std::fs::write(&path, lineup::file(&entries, random)).unwrap();
                    path
                });
                pair_in_front_of(files.each_ref().map(String::as_str), args)
            }
        };
        let refusals = lineup.iter().map(|entry| refusal(entry.api, random)).collect();
        let mut storm = Storm {
            processors,
            lineup,
            _fronts: fronts,
            instances,
            data,
            refusals,
            names,
            disks,
            scratch,
        };
        storm.set(&storm.all_well());
        Some(storm)
    }

    fn all_well(&self) -> Vec<Mood> {
        vec![Mood::Well; self.processors.len()]
    }

    /// What each processor does from here on. Poison it refuses always.
    fn set(&mut self, moods: &[Mood]) {
        let refusals = self.refusals.iter().cloned();
        for ((processor, mood), refusal) in self.processors.iter_mut().zip(moods).zip(refusals) {
            let (failing, fault, rules) = match mood {
                Mood::Well => (false, "none", refusal),
                Mood::Failing => (true, "none", refusal),
                Mood::Fault(fault) => (false, *fault, refusal),
                Mood::Script(rules) => (false, "none", format!("{refusal},{rules}")),
            };
            processor.set_failing(failing);
            processor.set_fault(fault, 0);
            processor.set_script(&rules);
        }
    }

    fn play(&mut self, weather: Weather, step: &Step, clients: &Clients) {
        self.set(&step.moods);
        thread::sleep(step.lasts);
        match weather {
            Weather::Swaps => self.swap(),
            Weather::SlowDisk => {
                self.disks[step.whom].freeze();
                thread::sleep(step.lasts);
                self.disks[step.whom].thaw();
            }
            Weather::OldCopy => self.put_back(step, clients),
            Weather::Odd | Weather::Outages => {}
        }
        let killed = (0..2).filter(|index| step.killed[*index]);
        killed.clone().for_each(|index| self.instances[index].kill());
        if step.killed != [false; 2] {
            thread::sleep(step.away);
        }
        killed.for_each(|index| self.instances[index].start_again());
    }

    /// Both processors stop, and start where the other one was.
    fn swap(&mut self) {
        let Some((hosts, switch)) = &mut self.names else { return };
        switch.clear();
        switch.is_swapped ^= true;
        hosts.write(&table(switch));
        thread::sleep(NAMES_HOLD);
        let [first, second] = &self.processors[..] else { return };
        switch.set([first.address, second.address]);
    }

    /// A copy of a journal is made while it is in use, and put back after a kill. Between the two
    /// nothing new is promised: what was would be lost.
    fn put_back(&mut self, step: &Step, clients: &Clients) {
        *clients.is_open.write().unwrap() = false;
        see_each_other(&self.instances);
        let data = self.data[step.whom].clone();
        let copy = self.scratch.join("copy");
        wait_until_within(PATIENCE, "a sound copy", || {
            let _ = std::fs::remove_dir_all(&copy);
            copy_directory(&data, &copy);
            let checked = journal("check", &copy);
            checked.status.success().then_some(()).ok_or_else(|| format!("{checked:?}"))
        });
        let mut moods = vec![Mood::Failing; self.processors.len()];
        moods[step.taker] = Mood::Well;
        self.set(&moods);
        thread::sleep(step.away);
        self.instances[step.whom].kill();
        std::fs::remove_dir_all(&data).unwrap();
        copy_directory(&copy, &data);
        self.instances[step.whom].start_again();
        *clients.is_open.write().unwrap() = true;
    }

    /// The trouble is over: everything settles, and the books balance.
    fn end(&mut self, sent: &Sent, waits_for_rejections: bool, random: &mut Random) {
        self.set(&self.all_well());
        see_each_other(&self.instances);
        let patience = match waits_for_rejections {
            true => REJECTS_WITHIN_OF_EACH * self.processors.len() as u32,
            false => SETTLES_WITHIN,
        };
        let rejected = wait_until_within(patience, "nothing is left", || {
            let most = if waits_for_rejections { 0 } else { sent.order.len() as u64 };
            let outstanding: u64 = self.instances.iter().map(Instance::outstanding).sum();
            if outstanding > most {
                thread::sleep(POLL);
                return Err(format!("{outstanding} outstanding"));
            }
            let [(mut open, mut rejected), (others, also)] =
                self.data.each_ref().map(|data| open_and_rejected(data));
            open.extend(others);
            rejected.extend(also);
            open.retain(|id| waits_for_rejections || !is_poison(id));
            if open.is_empty() {
                return Ok(rejected);
            }
            thread::sleep(POLL);
            let told = self.instances.each_ref().map(|instance| instance.galo.stderr());
            Err(format!("{open:?}\n{}\n{}", told[0], told[1]))
        });
        assert!(rejected.iter().all(|id| is_poison(id)), "only poison is: {rejected:?}");
        // For a moment after a start nobody knows what became of the poison of the process before.
        for instance in &self.instances {
            wait_until_within(PATIENCE, "the totals are known", || {
                let answer = instance.get("/payments-summary");
                if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
            });
        }
        self.assert_books_balance(sent, random);
        if waits_for_rejections {
            let mut poison = sent.accepted.iter().filter(|id| is_poison(id));
            assert!(poison.all(|id| rejected.contains(id)), "{rejected:?}");
        }
        assert!(sent.accepted.len() > 20, "there was load: {}", sent.accepted.len());
    }

    fn assert_books_balance(&mut self, sent: &Sent, random: &mut Random) {
        let books: Vec<_> = self.processors.iter_mut().map(Processor::books).collect();
        let booked: HashSet<&str> = books.iter().flatten().map(|row: &Booking| &*row.id).collect();
        // What was not answered may be paid or not; but not twice, and not another amount.
        let held = |(id, _): &(&String, &i128)| {
            !is_poison(id) && (sent.accepted.contains(*id) || booked.contains(id.as_str()))
        };
        let due = sent.cents.iter().filter(held).map(|(id, cents)| (id.clone(), *cents)).collect();
        let names: Vec<_> = self.lineup.iter().map(|entry| &entry.name).collect();
        let books = assert_books_are(&due, &names, &mut self.processors, &self.instances);
        for (entry, rows) in self.lineup.iter().zip(&books) {
            let strange: Vec<_> = rows.iter().filter(|row| !entry.takes(row.cents)).collect();
            assert!(strange.is_empty(), "its limits allow no such amounts: {entry:?} {strange:?}");
        }
        assert_windows_are(random, WINDOWS, &names, &books, &self.instances);
    }
}

fn is_poison(id: &str) -> bool {
    id.contains(POISON)
}

/// The rule by which a processor refuses poison.
fn refusal(api: Api, random: &mut Random) -> String {
    let (statuses, body) = api.refusals();
    let status = random.pick(statuses);
    format!(r#"{{"call":"pay","ids":"{POISON}","status":{status},"body":"{body}"}}"#)
}

/// Where each is to be reached, by its API.
fn addresses(
    lineup: &[Entry],
    processors: &[Processor],
    fronts: &mut Vec<Front>,
) -> Vec<SocketAddr> {
    let mut address = |(entry, processor): (&Entry, &Processor)| match entry.api {
        Api::Contest | Api::Described => processor.address,
        Api::Idempotent => {
            let front = Front::start(processor.address);
            let address = front.address;
            fronts.push(front);
            address
        }
    };
    lineup.iter().zip(processors).map(&mut address).collect()
}

/// Where the names point to.
fn table(switch: &Switch) -> [(&'static str, Ipv4Addr); 2] {
    let [mut first, mut second] = switch.addresses.map(|address| match address.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("they are of IPv4"),
    });
    if switch.is_swapped {
        std::mem::swap(&mut first, &mut second);
    }
    [(NAMES[0], first), (NAMES[1], second)]
}

fn copy_directory(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    // A file may be gone by the time its turn comes: that copy is not sound, and is made again.
    let _ = Command::new("cp").arg("-a").arg(from.as_ref()).arg(to.as_ref()).output();
}

fn play(seed: u64) {
    let mut random = Random(seed ^ 0x5701);
    let (weather, count) = Weather::ALL[seed as usize % Weather::ALL.len()];
    let lineup = match count {
        2 => lineup::contest(),
        count => lineup::draw(count, &mut random),
    };
    let steps = Step::all(weather, count, &mut random);
    let story = Story { seed, weather, lineup: lineup.clone(), steps };
    let Some(mut storm) = Storm::new(weather, lineup, &mut random) else { return };
    let entries = storm.instances.each_ref().map(|instance| instance.entry);
    let clients = Clients::new(entries, TICK, draw_id);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (clients, random) = (&clients, Random(seed << 8 | client));
            scope.spawn(move || clients.send(random));
        }
        // Also if one of the steps fails: the clients must end for the failure to be told.
        let _stop = StopAtEnd(&clients.stop);
        story.steps.iter().for_each(|step| storm.play(weather, step, &clients));
    });
    // It takes a minute and a half of two processors, and some minutes of eight.
    let waits_for_rejections = seed.is_multiple_of(7);
    storm.end(&clients.sent.into_inner().unwrap(), waits_for_rejections, &mut random);
}

#[test]
fn whatever_the_weather_the_books_balance() {
    allow_open_files(OPEN_FILES);
    let at_once = number("GALO_AT_ONCE").map_or(STORMS_AT_ONCE, |count| count as usize);
    play_seeds(SEEDS_BY_DEFAULT, at_once, play);
}
