//! How a run without a contest has ended: what the processors hold beside what the instances say.
//!
//! Pure. Without a record of each payment it compares totals, and that all that was promised is held.

use super::referee::Answers;
use crate::payments::{Processor, Totals};
use crate::tools::judge::score::Posts;
use crate::tools::text::{contest_name, grouped, money};

/// What the processors hold, and what the instances say, in lines. Whether all is there.
pub fn totals(answers: &Answers, posts: Posts) -> (bool, String) {
    let mut text = format!("{:<12}{:>12}{:>18}{:>18}\n", "", "it holds", "", "galo says");
    for (index, which) in Processor::CONTEST.into_iter().enumerate() {
        let columns = |totals: Option<Totals>| {
            totals.map_or(["?".into(), "?".into()], |totals| {
                [grouped(totals.count), money(totals.amount.0)]
            })
        };
        let [held, held_money] = columns(answers.processors[index]);
        let [said, said_money] = columns(answers.backend.map(|said| said[index]));
        let name = contest_name(which);
        text += &format!("{name:<12}{held:>12}{held_money:>18}{said:>18}{said_money:>18}\n");
    }
    text += match (answers.agree(), answers.backend) {
        (true, _) => "the books agree, to the cent",
        (false, Some(_)) => "the books DIFFER",
        (false, None) => "the instances cannot tell: a summary takes both of them",
    };
    let held: Option<u64> = answers.held().map(|held| held.iter().map(|it| it.count).sum());
    let is_lost = held.is_none_or(|held| held < posts.accepted);
    let promised = grouped(posts.accepted);
    text += &match is_lost {
        false => {
            format!("\nheld are all {promised} payments that the demo's clients had a 202 for")
        }
        true => format!("\nNOT held are all {promised} payments that were answered with a 202"),
    };
    if posts.failed() > 0 {
        let failed = grouped(posts.failed());
        text += &format!("\n{failed} more had no 202, such as those cut off when an instance died");
    }
    (answers.agree() && !is_lost, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::money::Total;

    fn told(held: [u64; 2], said: [u64; 2], accepted: u64) -> (bool, String) {
        let of = |count| Totals { count, amount: Total(i128::from(count) * 1_990) };
        let answers =
            Answers { processors: held.map(|it| Some(of(it))), backend: Some(said.map(of)) };
        totals(&answers, Posts { accepted, ..Posts::default() })
    }

    #[test]
    fn what_is_promised_must_be_held_and_told() {
        let (good, text) = told([30_000_000, 2], [30_000_000, 2], 30_000_001);
        assert!(good && text.contains("the books agree"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let (good, text) = told([3, 2], [3, 2], 6);
        assert!(!good && text.contains("NOT held"), "{text}");
        let (good, text) = told([3, 2], [2, 3], 5);
        assert!(!good && text.contains("DIFFER"), "{text}");
    }
}
