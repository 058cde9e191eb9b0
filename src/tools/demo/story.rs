//! The demo's story: what happens when, and the words that go with it.
//!
//! Told again and again, or once. It stops when somebody takes over at the page, and begins anew
//! when it is asked to.

use super::board::{Board, Story};
use super::client::Client;
use super::crew::{Act, Crew};
use super::load::{Load, sleep_until};
use super::referee::Referee;
use super::stages::{Condition, WELL, fails, well};
use super::status::{Document, Verdict};
use super::till::{ACCOUNTS, Till};
use super::{End, door};
use crate::base::clock::{self, Moment};
use crate::tools::text::money;
use std::rc::Rc;
use std::time::Duration;

/// The story takes so many seconds, and is then told again.
pub const STORY_S: u32 = 48;

const SLOW: Condition = well(500);

/// What happens in a scene, before its words are said.
#[derive(Clone, Copy, Debug)]
enum Step {
    Act(Act),
    /// A credit, a debit, and one that is refused.
    Ledger,
    /// A debit at an account whose home is instance 2, and one whose home is instance 1.
    LedgerAlone,
    /// What an account of instance 2 says.
    Statement,
    /// Whether all is somewhere.
    Balance,
}

#[derive(Clone, Copy, Debug)]
struct Scene {
    at_s: u32,
    step: Step,
    text: &'static str,
}

const fn scene(at_s: u32, step: Step, text: &'static str) -> Scene {
    Scene { at_s, step, text }
}

static STORY: &[Scene] = &[
    scene(
        0,
        Step::Act(Act::Set(WELL)),
        "Both processors are well. Default takes 5 % of each payment and fallback 15 %, so all go \
         to default.",
    ),
    scene(4, Step::Ledger, "The same instances keep a ledger. Account 1 may go down to -1,000.00:"),
    scene(
        8,
        Step::Act(Act::Set([SLOW, WELL[1]])),
        "Default is slow: 500 ms an answer. As soon as galo knows, it waits for it all the same: \
         half a second is cheaper than three times the fee. So many are in flight.",
    ),
    scene(
        15,
        Step::Act(Act::Set([fails(0), WELL[1]])),
        "Default fails: every request gets an error, and fallback takes over. Each payment waits \
         300 ms first, in case the cheaper one comes back. At 200 a second these are the 60 that \
         are queued: no fault, but the router's choice.",
    ),
    scene(
        20,
        Step::Act(Act::Set(WELL)),
        "Default is well again. Single payments have gone on asking it, and now all return to it.",
    ),
    scene(23, Step::Statement, "Before instance 2 dies:"),
    scene(
        24,
        Step::Act(Act::Kill),
        "Instance 2 is killed (kill -9). Instance 1 takes all payments. Those that belong to \
         instance 2, half of them, it keeps for it in its journal: queued. After 30 s it would pay \
         them itself.",
    ),
    scene(
        27,
        Step::LedgerAlone,
        "For an account nobody answers but its home, or two might spend the same money:",
    ),
    scene(
        29,
        Step::Act(Act::Start),
        "Instance 2 is started again. It reads its journal, asks the processors about what was \
         under way, and takes over what was kept for it.",
    ),
    scene(32, Step::Statement, "Back from its journal:"),
    scene(
        34,
        Step::Act(Act::Set([fails(2_000), fails(1_000)])),
        "Both processors fail. Payments are accepted and queued all the same: none is refused, \
         none is lost.",
    ),
    scene(40, Step::Act(Act::Set(WELL)), "Both are well again, and the queue drains."),
    scene(44, Step::Balance, "Is every payment somewhere?"),
];

/// Who plays it.
pub struct Teller {
    pub crew: Rc<Crew>,
    pub board: Rc<Board>,
    pub referee: Referee,
    pub till: Till,
    /// Instance 1's admin door.
    pub admin: Client,
    /// The timetable is divided by this.
    pub speed: u32,
}

