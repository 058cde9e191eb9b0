//! What befalls the processors and the instances of a storm, step by step: drawn here, and done by
//! [`super`].

use crate::support::system::Random;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Processors answer anything.
    Odd,
    /// Processors are down one after the other, then all together.
    Outages,
    /// Two processors exchange their addresses.
    Swaps,
    /// A disk stands still.
    SlowDisk,
    /// A journal is put back as it was a while ago.
    OldCopy,
}

impl Weather {
    /// Each with the number of processors that it is played with, in such an order that a few seeds
    /// have something of everything. Names are exchanged between the contest's two only.
    pub const ALL: [(Weather, usize); 13] = [
        (Weather::Odd, 2),
        (Weather::Outages, 3),
        (Weather::Swaps, 2),
        (Weather::SlowDisk, 8),
        (Weather::OldCopy, 3),
        (Weather::Outages, 8),
        (Weather::SlowDisk, 2),
        (Weather::Odd, 3),
        (Weather::OldCopy, 2),
        (Weather::Outages, 2),
        (Weather::SlowDisk, 3),
        (Weather::OldCopy, 8),
        (Weather::Odd, 8),
    ];
}

/// What befalls the system next, and for how long it is left alone after it.
#[derive(Debug)]
pub struct Step {
    /// Per processor, what it does from here on: rules of a script, or a fault, or nothing.
    pub moods: Vec<Mood>,
    pub killed: [bool; 2],
    pub away: Duration,
    /// What is particular to the weather happens to this instance …
    pub whom: usize,
    /// … and while only this processor takes payments.
    pub taker: usize,
    pub lasts: Duration,
}

#[derive(Clone, Debug)]
pub enum Mood {
    Well,
    Failing,
    Fault(&'static str),
    Script(String),
}

const FAULTS: [&str; 5] =
    ["hang-after-insert", "reset-before-insert", "reset-after-insert", "insert-late", "stall"];
/// So many are down at different times; of more processors some go together.
const OUTAGES: usize = 3;

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

/// As they stand in a text of JSON. The last one is a refusal of one of the APIs.
const BODIES: [&str; 7] = [
    "",
    "{}",
    "error",
    "<html>please log in</html>",
    "[7]",
    "{\\\"a\\\":",
    "{\\\"status\\\":\\\"rejected\\\"}",
];

/// Anything that is not a lie: what is said to be booked or absent is so.
fn odd_rule(random: &mut Random) -> String {
    let one_in = random.pick(&[1, 1, 2, 3, 10]);
    let delay_ms = *random.pick(&[0, 0, 0, 50, 200]);
    let rest = format!(r#""oneIn":{one_in},"delayMs":{delay_ms}"#);
    let body = *random.pick(&BODIES);
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
                200, 201, 202, 204, 302, 304, 400, 401, 402, 403, 404, 408, 409, 413, 422, 423,
                425, 429, 499, 500, 502, 503, 504, 599, 999,
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
    /// The steps of a storm over so many processors.
    pub fn all(weather: Weather, processors: usize, random: &mut Random) -> Vec<Step> {
        // Enough for each outage to have its turn.
        let steps = 1 + processors.min(OUTAGES) + random.below(3) as usize;
        (0..steps).map(|number| Step::random(weather, processors, number, random)).collect()
    }

    fn random(weather: Weather, processors: usize, number: usize, random: &mut Random) -> Step {
        let outages = processors.min(OUTAGES);
        // One after the other, then all, and again.
        let outage = number % (outages + 1);
        let is_down = |index: usize| outage == index % outages || outage == outages;
        // What waits when a copy is made is paid before it is put back: without that it has little to
        // forget.
        let is_idle = weather == Weather::OldCopy && random.one_in(2);
        let mood = |index: usize| match weather {
            Weather::Odd => Mood::odd(random),
            Weather::Outages if !is_down(index) => Mood::Well,
            Weather::Outages => Mood::down(random),
            _ if is_idle => Mood::down(random),
            _ => Mood::any(random),
        };
        let moods = (0..processors).map(mood).collect();
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
            taker: random.below(processors as u64) as usize,
            lasts: Duration::from_millis(100 + random.below(600)),
        }
    }
}
