//! A pair under load whose instances are killed and started again at random moments while the
//! processors fail over: what was answered 2xx is paid once, and the books balance.
//!
//! A seed decides the plan and the payments; what the kernel makes of the timing is its own, so
//! that a seed that fails may have to be run more than once.
//!
//! Even seeds play with `--durability process`, odd ones with `disk`.
//!
//! `cargo test` runs a few fixed seeds. `GALO_SEEDS=1000 cargo test --test all restarts::` runs the seeds
//! 1 to 1000, `GALO_SEED=7` the seventh.

use crate::support::clients::{Clients, Sent};
use crate::support::journals::{Scratch, journal};
use crate::support::seeds::{StopAtEnd, play_seeds};
use crate::support::system::{
    Booking, Instance, Processor, Random, addresses, assert_books_balance, assert_windows_agree,
    pair_with, see_each_other,
};
use std::collections::HashSet;
use std::thread;
use std::time::Duration;

const SEEDS_BY_DEFAULT: u64 = 6;
const RUNS_AT_ONCE: usize = 6;
const KILLS: u64 = 6;
const CLIENTS: u64 = 3;
/// Between two payments of a client.
const TICK: Duration = Duration::from_millis(5);
const WINDOWS: usize = 20;

const FLAGS: [&str; 10] = [
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
];

const FAULTS: [&str; 7] = [
    "none",
    "hang-after-insert",
    "reset-before-insert",
    "reset-after-insert",
    "insert-late",
    "status-500-body-inserted",
    "stall",
];

#[derive(Debug)]
struct Mood {
    delay_ms: u64,
    failing: bool,
    fault: &'static str,
}

/// The processors change, and a while later somebody is killed for a while.
#[derive(Debug)]
struct Step {
    moods: [Mood; 2],
    calm: Duration,
    killed: [bool; 2],
    /// Whether the journals left are looked at.
    checked: bool,
    away: Duration,
    /// The second one comes back first.
    reversed: bool,
}

impl Step {
    fn random(random: &mut Random) -> Step {
        let mood = |random: &mut Random| Mood {
            delay_ms: *random.pick(&[0, 0, 0, 1, 5, 20, 50, 100]),
            failing: random.one_in(4),
            fault: random.pick::<&str>(&FAULTS),
        };
        let moods = [mood(random), mood(random)];
        let killed = *random.pick(&[[true, false], [false, true], [true, true]]);
        Step {
            moods,
            calm: Duration::from_millis(random.below(700)),
            killed,
            checked: random.one_in(4),
            away: Duration::from_millis(*random.pick(&[0, 0, 50, 250, 800])),
            reversed: random.one_in(2),
        }
    }
}

/// Says on failure what was played, and how to play it again.
struct Story {
    seed: u64,
    durability: &'static str,
    steps: Vec<Step>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if thread::panicking() {
            let Story { seed, durability, steps } = self;
            let steps: String = steps.iter().map(|step| format!("  {step:?}\n")).collect();
            eprintln!(
                "seed {seed} failed with {durability}:\n{steps}\
                 replay: GALO_SEED={seed} cargo test --test all restarts::"
            );
        }
    }
}

struct Run {
    processors: [Processor; 2],
    instances: [Instance; 2],
    data: [String; 2],
    _scratch: Scratch,
}

impl Run {
    fn new(durability: &str, args: &[&str]) -> Run {
        let scratch = Scratch::new();
        let data = ["one", "other"].map(|name| scratch.join(name));
        let processors = Processor::both();
        let args = data
            .each_ref()
            .map(|data| [&FLAGS[..], &["--data", data, "--durability", durability], args].concat());
        let instances = pair_with(addresses(&processors), args.each_ref().map(Vec::as_slice));
        Run { processors, instances, data, _scratch: scratch }
    }

    fn play(&mut self, step: &Step) {
        for (processor, mood) in self.processors.iter_mut().zip(&step.moods) {
            processor.set_delay_ms(mood.delay_ms);
            processor.set_failing(mood.failing);
            processor.set_fault(mood.fault, 10);
        }
        thread::sleep(step.calm);
        let killed = (0..2).filter(|index| step.killed[*index]);
        killed.clone().for_each(|index| self.instances[index].kill());
        for index in killed.clone().filter(|_| step.checked) {
            let checked = journal("check", &self.data[index]);
            assert_eq!(checked.status.code(), Some(0), "{checked:?}");
        }
        thread::sleep(step.away);
        let mut again: Vec<usize> = killed.collect();
        if step.reversed {
            again.reverse();
        }
        again.into_iter().for_each(|index| self.instances[index].start_again());
    }

    /// The trouble is over: everything settles, and the books balance.
    fn end(&mut self, sent: &Sent, random: &mut Random) {
        for processor in &mut self.processors {
            processor.set_delay_ms(0);
            processor.set_failing(false);
            processor.set_fault("none", 0);
        }
        see_each_other(&self.instances);
        // What the second one hands over is outstanding at the first one then.
        for _ in 0..2 {
            self.instances.iter().for_each(Instance::settle);
        }
        // What was not answered may be paid or not; but not twice, and not another amount.
        let books = [0, 1].map(|index: usize| self.processors[index].books());
        let booked: HashSet<&str> = books.iter().flatten().map(|row: &Booking| &*row.id).collect();
        let held = |(id, _): &(&String, &i128)| {
            sent.accepted.contains(*id) || booked.contains(id.as_str())
        };
        let due = sent.cents.iter().filter(held).map(|(id, cents)| (id.clone(), *cents)).collect();
        let books = assert_books_balance(&due, &mut self.processors, &self.instances);
        assert_windows_agree(random, WINDOWS, &books, &self.instances);
        assert!(sent.accepted.len() > 50, "there was load: {}", sent.accepted.len());
    }
}

fn play(seed: u64, durability: &'static str) {
    let mut random = Random(seed ^ 0xdead);
    let steps = (0..KILLS).map(|_| Step::random(&mut random)).collect();
    let story = Story { seed, durability, steps };
    // Every third time what is away is soon driven by the other one: longer than any request is
    // under way here, and shorter than some are away.
    let args: &[&str] = if seed.is_multiple_of(3) { &["--adopt-after", "400ms"] } else { &[] };
    let mut run = Run::new(durability, args);
    let entries = run.instances.each_ref().map(|instance| instance.entry);
    let clients = Clients::new(entries, TICK, Random::uuid);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (clients, random) = (&clients, Random(seed << 8 | client));
            scope.spawn(move || clients.send(random));
        }
        // Also if one of the steps fails: the clients must end for the failure to be told.
        let _stop = StopAtEnd(&clients.stop);
        story.steps.iter().for_each(|step| run.play(step));
    });
    run.end(&clients.sent.into_inner().unwrap(), &mut random);
}

#[test]
fn killed_at_random_moments_under_load() {
    // Each seed decides the durability too, by whether it is even, so that a replay is the same.
    play_seeds(SEEDS_BY_DEFAULT, RUNS_AT_ONCE, |seed| {
        play(seed, ["process", "disk"][seed as usize % 2])
    });
}
