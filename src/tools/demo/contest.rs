//! One contest from its set-up to its score sheet, and the judgement of the run.
//!
//! The same contest as perf/contest plays with k6, with two differences: there is no balancer
//! between the clients and the instances, so latencies are shorter, and a bonus higher; and ids
//! are random.

use super::books::{self, Fate, Held};
use super::load::{Dice, Load};
use super::referee::{Answers, Referee};
use super::sheet::{Latency, Sheet};
use super::stages::{Contest, WELL};
use super::system::Places;
use super::text::say;
use crate::base::clock::Moment;
use crate::payments::PaymentId;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// A contest that is over.
pub struct Played {
    /// As far as it is known without the books.
    pub sheet: Sheet,
    pub sent: Vec<(PaymentId, Fate)>,
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
    let sheet = Sheet {
        contest,
        speed,
        posts: load.posts(),
        audits,
        held: answers.held(),
        said: answers.backend,
        latency: Latency::of(record.durations_us),
        duplicates: 0,
    };
    Ok(Played { sheet, sent: record.sent })
}

/// Completes the sheet with what the books say, prints it, and says what was wrong. Whether the
/// run was good.
pub async fn judge(
    played: Played,
    referee: &mut Referee,
    processors: [SocketAddr; 2],
    settled: &Answers,
) -> bool {
    let Played { mut sheet, sent } = played;
    let mut found = sheet.findings();
    // Blocks the event loop, on which nothing else is left to do.
    let read = |address| books::read(address).map_err(|error| format!("no books: {error}"));
    match read(processors[0]).and_then(|held| Ok([held, read(processors[1])?])) {
        Ok(held) => {
            let (duplicates, wrong) = books::compare(&sent, sheet.contest.amount, &held);
            sheet.duplicates = duplicates;
            found.extend(wrong);
            found.extend(compare_summaries(&held, referee, settled).await);
        }
        Err(reason) => found.push(reason),
    }
    say(format_args!("\n{sheet}"));
    for finding in &found {
        say(format_args!("  WRONG: {finding}"));
    }
    if found.is_empty() {
        say("  every accepted payment is held by exactly one processor, and every summary agrees");
    }
    found.is_empty()
}

async fn compare_summaries(
    held: &[Vec<Held>; 2],
    referee: &mut Referee,
    settled: &Answers,
) -> Vec<String> {
    let Ok(mut dice) = Dice::new() else { return vec!["no random numbers".into()] };
    let mut wrong = referee.compare_windows(held, &mut dice).await;
    if settled.backend != Some(books::totals(held, Default::default())) {
        wrong.push(format!("the backend says {:?} in the end, the books differ", settled.backend));
    }
    wrong
}
