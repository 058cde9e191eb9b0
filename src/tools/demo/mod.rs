//! `galo demo`: the whole system in one command. Two simulated processors and two instances are
//! started as processes of this same executable; clients, story, audits and score are played from
//! in here, over the same sockets that anybody else would use.
//!
//! | file | what lives here |
//! | --- | --- |
//! | `args.rs` | the flags |
//! | `story.rs` | what happens in the demo, and the words that go with it |
//! | `crew.rs` | who does it: processors that fail, an instance that is killed |
//! | `till.rs` | a client of the ledger |
//! | `board.rs` | what the demo says of itself, on the terminal and to its page |
//! | `door.rs`, `more.html` | its page, and what the page's buttons do |
//! | `report.rs` | the same page as a file |
//! | `recorded.rs` | `galo report`: such a file of any run that was recorded |
//! | `stages.rs` | what the processors go through in both contests |
//! | `client.rs` | one connection to one server |
//! | `sheet.rs` | the contest's score sheet as text |
//! | `status.rs` | the line a second |
//! | `load.rs` | the clients |
//! | `totals.rs` | how a run without a contest has ended |
//! | `referee.rs` | set-up, stages, audits, totals |
//! | `contest.rs` | a contest |
//! | `children.rs` | processes |
//! | `system.rs` | which processes, where they listen, and where their journals are |
//! | `wire.rs` | what the instances hear each other by, until it is cut |
//!
//! It takes nothing of the servers' insides; what it says of them they have told over HTTP.

mod args;
mod board;
mod children;
mod client;
mod contest;
mod crew;
mod door;
mod load;
mod referee;
pub mod recorded;
mod report;
mod sheet;
mod stages;
mod status;
mod story;
mod system;
mod till;
mod totals;
mod wire;

use crate::base::clock::{self, Moment};
use crate::base::money::Fee;
use crate::net::runtime::Driver;
use crate::tools::dice::Dice;
use crate::tools::text::{self, percent, say, say_aside};
use args::ContestName;
pub use args::DemoArgs;
use board::{Board, Story};
use children::Child;
pub use children::die_with_parent;
use client::{Call, Client};
use contest::Played;
use crew::Crew;
use door::Door;
use load::{Load, sleep_until};
use referee::{Answers, Referee};
use report::Report;
use signal_hook::consts::{SIGINT, SIGTERM};
use stages::Contest;
use status::{Document, Seen};
use std::cell::{Cell, RefCell};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use story::Teller;
use system::{Places, System};
use till::{ACCOUNTS, Counts, Till};
use totals::totals;

/// How long the system may take until the entry answers.
const READY_PATIENCE: Duration = Duration::from_secs(10);
/// How long payments may take to settle once the load has ended and the processors are well.
const SETTLE_PATIENCE: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// The names of the columns are repeated after so many lines.
const STATUS_HEAD_EVERY: u64 = 20;

/// Runs the demo until it is told to stop, a child dies, or the contest or the story is over.
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
    let report = args.report.as_deref().map(Report::to).transpose();
    let report = report.map_err(|error| format!("--report {error}"))?;
    let token = system::token()?;
    let dice = Dice::new().map_err(|error| format!("no random numbers: {error}"))?;
    let fees = contest.map_or(stages::STORY_FEES, |contest| contest.fees);
    let page = TcpListener::bind(places.page)
        .map_err(|error| format!("cannot listen on {}: {error}", places.page))?;
    let system = System::new(places, &token, fees, contest.is_some(), args.verbose)?;
    let amount = contest.map_or(stages::STORY_AMOUNT, |contest| contest.amount);
    let demo = Demo {
        places,
        fees,
        contest,
        speed: args.speed,
        rate: args.rate,
        is_once: args.once,
        crew: Rc::new(Crew::start(system)?),
        board: Rc::new(Board::new(if contest.is_some() { Story::None } else { Story::Playing })),
        load: Rc::new(Load::new(places.entry, amount, dice, contest.is_some())),
        report: RefCell::new(report),
        seen: RefCell::default(),
        counts: Rc::default(),
        token,
        stop,
        died: Cell::default(),
    };
    let demo = Rc::new(demo);
    let _writer = text::start_writer().map_err(|error| format!("no thread: {error}"))?;
    demo.introduce();
    let driver = Driver::detect(1);
    // io_uring waits inside the kernel, and on a non-blocking socket it would not wait at all.
    let on_epoll = matches!(driver, Driver::Epoll(_));
    page.set_nonblocking(on_epoll).map_err(|error| format!("no page: {error}"))?;
    // On this thread, which the children's lives depend on.
    let good = driver
        .block_on(demo.clone().play(page))
        .map_err(|error| format!("no event loop: {error}"))?;
    let ended_well = demo.stop_children();
    // Its tasks are never dropped.
    demo.crew.remove_journals();
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
    /// The story was told once, as was asked for.
    Told,
    /// It could not go on, for this reason.
    Failed(String),
    Played(Box<Played>),
}

