//! The judge of a contest run: compares the processors' books with what was posted, and what the
//! backend says with the books. `galo judge` judges a run of k6, `galo demo` its own.
//!
//! | file | what lives here |
//! | --- | --- |
//! | `windows.rs` | what the backend says of windows, against the books |
//! | `score.rs` | the formula of the score, and what of a run is wrong whatever the books say |
//! | `k6.rs` | what k6 leaves of a run: score sheet, console, ids |
//!
//! The comparison itself is `compare.rs` beside this folder, which others use as well, and so is
//! `ask.rs`, which asks the servers.
//!
//! It takes nothing of anybody's insides: it knows what any client could know.

pub mod k6;
pub mod score;
pub mod windows;

use super::ask::{self, Server};
use super::compare::{self, Booking, Difference, Kind, Known};
use super::dice::Dice;
use super::text::{contest_name, grouped, money, say};
use crate::base::clock;
use crate::base::limits::{JUDGE_LOOK_EVERY, RUN_FILE_BYTES_MAX};
use crate::net::client::Url;
use crate::payments::{Processor, Totals, Window};
use score::Excused;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use windows::WrongTotals;

/// Judge a contest run: the processors' books against what k6 posted, and the summaries against the
/// books
///
/// A table, then a line that begins with WRONG for each way in which they differ. Exit code 0 after a
/// good run, 1 if anything differs, 2 if it could not be compared.
#[derive(Clone, Debug, clap::Args)]
pub struct JudgeArgs {
    /// The score sheet that perf/contest/contest.js has written
    #[arg(long, value_name = "FILE")]
    pub sheet: PathBuf,

    /// k6's --console-output of the same run, which names the posts that failed
    #[arg(long, value_name = "FILE")]
    pub console: PathBuf,

    /// The backend's entry
    #[arg(long, default_value = "http://127.0.0.1:9999")]
    pub backend_url: Url,

    /// The default processor, which must list its books as `galo processor` does
    #[arg(long, default_value = "http://127.0.0.1:8001")]
    pub default_url: Url,

    /// The fallback processor
    #[arg(long, default_value = "http://127.0.0.1:8002")]
    pub fallback_url: Url,

    /// The processors' X-Rinha-Token
    #[arg(long, default_value = "123")]
    pub token: String,

    /// How long payments that are still queued may take to settle
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub wait: Duration,

    /// So many windows of time are asked about
    #[arg(long, default_value_t = WINDOWS,
        value_parser = clap::value_parser!(u32).range(..=10_000))]
    pub windows: u32,

    /// So many posts may have failed, because instances were killed
    #[arg(long, default_value_t = 0)]
    pub excused_posts: u64,

    /// So many audits may be without an answer, for the same reason
    #[arg(long, default_value_t = 0)]
    pub excused_audits: u64,
}

/// Windows that are asked about if nothing is said.
pub const WINDOWS: u32 = 50;
/// So many of a kind are named.
const EXAMPLES_MAX: usize = 3;

