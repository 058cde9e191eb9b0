//! `galo demo`: the whole system in one command. Two simulated processors and two instances are
//! started as processes of this same executable; clients, story, audits and score are played from
//! in here, over the same sockets that anybody else would use.
//!
//! | file | what lives here |
//! | --- | --- |
//! | `stages.rs` | what the processors go through: the demo's story, both contests |
//! | `client.rs` | one connection to one server |
//! | `sheet.rs` | the contest's score sheet as text |
//! | `status.rs` | the line a second |
//! | `load.rs` | the clients |
//! | `referee.rs` | set-up, stages, audits, totals |
//! | `contest.rs` | a contest |
//! | `children.rs` | processes |
//! | `system.rs` | which processes, and where they listen |
//!
//! It takes nothing of the servers' insides; what it says of them they have told over HTTP.

mod children;
mod client;
mod contest;
mod load;
mod referee;
mod sheet;
mod stages;
mod status;
mod system;

use crate::base::clock::{self, Moment};
use crate::base::money::Fee;
use crate::net::runtime::Driver;
use crate::payments::{Processor, Totals};
use crate::tools::dice::Dice;
use crate::tools::text::{self, grouped, money, percent, say, say_aside};
use children::Child;
pub use children::die_with_parent;
use client::{Call, Client};
use contest::Played;
use load::{Load, sleep_until};
use referee::{Answers, Referee};
use signal_hook::consts::{SIGINT, SIGTERM};
use stages::{Contest, WELL};
use status::Seen;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use system::Places;

/// The whole system on this machine: two processors, two instances, one entry, until Ctrl-C
///
/// Whatever the demo does not set itself, its processes take from the environment as always, but
/// for a journal, which they do without: GALO_PATIENCE=50ms galo demo --contest preview
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// The entry, shared by both instances. Any port may be 0: a free one is taken
    #[arg(long, env = "GALO_DEMO_PORT", default_value_t = 9999)]
    pub port: u16,

    /// The two processors, default and fallback
    #[arg(long, env = "GALO_DEMO_PROCESSOR_PORTS", value_name = "PORT,PORT",
        default_value = "8001,8002", value_parser = parse_ports)]
    pub processor_ports: Ports,

    /// The two instances' ports for each other and for GET /metrics
    #[arg(long, env = "GALO_DEMO_PEER_PORTS", value_name = "PORT,PORT",
        default_value = "9101,9102", value_parser = parse_ports)]
    pub peer_ports: Ports,

    /// The two instances' ports for who looks at them: a page
    #[arg(long, env = "GALO_DEMO_ADMIN_PORTS", value_name = "PORT,PORT",
        default_value = "9201,9202", value_parser = parse_ports)]
    pub admin_ports: Ports,

    /// Payments a second that the demo makes itself; 0 for none
    #[arg(long, env = "GALO_DEMO_RATE", default_value_t = 200, conflicts_with = "contest",
        value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub rate: u32,

    /// Play this contest's load, stages and audits, print its score sheet, and end
    #[arg(long, env = "GALO_DEMO_CONTEST", value_enum)]
    pub contest: Option<ContestName>,

    /// Divide the contest's timetable by this; the score is then not comparable
    #[arg(long, env = "GALO_DEMO_SPEED", default_value_t = 1, requires = "contest",
        value_parser = clap::value_parser!(u32).range(1..=60))]
    pub speed: u32,

    /// Show what the processors and instances log
    #[arg(long, short, env = "GALO_DEMO_VERBOSE")]
    pub verbose: bool,
}

/// Which contest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ContestName {
    /// 60 s, 550 users
    Preview,
    /// 300 s, 603 users
    Final,
}

/// Two ports; a type, because clap takes an array for a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports([u16; 2]);

fn parse_ports(text: &str) -> Result<Ports, String> {
    const WRONG: &str = "it must be two ports, such as 8001,8002";
    let (first, second) = text.split_once(',').ok_or(WRONG)?;
    let port = |text: &str| text.trim().parse().map_err(|_| WRONG);
    Ok(Ports([port(first)?, port(second)?]))
}