struct Demo {
    places: Places,
    /// Opens the admin doors, and the demo's own.
    token: String,
    fees: [Fee; 2],
    contest: Option<&'static Contest>,
    speed: u32,
    rate: u32,
    is_once: bool,
    crew: Rc<Crew>,
    board: Rc<Board>,
    load: Rc<Load>,
    report: RefCell<Option<Report>>,
    /// What the instances said last.
    seen: RefCell<Option<Document>>,
    /// How the ledger's transactions of the demo ended.
    counts: Rc<Cell<Counts>>,
    stop: Arc<AtomicBool>,
    /// A child's death has been seen and told.
    died: Cell<bool>,
}

impl Demo {
    fn introduce(&self) {
        let Places { entry, processors, peers, page, .. } = self.places;
        let children = self.crew.children();
        say("galo demo: two processors, two instances, one entry\n");
        for ((child, address), fee) in children.iter().zip(processors).zip(self.fees) {
            let (name, id, fee) = (child.name, child.id(), percent(fee));
            say(format_args!("  {name:<20} http://{address:<18} process {id:<8} fee {fee}"));
        }
        for (child, peer) in children[2..].iter().zip(peers) {
            let (name, id) = (child.name, child.id());
            say(format_args!("  {name:<20} http://{peer:<18} process {id:<8} GET /metrics"));
        }
        say(format_args!("  {:<20} http://{entry:<18} both instances share it", "entry"));
        say(format_args!("\nSee it in a browser:\n\n  http://{page}/#token={}", self.token));
        if self.contest.is_some() {
            return say("\nLeave the entry alone: payments of others spoil the score.\n");
        }
        let id = r#"\"correlationId\":\"$(cat /proc/sys/kernel/random/uuid)\""#;
        say("\nTry it from another terminal; Ctrl-C here ends it all:\n");
        say(format_args!(
            "  curl -i http://{entry}/payments -d \"{{\\\"amount\\\":19.90,\n    {id}}}\""
        ));
        say(format_args!("  curl http://{entry}/payments-summary"));
        say(format_args!("  curl http://{entry}/clientes/1/extrato\n"));
    }

    /// Everything from the first request to the last. Whether all was well.
    async fn play(self: Rc<Self>, page: TcpListener) -> bool {
        let session = self.clone().begin(page);
        let end = monoio::select! {
            end = self.watch() => end,
            end = session => end,
        };
        self.load.stop();
        // No button does anything from now on.
        self.board.set_story(Story::None);
        if matches!(end, End::Asked) {
            say("\nstopping; once more ends at once");
            // From now on the flag means: hurry.
            self.stop.store(false, Ordering::Relaxed);
        }
        self.load.finish().await;
        let answers = self.settle().await;
        let good = match end {
            End::Played(played) => {
                let (good, sheet) = contest::judge(*played, self.places);
                self.board.end(good, sheet);
                self.tell_costs();
                good
            }
            End::Asked | End::Told => {
                let good = self.tell_totals(&answers).await;
                if self.contest.is_some() {
                    say("the contest was broken off: no score");
                }
                good && self.contest.is_none()
            }
            End::Died => {
                self.tell_totals(&answers).await;
                false
            }
            End::Failed(reason) => {
                say_aside(format_args!("galo: {reason}"));
                self.tell_totals(&answers).await;
                false
            }
        };
        self.write_report().await && good
    }

    /// From the moment when the entry answers to the end of what is to be played.
    async fn begin(self: Rc<Self>, page: TcpListener) -> End {
        let page = match monoio::net::TcpListener::from_std(page) {
            Ok(page) => page,
            Err(error) => return End::Failed(format!("no page: {error}")),
        };
        let Places { entry, processors, .. } = self.places;
        let door = Door {
            places: self.places,
            token: self.token.clone(),
            crew: self.crew.clone(),
            board: self.board.clone(),
            load: self.load.clone(),
        };
        monoio::spawn(Rc::new(door).serve(page));
        if !is_ready(entry).await {
            return End::Failed("the entry does not answer".into());
        }
        let begin = clock::moment();
        monoio::spawn(self.clone().tell_status(begin));
        let played = match self.contest {
            Some(contest) => {
                let load = self.load.clone();
                let played = contest::play(load, self.places, contest, self.speed, begin).await;
                played.map(|played| End::Played(Box::new(played)))
            }
            None => {
                monoio::spawn(self.clone().look_at_accounts());
                if self.rate > 0 {
                    self.load.run_at_rate(self.rate);
                    monoio::spawn(story::keep_busy(self.load.clone(), self.till()));
                }
                let mut teller = Teller {
                    crew: self.crew.clone(),
                    board: self.board.clone(),
                    referee: Referee::new(self.load.clone(), processors, entry),
                    till: self.till(),
                    admin: self.admin(),
                    speed: self.speed,
                };
                teller.play(self.is_once).await
            }
        };
        played.unwrap_or_else(End::Failed)
    }