/// # Errors
/// If the run cannot be judged: a file that cannot be read, a processor that does not tell.
pub fn run(args: &JudgeArgs) -> Result<ExitCode, String> {
    let sheet = k6::Sheet::read(&read_file(&args.sheet)?)
        .map_err(|reason| format!("{}: {reason}", args.sheet.display()))?;
    let failed = k6::Failed::read(&String::from_utf8_lossy(&read_file(&args.console)?));
    let excused = Excused { posts: args.excused_posts, audits: args.excused_audits };
    let mut found = sheet.findings(excused);
    // Without one nothing was posted.
    if let Some(seed) = sheet.seed {
        found.extend(sheet.compare_failed(&failed));
        let servers = Servers::find(args)?;
        servers.wait_until_settled(sheet.run.posts.accepted, args.wait)?;
        let known = sheet.known(&failed);
        let judged = servers.judge(&known, args.windows, &mut Dice::of_seed(seed.into()))?;
        say(&judged);
        found.extend(judged.findings());
    }
    for finding in &found {
        say(format_args!("  WRONG: {finding}"));
    }
    if !found.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let windows = args.windows;
    say(format_args!(
        "  every accepted payment is held by exactly one processor; {windows} windows agree"
    ));
    Ok(ExitCode::SUCCESS)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(RUN_FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > RUN_FILE_BYTES_MAX => {
            Err(format!("{} has more than {RUN_FILE_BYTES_MAX} bytes", path.display()))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Servers {
    pub backend: Server,
    pub processors: [ask::Processor; 2],
}

impl Servers {
    fn find(args: &JudgeArgs) -> Result<Servers, String> {
        let processor = |url| {
            let server = Server::find(url)?;
            Ok::<_, String>(ask::Processor { server, token: args.token.clone() })
        };
        Ok(Servers {
            backend: Server::find(&args.backend_url)?,
            processors: [processor(&args.default_url)?, processor(&args.fallback_url)?],
        })
    }

    /// Waits until the processors hold so many payments and the backend says the same as they, or
    /// until patience ends; the comparison tells.
    fn wait_until_settled(&self, accepted: u64, patience: Duration) -> Result<(), String> {
        let give_up_at = clock::moment() + patience;
        loop {
            let held = [self.processors[0].totals()?, self.processors[1].totals()?];
            let all_held = held[0].count.saturating_add(held[1].count) >= accepted;
            let is_settled =
                all_held && self.backend.summary(Window::default()).is_ok_and(|said| said == held);
            if is_settled || clock::moment() >= give_up_at {
                return Ok(());
            }
            std::thread::sleep(JUDGE_LOOK_EVERY);
        }
    }

    /// Compares the books with what is known of each payment, and what the backend says, in all and of
    /// some windows, with the books.
    ///
    /// # Errors
    /// If a processor's books cannot be read.
    pub fn judge(&self, known: &[Known], windows: u32, dice: &mut Dice) -> Result<Judged, String> {
        let books = [self.processors[0].books()?, self.processors[1].books()?];
        let books = books.each_ref().map(|bookings| &bookings[..]);
        let differences = compare::compare(known.iter().copied(), books);
        let (said, wrong) = self.judge_totals(books, windows, dice);
        Ok(Judged { held: windows::totals(books, Window::default()), said, differences, wrong })
    }

    fn judge_totals(
        &self,
        books: [&[Booking]; 2],
        windows: u32,
        dice: &mut Dice,
    ) -> (Result<[Totals; 2], String>, Vec<WrongTotals>) {
        let mut wrong = Vec::new();
        let mut ask = |window| {
            let said = self.backend.summary(window)?;
            wrong.extend(windows::compare_totals(said, books, window));
            Ok(said)
        };
        let said = ask(Window::default());
        let asked = said.and_then(|said| {
            let mut chosen = windows::choose_windows(books, dice, windows).into_iter();
            chosen.try_for_each(|window| ask(window).map(drop)).map(|()| said)
        });
        (asked, wrong)
    }
}

/// What the comparison has shown.
#[derive(Clone, Debug)]
pub struct Judged {
    held: [Totals; 2],
    /// What the backend said in all, or why it did not tell.
    said: Result<[Totals; 2], String>,
    differences: Vec<Difference>,
    wrong: Vec<WrongTotals>,
}

impl Judged {
    /// How many payments are held more than once.
    pub fn duplicates(&self) -> usize {
        let doubles = self.differences.iter().filter(|it| it.kind.is_double());
        let mut ids: Vec<_> = doubles.map(|it| it.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    /// What is wrong, a sentence each.
    pub fn findings(&self) -> Vec<String> {
        let of_a_kind = self.differences.chunk_by(|one, next| one.kind == next.kind);
        let mut found: Vec<_> = of_a_kind.map(sentence).collect();
        for wrong in self.wrong.iter().take(EXAMPLES_MAX) {
            let WrongTotals { window, here, there } = *wrong;
            let (here, there) = (both(here), both(there));
            found.push(format!("{} the backend says {here}, the books {there}", span(window)));
        }
        if self.wrong.len() > EXAMPLES_MAX {
            found.push(format!("{} windows wrong in all", grouped(self.wrong.len())));
        }
        if let Err(reason) = &self.said {
            found.push(format!("the backend does not tell its totals: {reason}"));
        }
        found
    }
}

/// One sentence for all payments that differ in the same way.
fn sentence(differences: &[Difference]) -> String {
    let what = match differences[0].kind {
        Kind::MissingThere => "accepted but held by none".into(),
        Kind::MissingHere(by) => format!("held by {} but never sent", contest_name(by)),
        Kind::Refused(by) => format!("refused but held by {}", contest_name(by)),
        Kind::OtherProcessor(by) => format!("held by {} and not by the other", contest_name(by)),
        Kind::OtherAmount(by) => format!("held by {} with a wrong amount", contest_name(by)),
        Kind::OtherTime(by) => format!("held by {} under another time", contest_name(by)),
        Kind::TwiceThere(by) => format!("held twice by {}", contest_name(by)),
        Kind::BothThere => "held by both processors".into(),
        Kind::TwiceHere => "sent twice".into(),
    };
    let examples = differences.iter().take(EXAMPLES_MAX).map(|it| it.id.to_string());
    let examples = examples.collect::<Vec<_>>().join(", ");
    let more = if differences.len() > EXAMPLES_MAX { ", …" } else { "" };
    format!("{what}: {} ({examples}{more})", grouped(differences.len()))
}

fn span(window: Window) -> String {
    match (window.from, window.to) {
        (Some(from), Some(to)) => format!("from {from} to {to}"),
        _ => "in all".into(),
    }
}

fn one(totals: Totals) -> String {
    format!("{}, {}", grouped(totals.count), money(totals.amount.0))
}

fn both(totals: [Totals; 2]) -> String {
    let [default, fallback] = totals.map(one);
    format!("{default} and {fallback}")
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<10}{:>12}{:>18}   the backend says", "holds", "payments", "money")?;
        for which in Processor::CONTEST {
            let held = self.held[which.index()];
            let (count, amount) = (grouped(held.count), money(held.amount.0));
            let said = self.said.as_ref().map_or("nothing".into(), |said| one(said[which.index()]));
            write!(f, "\n  {:<10}{count:>12}{amount:>18}   {said}", contest_name(which))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::base::money::Total;
    use crate::payments::PaymentId;

    fn judged(differences: Vec<Difference>, wrong: Vec<WrongTotals>) -> Judged {
        let held = [2, 1].map(|count| Totals { count, amount: Total(123_456_789) });
        Judged { held, said: Ok(held), differences, wrong }
    }

    fn differ(kind: Kind, id: u128) -> Difference {
        Difference { kind, id: PaymentId(id) }
    }

    #[test]
    fn each_kind_is_one_sentence_with_a_few_examples() {
        let mut differences: Vec<_> = (1..=4).map(|id| differ(Kind::MissingThere, id)).collect();
        differences.push(differ(Kind::MissingHere(Processor::DEFAULT), 5));
        differences.push(differ(Kind::MissingHere(Processor::FALLBACK), 6));
        let id = |last| format!("00000000-0000-0000-0000-00000000000{last}");
        let expected = [
            format!("accepted but held by none: 4 ({}, {}, {}, …)", id(1), id(2), id(3)),
            format!("held by default but never sent: 1 ({})", id(5)),
            format!("held by fallback but never sent: 1 ({})", id(6)),
        ];
        assert_eq!(judged(differences, vec![]).findings(), expected);
        assert_eq!(judged(vec![], vec![]).findings(), Vec::<String>::new());
    }

    #[test]
    fn wrong_windows_and_a_silent_backend_are_told() {
        let window = Window { from: Some(Timestamp(0)), to: Some(Timestamp(1)) };
        let here = [Totals::default(); 2];
        let there = [Totals { count: 1_000, amount: Total(1) }, Totals::default()];
        let wrong = |window| WrongTotals { window, here, there };
        let found = judged(vec![], vec![wrong(Window::default()), wrong(window)]).findings();
        let differing = "the backend says 0, 0.00 and 0, 0.00, the books 1,000, 0.01 and 0, 0.00";
        let from = "from 1970-01-01T00:00:00.000Z to 1970-01-01T00:00:00.001Z";
        assert_eq!(found, [format!("in all {differing}"), format!("{from} {differing}")]);
        let found = judged(vec![], vec![wrong(window); 5]).findings();
        assert_eq!((found.len(), &found[3][..]), (4, "5 windows wrong in all"));
        let mut silent = judged(vec![], vec![]);
        silent.said = Err("no answer".into());
        assert_eq!(silent.findings(), ["the backend does not tell its totals: no answer"]);
        assert!(silent.to_string().ends_with("nothing"), "{silent}");
    }

    #[test]
    fn a_payment_that_is_held_thrice_is_one_duplicate() {
        let differences = vec![
            differ(Kind::OtherAmount(Processor::DEFAULT), 3),
            differ(Kind::TwiceThere(Processor::DEFAULT), 1),
            differ(Kind::TwiceThere(Processor::DEFAULT), 2),
            differ(Kind::BothThere, 1),
        ];
        assert_eq!(judged(differences, vec![]).duplicates(), 2);
    }

    #[test]
    fn the_table_has_a_line_for_each_processor() {
        let table = judged(vec![], vec![]).to_string();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "  default              2      1,234,567.89   2, 1,234,567.89");
        assert!(lines.iter().all(|line| line.len() <= 80), "{table}");
    }
}
