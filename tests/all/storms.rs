//! The weather of `membership/simulation.rs` on real processes: a pair under load with journals,
//! whose processors answer anything, fail one after the other, change addresses, while disks stand
//! still, instances are killed, and an old copy of a journal is put back. Some payments are poison,
//! which both processors refuse for ever.
//!
//! In the end each payment that was promised is in the books of exactly one processor, or it is poison
//! and rejected; nothing else is outstanding; and the summaries of both instances say what the
//! processors' books say, as a whole and by windows.
//!
//! A seed decides the kind of the storm, its steps and the payments; what the kernel makes of the
//! timing is its own, so that a seed that fails may have to be run more than once.
//!
//! `cargo test` runs a few fixed seeds. `GALO_SEEDS=1000 cargo test --test all storms::` runs the
//! seeds 1 to 1000, `GALO_SEED=7` the seventh. `GALO_AT_ONCE=12` plays so many at once.

use crate::support::clients::{Clients, Sent};
use crate::support::journals::{Disk, Scratch, journal, open_and_rejected};
use crate::support::names::{Hosts, Switch};
use crate::support::seeds::{StopAtEnd, number, play_seeds};
use crate::support::system::{
    Booking, CONTEST, Instance, Processor, Random, addresses, assert_books_are, assert_windows_are,
    pair_seeing, pair_with, see_each_other,
};
use crate::support::{PATIENCE, allow_open_files, wait_until_within};
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

const SEEDS_BY_DEFAULT: u64 = 10;
const STORMS_AT_ONCE: usize = 10;
const CLIENTS: u64 = 3;
const TICK: Duration = Duration::from_millis(20);
const WINDOWS: usize = 20;
/// The switches have both ends of each connection to a processor.
const OPEN_FILES: u32 = 8_192;
/// Refusals are looked at again for seconds before they are believed, three by each processor.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);
const REJECTS_WITHIN: Duration = Duration::from_secs(180);
/// Between two looks at the journals, which are long.
const POLL: Duration = Duration::from_millis(100);
/// An address that was looked up is not used for longer than this (`net/names.rs`).
const NAMES_HOLD: Duration = Duration::from_millis(1_300);

const FLAGS: [&str; 12] = [
    "--queue-capacity",
    "10000",
    "--attempt-latency-max",
    "130ms",
    "--patience",
    "10ms",
    "--processor-timeout",
    "500ms",
    "--connect-timeout",
    "200ms",
    // Longer than twice what any request is under way here.
    "--adopt-after",
    "1500ms",
];

/// In the ids of what both processors refuse for ever.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Processors answer anything.
    Odd,
    /// The default is down, then the fallback, then both.
    Outages,
    /// Processors exchange their addresses.
    Swaps,
    /// A disk stands still.
    SlowDisk,
    /// A journal is put back as it was a while ago.
    OldCopy,
}

impl Weather {
    const ALL: [Weather; 5] =
        [Weather::Odd, Weather::Outages, Weather::Swaps, Weather::SlowDisk, Weather::OldCopy];
}

/// What befalls the system next, and for how long it is left alone after it.
#[derive(Debug)]
struct Step {
    /// Per processor, what it does from here on: rules of a script, or a fault, or nothing.
    moods: [Mood; 2],
    killed: [bool; 2],
    away: Duration,
    /// What is particular to the weather happens to this processor, or instance.
    whom: usize,
    lasts: Duration,
}

#[derive(Clone, Debug)]
enum Mood {
    Well,
    Failing,
    Fault(&'static str),
    Script(String),
}

const WELL: [Mood; 2] = [Mood::Well, Mood::Well];

const FAULTS: [&str; 5] =
    ["hang-after-insert", "reset-before-insert", "reset-after-insert", "insert-late", "stall"];

impl Mood {
    fn down(random: &mut Random) -> Mood {
        match random.below(3) {
            0 => Mood::Fault(random.pick::<&str>(&FAULTS)),
            _ => Mood::Failing,
        }
    }

    fn any(random: &mut Random) -> Mood {
        match random.below(4) {
            0 => Mood::Failing,
            1 => Mood::Fault(random.pick::<&str>(&FAULTS)),
            _ => Mood::Well,
        }
    }