    /// Waits for a signal, the death of a child, or the end of the terminal.
    async fn watch(&self) -> End {
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

    /// Whether any child has died that was not killed on purpose; says which, and what it logged last.
    fn tell_deaths(&self) -> bool {
        self.crew.look(|child| {
            if let Some(status) = child.ended() {
                self.died.set(true);
                let (name, lines) = (child.name, child.last_lines());
                say_aside(format_args!("galo: {name} has died ({status})\n{lines}"));
            }
        });
        self.died.get()
    }

    fn till(&self) -> Till {
        Till::new(self.places.entry, self.counts.clone())
    }

    fn admin(&self) -> Client {
        Client::with_token(self.places.admins[0], &self.token)
    }

    /// Makes all well and waits until what was accepted is settled, as far as that goes.
    async fn settle(&self) -> Answers {
        let Places { processors, entry, .. } = self.places;
        let mut referee = Referee::new(self.load.clone(), processors, entry);
        // A dead processor cannot be made well; the totals will show it.
        let _ = self.crew.restore(&mut referee).await;
        let (give_up_at, mut admin) = (clock::moment() + SETTLE_PATIENCE, self.admin());
        loop {
            let seen = door::ask(&mut admin).await;
            let is_over =
                |it: &Document| it.instances.len() == 2 && it.whereabouts.on_their_way == 0;
            let answers = referee.ask_all("").await;
            let is_settled = seen.as_ref().is_some_and(is_over) && answers.agree();
            let mut cannot_be = false;
            self.crew.look(|child| cannot_be |= child.ended().is_some());
            let hurry = self.stop.load(Ordering::Relaxed);
            if is_settled || cannot_be || hurry || clock::moment() >= give_up_at {
                return answers;
            }
            monoio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Prints the line a second until the load ends.
    async fn tell_status(self: Rc<Self>, begin: Moment) {
        let (mut admin, mut seen) = (self.admin(), Seen::default());
        for line in 0_u64.. {
            let at = STATUS_EVERY * (line as u32 + 1);
            sleep_until(begin + at).await;
            if self.load.is_stopped() {
                return;
            }
            let before = seen.clone();
            if let Some(document) = door::ask(&mut admin).await {
                seen.update(&document);
                if let Some(report) = &mut *self.report.borrow_mut() {
                    report.add(&document);
                }
                *self.seen.borrow_mut() = Some(document);
            }
            if line % STATUS_HEAD_EVERY == 0 {
                say(status::head());
            }
            say(seen.line(at, self.fees, &before, &self.load.take_last_second()));
        }
    }

    /// Asks for the accounts once a second until the load ends.
    async fn look_at_accounts(self: Rc<Self>) {
        let mut till = self.till();
        while !self.load.is_stopped() {
            for id in ACCOUNTS {
                self.board.update(id, till.look(id).await);
            }
            monoio::time::sleep(STATUS_EVERY).await;
        }
    }

    /// CPU time and memory of each process since its start.
    fn tell_costs(&self) {
        say(format_args!("\n  {:<20}{:>10}{:>14}", "process", "CPU s", "peak RSS MiB"));
        for child in self.crew.children().iter() {
            let Some(cost) = child.cost() else { continue };
            let (cpu, rss) = (cost.cpu_hundredths_s, cost.rss_peak_kib);
            let cpu = format!("{}.{:02}", cpu / 100, cpu % 100);
            let rss = format!("{}.{}", rss / 1_024, rss % 1_024 * 10 / 1_024);
            say(format_args!("  {:<20}{cpu:>10}{rss:>14}", child.name));
        }
    }

    /// What the processors hold, what the instances say, and the ledger. Whether all is there.
    async fn tell_totals(&self, answers: &Answers) -> bool {
        let (good, mut text) = totals(answers, self.load.posts());
        if self.contest.is_none() && !self.died.get() {
            let mut till = self.till();
            for id in ACCOUNTS {
                self.board.update(id, till.look(id).await);
            }
            let accounts = till::table(&self.board.accounts(), self.counts.get());
            text = format!("{text}\n\n{accounts}");
        }
        say(format_args!("\n{text}"));
        self.board.end(good, text);
        good
    }

    /// Whether it could be, if it was asked for.
    async fn write_report(&self) -> bool {
        let Some(report) = self.report.borrow_mut().take() else { return true };
        let last = door::ask(&mut self.admin()).await.or_else(|| self.seen.borrow_mut().take());
        let Some(last) = last else {
            say_aside(format_args!("galo: no report: instance 1 has said nothing"));
            return false;
        };
        match report.finish(last, Some(self.board.show(&self.crew))) {
            Ok(path) => say(format_args!("the report is in {}", path.display())),
            Err(reason) => {
                say_aside(format_args!("galo: {reason}"));
                return false;
            }
        }
        true
    }

    /// Ends the instances, then the processors. Whether all ended as they should.
    fn stop_children(&self) -> bool {
        let mut well = !self.died.get() && !self.tell_deaths();
        let mut children = self.crew.children();
        let (processors, instances) = children.split_at_mut(2);
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