/// How long the system may take until the entry answers.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long payments may take to settle once the load has ended and the processors are well.
const SETTLE_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// The names of the columns are repeated after so many lines.
const STATUS_HEAD_EVERY: u64 = 20;

/// Runs the demo until it is told to stop, a child dies, or the contest is over.
///
/// # Errors
/// If the system cannot be started, for example because a port is in use: one clear line.
pub fn run(args: &DemoArgs) -> Result<ExitCode, String> {
    let stop = Arc::new(AtomicBool::new(false));
    watch_for_signals(&stop)?;
    let places = Places::find(args)?;
    let contest = args.contest.map(|name| match name {
        ContestName::Preview => &stages::PREVIEW,
        ContestName::Final => &stages::FINAL,
    });
    let token = system::token()?;
    let dice = Dice::new().map_err(|error| format!("no random numbers: {error}"))?;
    let fees = contest.map_or(stages::STORY_FEES, |contest| contest.fees);
    let mut demo = Demo {
        places,
        fees,
        contest,
        speed: args.speed,
        rate: args.rate,
        children: system::start(&places, &token, fees, contest.is_some(), args.verbose)?,
        token,
        stop,
        died: false,
    };
    let _writer = text::start_writer().map_err(|error| format!("no thread: {error}"))?;
    demo.introduce();
    // On this thread, which the children's lives depend on.
    let good = Driver::detect(1)
        .block_on(demo.play(dice))
        .map_err(|error| format!("no event loop: {error}"))?;
    let ended_well = demo.stop_children();
    Ok(if good && ended_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn watch_for_signals(flag: &Arc<AtomicBool>) -> Result<(), String> {
    [SIGINT, SIGTERM].into_iter().try_for_each(|signal| {
        let watched = signal_hook::flag::register(signal, flag.clone());
        watched.map(drop).map_err(|error| format!("cannot watch for signals: {error}"))
    })
}

/// Why the load ended.
enum End {
    Asked,
    Died,
    /// It could not go on, for this reason.
    Failed(String),
    Played(Box<Played>),
}

struct Demo {
    places: Places,
    /// Opens the admin doors.
    token: String,
    fees: [Fee; 2],
    contest: Option<&'static Contest>,
    speed: u32,
    rate: u32,
    children: Vec<Child>,
    stop: Arc<AtomicBool>,
    /// A child's death has been seen and told.
    died: bool,
}

impl Demo {
    fn introduce(&self) {
        let Places { entry, processors, peers, admins } = self.places;
        say("galo demo: two processors, two instances, one entry\n");
        for ((child, address), fee) in self.children.iter().zip(processors).zip(self.fees) {
            let (name, id, fee) = (child.name, child.id(), percent(fee));
            say(format_args!("  {name:<20} http://{address:<22} process {id:<9} fee {fee}"));
        }
        for (child, peer) in self.children[2..].iter().zip(peers) {
            let (name, id) = (child.name, child.id());
            say(format_args!("  {name:<20} http://{peer:<22} process {id:<9} GET /metrics"));
        }
        say(format_args!("  {:<20} http://{entry:<22} both instances share it", "entry"));
        let page = format!("http://{}/#token={}", admins[0], self.token);
        say(format_args!("\nSee it in a browser: {page}"));
        if self.contest.is_some() {
            return say("\nLeave the entry alone: payments of others spoil the score.\n");
        }
        let payment = concat!(
            r#"{\"correlationId\":\"$(cat /proc/sys/kernel/random/uuid)\","#,
            r#"\"amount\":19.90}"#
        );
        say("\nTry it from another terminal; Ctrl-C here ends it all:\n");
        say(format_args!("  curl -i http://{entry}/payments -d \"{payment}\""));
        say(format_args!("  curl http://{entry}/payments-summary\n"));
    }

    /// Everything from the first request to the last. Whether all was well.
    async fn play(&mut self, dice: Dice) -> bool {
        let Places { entry, processors, .. } = self.places;
        let amount = self.contest.map_or(stages::STORY_AMOUNT, |contest| contest.amount);
        let load = Rc::new(Load::new(entry, amount, dice, self.contest.is_some()));
        let (places, fees, speed, rate) = (self.places, self.fees, self.speed, self.rate);
        let contest = self.contest;
        let session = {
            let load = load.clone();
            async move {
                if !is_ready(entry).await {
                    return End::Failed("the entry does not answer".into());
                }
                let begin = clock::moment();
                monoio::spawn(tell_status(load.clone(), places.peers, fees, begin));
                let played = match contest {
                    Some(contest) => {
                        let played = contest::play(load, places, contest, speed, begin).await;
                        played.map(|played| End::Played(Box::new(played)))
                    }
                    None => tell_story(load, places, rate, begin).await,
                };
                played.unwrap_or_else(End::Failed)
            }
        };
        let end = monoio::select! {
            end = self.watch() => end,
            end = session => end,
        };
        load.stop();
        if matches!(end, End::Asked) {
            say("\nstopping; once more ends at once");
            // From now on the flag means: hurry.
            self.stop.store(false, Ordering::Relaxed);
        }
        load.finish().await;
        let mut referee = Referee::new(load.clone(), processors, entry);
        let answers = self.settle(&mut referee).await;
        match end {
            End::Played(played) => {
                let good = contest::judge(*played, self.places);
                self.tell_costs();
                good
            }
            End::Asked => {
                tell_totals(&answers);
                if contest.is_some() {
                    say("the contest was broken off: no score");
                }
                answers.agree() && contest.is_none()
            }
            End::Died => {
                tell_totals(&answers);
                false
            }
            End::Failed(reason) => {
                say_aside(format_args!("galo: {reason}"));
                tell_totals(&answers);
                false
            }
        }
    }

    /// Waits for a signal, the death of a child, or the end of the terminal.
    async fn watch(&mut self) -> End {
        loop {
            if self.stop.load(Ordering::Relaxed) || text::is_unread() {
                return End::Asked;
            }
            if self.tell_deaths() {
                return End::Died;
            }
            monoio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether any child has died; says which, and what it logged last.
    fn tell_deaths(&mut self) -> bool {
        for child in &mut self.children {
            if let Some(status) = child.ended() {
                self.died = true;
                let (name, lines) = (child.name, child.last_lines());
                say_aside(format_args!("galo: {name} has died ({status})\n{lines}"));
            }
        }
        self.died
    }

    /// Makes the processors well and waits until what was accepted is settled, as far as that goes.
    async fn settle(&mut self, referee: &mut Referee) -> Answers {
        // A dead processor cannot be made well; the totals will show it.
        let _ = referee.set(WELL).await;
        let give_up_at = clock::moment() + SETTLE_PATIENCE;
        loop {
            let mut peers = self.places.peers.map(Client::new);
            let seen = look(&mut peers).await;
            let answers = referee.ask_all("").await;
            let is_settled = seen.instances == 2 && seen.outstanding == 0 && answers.agree();
            let cannot_be = self.children.iter_mut().any(|child| child.ended().is_some());
            let hurry = self.stop.load(Ordering::Relaxed);
            if is_settled || cannot_be || hurry || clock::moment() >= give_up_at {
                return answers;
            }
            monoio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// CPU time and memory of each process since its start.
    fn tell_costs(&self) {
        say(format_args!("\n  {:<20}{:>10}{:>14}", "process", "CPU s", "peak RSS MiB"));
        for child in &self.children {
            let Some(cost) = child.cost() else { continue };
            let (cpu, rss) = (cost.cpu_hundredths_s, cost.rss_peak_kib);
            let cpu = format!("{}.{:02}", cpu / 100, cpu % 100);
            let rss = format!("{}.{}", rss / 1_024, rss % 1_024 * 10 / 1_024);
            say(format_args!("  {:<20}{cpu:>10}{rss:>14}", child.name));
        }
    }

    /// Ends the instances, then the processors. Whether all ended as they should.
    fn stop_children(&mut self) -> bool {
        let mut well = !self.died && !self.tell_deaths();
        let (processors, instances) = self.children.split_at_mut(2);
        for children in [instances, processors] {
            children.iter_mut().for_each(Child::tell_to_end);
            for child in children {
                let status = child.end(&self.stop);
                if well && !status.is_some_and(|status| status.success()) {
                    let lines = child.last_lines();
                    say_aside(format_args!("galo: {} did not end well\n{lines}", child.name));
                    well = false;
                }
            }
        }
        well
    }
}

/// Waits until the entry answers a summary, which takes both instances.
async fn is_ready(entry: SocketAddr) -> bool {
    let mut client = Client::new(entry);
    let give_up_at = clock::moment() + READY_PATIENCE;
    while clock::moment() < give_up_at {
        let call = Call { method: "GET", path: "/payments-summary", body: "" };
        if client.call(call).await.is_some_and(|reply| reply.status == 200) {
            return true;
        }
        monoio::time::sleep(LOOK_EVERY).await;
    }
    false
}

/// A modest load, while the processors go through the story again and again.
async fn tell_story(
    load: Rc<Load>,
    places: Places,
    rate: u32,
    begin: Moment,
) -> Result<End, String> {
    if rate > 0 {
        load.run_at_rate(rate);
    }
    let mut referee = Referee::new(load, places.processors, places.entry);
    let mut chapter = begin;
    loop {
        referee.play(stages::STORY, chapter, 1).await?;
        chapter = chapter + Duration::from_secs(stages::STORY_S.into());
    }
}

/// Prints the line a second until the load ends.
async fn tell_status(load: Rc<Load>, peers: [SocketAddr; 2], fees: [Fee; 2], begin: Moment) {
    let mut peers = peers.map(Client::new);
    let mut before = Seen::default();
    for line in 0_u64.. {
        let at = STATUS_EVERY * (line as u32 + 1);
        sleep_until(begin + at).await;
        if load.is_stopped() {
            return;
        }
        let seen = look(&mut peers).await;
        if line % STATUS_HEAD_EVERY == 0 {
            say(status::head());
        }
        say(seen.line(at, fees, &before, &load.take_last_second()));
        before = seen;
    }
}

/// What the instances say of themselves now. One that does not answer adds nothing.
async fn look(peers: &mut [Client; 2]) -> Seen {
    let mut seen = Seen::default();
    for peer in peers {
        let call = Call { method: "GET", path: "/metrics", body: "" };
        if let Some(reply) = peer.call(call).await {
            seen.add(&String::from_utf8_lossy(&reply.body));
        }
    }
    seen
}

/// What the processors hold, and what the instances say.
fn tell_totals(answers: &Answers) {
    say(format_args!(
        "\n{:<12}{:>14}{:>18}{:>20}{:>18}",
        "", "it holds", "", "the instances say", ""
    ));
    for (index, which) in Processor::ALL.into_iter().enumerate() {
        let columns = |totals: Option<Totals>| {
            totals.map_or(["?".into(), "?".into()], |totals| {
                [grouped(totals.count), money(totals.amount.0)]
            })
        };
        let [held, held_money] = columns(answers.processors[index]);
        let [said, said_money] = columns(answers.backend.map(|said| said[index]));
        let name = which.name();
        say(format_args!("{name:<12}{held:>14}{held_money:>18}{said:>20}{said_money:>18}"));
    }
    say(match (answers.agree(), answers.backend) {
        (true, _) => "the books agree, to the cent",
        (false, Some(_)) => "the books DIFFER",
        (false, None) => "the instances cannot tell: a summary takes both of them",
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_in_pairs() {
        assert_eq!(parse_ports("8001,8002"), Ok(Ports([8001, 8002])));
        assert_eq!(parse_ports("0, 0"), Ok(Ports([0, 0])));
        for wrong in ["", "8001", "8001,", "1,2,3", "8001,99999", "a,b"] {
            assert!(parse_ports(wrong).is_err(), "{wrong}");
        }
    }
}