/// Whether the story may go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Teller {
    /// Plays it until the load ends, or only once.
    ///
    /// # Errors
    /// If something cannot be done, with the reason.
    pub async fn play(&mut self, is_once: bool) -> Result<End, String> {
        let mut begin = clock::moment();
        loop {
            if self.chapter(begin).await? {
                if is_once {
                    return Ok(End::Told);
                }
                begin = begin + Duration::from_secs(STORY_S.into()) / self.speed;
                continue;
            }
            while self.board.story() != Story::Playing {
                monoio::time::sleep(LOOK_EVERY).await;
            }
            self.crew.restore(&mut self.referee).await?;
            begin = clock::moment();
        }
    }

    /// Whether it was told to its end.
    async fn chapter(&mut self, begin: Moment) -> Result<bool, String> {
        for scene in STORY {
            if !self.wait_until(begin + Duration::from_secs(scene.at_s.into()) / self.speed).await {
                return Ok(false);
            }
            if let Err(reason) = self.play_scene(scene).await {
                // Somebody was quicker at the page.
                if self.board.story() == Story::Playing {
                    return Err(reason);
                }
                return Ok(false);
            }
        }
        Ok(self.wait_until(begin + Duration::from_secs(STORY_S.into()) / self.speed).await)
    }

    async fn wait_until(&self, at: Moment) -> bool {
        while self.board.story() == Story::Playing && clock::moment() < at {
            sleep_until(at.min(clock::moment() + LOOK_EVERY)).await;
        }
        self.board.story() == Story::Playing
    }

    async fn play_scene(&mut self, scene: &Scene) -> Result<(), String> {
        let more = match scene.step {
            Step::Act(act) => {
                // Said first: what follows from it is seen at once.
                self.board.tell(scene.text);
                return self.crew.perform(act, &mut self.referee).await;
            }
            Step::Ledger => self.ledger().await,
            Step::LedgerAlone => {
                // The connection that it has may have ended with the other instance.
                self.till.reconnect();
                let away = self.till.transact(1, -100, "alone").await;
                let here = self.till.transact(2, -100, "alone").await;
                format!("account 1 (instance 2), {away}; account 2 (instance 1), {here}.")
            }
            Step::Statement => match self.till.look(1).await {
                Ok(account) => {
                    let balance = money(account.balance.into());
                    format!("account 1, whose home it is, has a balance of {balance}.")
                }
                Err(trouble) => format!("account 1, whose home it is: {trouble}."),
            },
            Step::Balance => self.balance().await,
        };
        self.board.tell(&format!("{} {more}", scene.text));
        Ok(())
    }

    async fn ledger(&mut self) -> String {
        let credit = self.till.transact(1, 1_000, "salary").await;
        let debit = self.till.transact(1, -300, "bread").await;
        let too_much = self.till.transact(1, -10_000_000, "yacht").await;
        format!("{credit}; {debit}; {too_much}, and nothing has changed.")
    }

    async fn balance(&mut self) -> String {
        match door::ask(&mut self.admin).await {
            Some(Document { verdict: Verdict { text, .. }, .. }) => format!("{text}."),
            None => "Instance 1 does not answer.".into(),
        }
    }
}

/// The demo's own transactions: one a second, here and there, until the load ends. The first account
/// is left to the story.
pub async fn keep_busy(load: Rc<Load>, mut till: Till) {
    let mut due = clock::moment();
    for turn in 0_i64.. {
        due = due + Duration::from_secs(1);
        sleep_until(due).await;
        if load.is_stopped() {
            return;
        }
        let others = &ACCOUNTS[1..];
        let id = others[(turn as usize) % others.len()];
        let (cents, text) = match turn % 3 {
            0 => (2_500 + turn % 7 * 100, "salary"),
            1 => (-990 - turn % 5 * 50, "coffee"),
            _ => (-1_500, "rent"),
        };
        till.transact(id, cents, text).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_come_in_order_and_in_time_and_all_is_well_at_the_end() {
        assert!(STORY.is_sorted_by(|earlier, later| earlier.at_s < later.at_s));
        assert!(STORY.iter().all(|scene| scene.at_s < STORY_S));
        let acts = STORY.iter().filter_map(|scene| match scene.step {
            Step::Act(act) => Some(act),
            _ => None,
        });
        let last = |is: fn(&Act) -> bool| acts.clone().rfind(is);
        assert_eq!(last(|act| matches!(act, Act::Set(_))), Some(Act::Set(WELL)));
        assert_eq!(last(|act| matches!(act, Act::Kill | Act::Start)), Some(Act::Start));
    }
}
