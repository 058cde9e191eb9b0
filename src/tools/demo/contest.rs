//! One contest from its set-up to its score sheet, and its judgement, which is that of `galo judge`.
//!
//! The same contest as perf/contest plays with k6, with two differences: there is no balancer
//! between the clients and the instances, so latencies are shorter, and a bonus higher; and ids
//! are random.

use super::client::ADMIN_TOKEN;
use super::load::Load;
use super::referee::Referee;
use super::sheet::{Latency, Sheet};
use super::stages::{Contest, WELL};
use super::system::Places;
use crate::base::clock::Moment;
use crate::tools::ask::{self, Server};
use crate::tools::compare::Known;
use crate::tools::dice::Dice;
use crate::tools::judge::score::{Excused, Run};
use crate::tools::judge::{self, Servers};
use crate::tools::text::say;
use std::rc::Rc;
use std::time::Duration;

/// A contest that is over.
pub struct Played {
    /// As far as it is known without the books.
    pub sheet: Sheet,
    pub posted: Vec<Known>,
}

/// A contest from its set-up to the reading of the totals.
pub async fn play(
    load: Rc<Load>,
    places: Places,
    contest: &'static Contest,
    speed: u32,
    begin: Moment,
) -> Result<Played, String> {
    let referee = || Referee::new(load.clone(), places.processors, places.entry);
    let (mut of_stages, mut of_audits, mut at_end) = (referee(), referee(), referee());
    at_end.purge().await?;
    at_end.set(WELL).await?;
    let duration = Duration::from_secs(contest.duration_s.into()) / speed;
    let (users, stages, audits) = monoio::join!(
        load.run_users(contest.users_max, begin, duration),
        of_stages.play(contest.stages, begin, speed),
        of_audits.audit(contest, begin + duration, speed),
    );
    let () = users;
    stages?;
    // At once: what is still queued earns nothing.
    let answers = at_end.ask_all("").await;
    load.stop();
    // Taken here: what is asked from now on is no part of the run.
    let record = load.take_record();
    let (latency, p99_hundredths_ms) = Latency::of(record.durations_us);
    let run = Run {
        fees: contest.fees,
        posts: load.posts(),
        audits,
        held: answers.held(),
        said: answers.backend,
        p99_hundredths_ms,
        hurried: speed != 1,
    };
    let sheet = Sheet { contest, speed, run, latency, duplicates: 0 };
    Ok(Played { sheet, posted: record.posted })
}

/// Completes the sheet with what the books say, prints it, and says what was wrong. Whether the
/// run was good, and all that was said.
pub fn judge(played: Played, places: Places) -> (bool, String) {
    let Played { mut sheet, posted } = played;
    let mut found = sheet.run.findings(Excused::default());
    let processor =
        |address| ask::Processor { server: Server::at(address), token: ADMIN_TOKEN.to_owned() };
    let servers =
        Servers { backend: Server::at(places.entry), processors: places.processors.map(processor) };
    let dice = Dice::new().map_err(|error| format!("no random numbers: {error}"));
    // Blocks the event loop, on which nothing else is left to do.
    match dice.and_then(|mut dice| servers.judge(&posted, judge::WINDOWS, &mut dice)) {
        Ok(judged) => {
            sheet.duplicates = judged.duplicates();
            found.extend(judged.findings());
        }
        Err(reason) => found.push(format!("no books: {reason}")),
    }
    let mut text = sheet.to_string();
    for finding in &found {
        text += &format!("  WRONG: {finding}\n");
    }
    if found.is_empty() {
        text +=
            "  every accepted payment is held by exactly one processor, and every summary agrees\n";
    }
    say(format_args!("\n{}", text.trim_end()));
    (found.is_empty(), text)
}