    fn odd(random: &mut Random) -> Mood {
        let rules: Vec<String> = (0..1 + random.below(3)).map(|_| odd_rule(random)).collect();
        Mood::Script(rules.join(","))
    }
}

/// Anything that is not a lie: what is said to be booked or absent is so.
fn odd_rule(random: &mut Random) -> String {
    let one_in = random.pick(&[1, 1, 2, 3, 10]);
    let delay_ms = *random.pick(&[0, 0, 0, 50, 200]);
    let rest = format!(r#""oneIn":{one_in},"delayMs":{delay_ms}"#);
    let body =
        random.pick(&["", "{}", "error", "<html>please log in</html>", "[7]", "{\\\"a\\\":"]);
    match random.below(6) {
        0 => {
            let status = random.pick(&[200, 202, 204, 302, 403, 429, 500, 503]);
            format!(r#"{{"call":"look","status":{status},"body":"<{body}",{rest}}}"#)
        }
        1 => format!(r#"{{"call":"look",{rest}}}"#),
        2 => {
            let wrong = r#"{\"failing\":true,\"minResponseTime\":5000}"#;
            let body = *random.pick(&[wrong, "{}", "error"]);
            format!(r#"{{"call":"health","status":200,"body":"{body}",{rest}}}"#)
        }
        3 => format!(r#"{{"call":"pay","booked":{},{rest}}}"#, random.one_in(2)),
        _ => {
            let status = *random.pick(&[
                200, 201, 202, 204, 302, 304, 400, 401, 403, 404, 408, 409, 413, 422, 423, 425,
                429, 499, 500, 502, 503, 504, 599, 999,
            ]);
            let says_not_booked = status == 429 || (status == 500 && body.is_empty());
            let booked = !says_not_booked && random.one_in(2);
            let cut = match random.below(6) {
                0 if !says_not_booked => format!(r#","cutAt":{}"#, random.below(60)),
                _ => String::new(),
            };
            format!(
                r#"{{"call":"pay","status":{status},"booked":{booked},"body":"{body}",{rest}{cut}}}"#
            )
        }
    }
}

impl Step {
    fn random(weather: Weather, number: usize, random: &mut Random) -> Step {
        let moods = match weather {
            Weather::Odd => [Mood::odd(random), Mood::odd(random)],
            // The default, then the fallback, then both, and again.
            Weather::Outages => [0, 1].map(|index| match number % 3 == index || number % 3 == 2 {
                true => Mood::down(random),
                false => Mood::Well,
            }),
            _ => [Mood::any(random), Mood::any(random)],
        };
        // The interval of a copy is for that alone.
        let killed = match weather {
            Weather::OldCopy => [false; 2],
            _ => *random.pick(&[[false; 2], [true, false], [false, true], [true, true]]),
        };
        Step {
            moods,
            killed,
            away: Duration::from_millis(*random.pick(&[0, 50, 250, 800, 2_000])),
            whom: random.below(2) as usize,
            lasts: Duration::from_millis(100 + random.below(600)),
        }
    }
}

/// Says on failure what was played, and how to play it again.
struct Story {
    seed: u64,
    weather: Weather,
    steps: Vec<Step>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if thread::panicking() {
            let Story { seed, weather, steps } = self;
            let steps: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            eprintln!(
                "seed {seed} failed, {weather:?}:\n{steps}\
                 replay: GALO_SEED={seed} cargo test --test all storms::"
            );
        }
    }
}

struct Storm {
    processors: [Processor; 2],
    instances: [Instance; 2],
    data: [String; 2],
    /// Under which status each refuses poison.
    refusals: [u16; 2],
    names: Option<(Hosts, Switch)>,
    disks: Vec<Disk>,
    scratch: Scratch,
}

impl Storm {
    /// `None` where what it needs is not permitted.
    fn new(weather: Weather, random: &mut Random) -> Option<Storm> {
        let scratch = Scratch::new();
        let mut disks = Vec::new();
        let data = match weather {
            Weather::SlowDisk => {
                disks.extend([Disk::new()?, Disk::new()?]);
                [disks[0].join("journal"), disks[1].join("journal")]
            }
            _ => ["one", "other"].map(|name| scratch.join(name)),
        };
        let processors = Processor::both();
        let durability = *random.pick(&["process", "disk"]);
        let args = data
            .each_ref()
            .map(|data| [&FLAGS[..], &["--data", data, "--durability", durability]].concat());
        let args = args.each_ref().map(Vec::as_slice);
        let mut names = None;
        let instances = match weather {
            Weather::Swaps => {
                let switch = Switch::new(addresses(&processors));
                let hosts = Hosts::new(&table(&switch))?;
                let authorities =
                    NAMES.map(|name| format!("{name}:{}", switch.addresses[0].port()));
                let instances = pair_seeing(&hosts, authorities, args);
                names = Some((hosts, switch));
                instances
            }
            _ => pair_with(addresses(&processors), args),
        };
        let refusals = [0, 1].map(|_| *random.pick(&[400, 401, 404, 413, 422]));
        let mut storm = Storm { processors, instances, data, refusals, names, disks, scratch };
        storm.set(&WELL);
        Some(storm)
    }

    /// What each processor does from here on. Poison it refuses always.
    fn set(&mut self, moods: &[Mood; 2]) {
        for ((processor, mood), status) in self.processors.iter_mut().zip(moods).zip(self.refusals)
        {
            let refusal = format!(r#"{{"call":"pay","ids":"{POISON}","status":{status}}}"#);
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
        switch.set(addresses(&self.processors));
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
        self.set(&[Mood::Well, Mood::Failing]);
        thread::sleep(step.away.min(step.lasts));
        self.instances[step.whom].kill();
        std::fs::remove_dir_all(&data).unwrap();
        copy_directory(&copy, &data);
        self.instances[step.whom].start_again();
        *clients.is_open.write().unwrap() = true;
    }

    /// The trouble is over: everything settles, and the books balance.
    fn end(&mut self, sent: &Sent, waits_for_rejections: bool, random: &mut Random) {
        self.set(&WELL);
        see_each_other(&self.instances);
        let is_poison = |id: &str| id.contains(POISON);
        let patience = if waits_for_rejections { REJECTS_WITHIN } else { SETTLES_WITHIN };
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
        let books = [0, 1].map(|index: usize| self.processors[index].books());
        let booked: HashSet<&str> = books.iter().flatten().map(|row: &Booking| &*row.id).collect();
        // What was not answered may be paid or not; but not twice, and not another amount.
        let held = |(id, _): &(&String, &i128)| {
            !is_poison(id) && (sent.accepted.contains(*id) || booked.contains(id.as_str()))
        };
        let due = sent.cents.iter().filter(held).map(|(id, cents)| (id.clone(), *cents)).collect();
        let books = assert_books_are(&due, &CONTEST, &mut self.processors, &self.instances);
        assert_windows_are(random, WINDOWS, &CONTEST, &books, &self.instances);
        if waits_for_rejections {
            let mut poison = sent.accepted.iter().filter(|id| is_poison(id));
            assert!(poison.all(|id| rejected.contains(id)), "{rejected:?}");
        }
        assert!(sent.accepted.len() > 20, "there was load: {}", sent.accepted.len());
    }
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
    let weather = Weather::ALL[seed as usize % Weather::ALL.len()];
    let steps = 3 + random.below(3) as usize;
    let steps = (0..steps).map(|number| Step::random(weather, number, &mut random)).collect();
    let story = Story { seed, weather, steps };
    let Some(mut storm) = Storm::new(weather, &mut random) else { return };
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
    // It takes a minute and a half.
    let waits_for_rejections = seed.is_multiple_of(7);
    storm.end(&clients.sent.into_inner().unwrap(), waits_for_rejections, &mut random);
}

#[test]
fn whatever_the_weather_the_books_balance() {
    allow_open_files(OPEN_FILES);
    let at_once = number("GALO_AT_ONCE").map_or(STORMS_AT_ONCE, |count| count as usize);
    play_seeds(SEEDS_BY_DEFAULT, at_once, play);
}
