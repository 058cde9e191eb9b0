//! What is known of one payment, by one instance or by both: where it is, and why.
//!
//! Pure. Of what two instances say, that counts which is further on ([`StoryMessage::is_further`]):
//! what is settled stays settled, and the home of a payment that the other instance drives knows no
//! more than that there is one.

use super::fee::FeeSchedule;
use super::names::{ByName, Names};
use super::resolution::{Resolution, ResolutionMessage};
use super::{Attempts, Each, Line, PaymentId, Processor, Reason, Rejection, Settlement};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use serde::{Deserialize, Serialize};
use sonic_rs::RawNumber;
use std::collections::BTreeMap;

/// See the module. From the earliest to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// It was accepted, and nothing else is known here: another instance drives it or did, or there
    /// is no journal; or a processor held it before it was accepted.
    Known {
        amount: Cents,
    },
    /// Accepted, and free to go to a processor.
    Waiting {
        amount: Cents,
        accepted_at: Timestamp,
        attempts: Attempts,
    },
    /// Sent there, and what became of that is not known yet: the answer is awaited, or the processor
    /// is asked.
    InDoubt {
        amount: Cents,
        accepted_at: Timestamp,
        processor: Processor,
        requested_at: Timestamp,
        attempts: Attempts,
    },
    /// No processor takes it, and people decide about it.
    Rejected(Rejection),
    /// An operator has decided that it is not paid.
    Cancelled {
        amount: Cents,
        accepted_at: Timestamp,
    },
    Settled(Line),
}

impl Story {
    /// How it is called, from the earliest state to the last.
    const STATES: [&str; 6] = ["known", "waiting", "inDoubt", "rejected", "cancelled", "settled"];

    pub fn state(&self) -> &'static str {
        Story::STATES[match self {
            Story::Known { .. } => 0,
            Story::Waiting { .. } => 1,
            Story::InDoubt { .. } => 2,
            Story::Rejected(_) => 3,
            Story::Cancelled { .. } => 4,
            Story::Settled(_) => 5,
        }]
    }
}

/// Of all these the ones behind that id, in the order of their ids, at most so many.
pub fn page(
    all: impl Iterator<Item = (PaymentId, Story)>,
    after: Option<PaymentId>,
    max: usize,
) -> Vec<(PaymentId, Story)> {
    // The greatest is on top, and makes way for a smaller one.
    let mut page = BTreeMap::new();
    for (id, story) in all.filter(|(id, _)| after.is_none_or(|after| *id > after)) {
        if page.len() < max || page.last_key_value().is_some_and(|(last, _)| id < *last) {
            page.insert(id, story);
        }
        if page.len() > max {
            page.pop_last();
        }
    }
    page.into_iter().collect()
}

/// A story as clients and the other instance read it. What is not known is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoryMessage {
    pub correlation_id: String,
    /// `known`, `waiting`, `inDoubt`, `rejected`, `cancelled` or `settled`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amount: Option<RawNumber>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<String>,
    /// What that processor keeps of the amount, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fee: Option<RawNumber>,
    /// How often it was sent to a processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u8>,
    /// Why it is where it is, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Per processor the status of its last refusal; 0 if it was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusals: Option<ByName<u16>>,
    /// What an operator has last decided about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<ResolutionMessage>,
    /// Why the other instance, which may know more, was not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_instance: Option<String>,
}

/// What is known of the processors that a story names.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub names: &'a Names,
    /// `None`: nobody knows it any more, or never did.
    pub fees: &'a Each<Option<FeeSchedule>>,
}

impl StoryMessage {
    /// Whether this counts, and not what another instance says.
    pub fn is_further(&self, than: &StoryMessage) -> bool {
        let rank = |it: &StoryMessage| Story::STATES.iter().position(|state| *state == it.state);
        rank(self) > rank(than)
    }

    /// Whether no other instance can know better.
    pub fn is_last(&self) -> bool {
        Story::STATES.last().is_some_and(|last| *last == self.state)
    }

    /// `why`: of a payment that waits, what it waits for.
    pub fn new(id: PaymentId, story: &Story, known: Known<'_>, why: &str) -> StoryMessage {
        let (correlation_id, state) = (id.to_string(), story.state().into());
        let mut message = StoryMessage { correlation_id, state, ..StoryMessage::default() };
        let name = |it: Processor| Some(known.names.name_of(it).into());
        match *story {
            Story::Known { amount } => {
                message.amount = number(&amount.to_string());
            }
            Story::Waiting { amount, accepted_at, attempts } => {
                message.amount = number(&amount.to_string());
                message.accepted_at = Some(accepted_at.to_string());
                message.attempts = Some(attempts.0);
                message.why = Some(why.into());
            }
            Story::InDoubt { amount, accepted_at, processor, requested_at, attempts } => {
                message.amount = number(&amount.to_string());
                message.accepted_at = Some(accepted_at.to_string());
                message.processor = name(processor);
                message.requested_at = Some(requested_at.to_string());
                message.attempts = Some(attempts.0);
            }
            Story::Rejected(rejection) => {
                message.amount = number(&rejection.amount.to_string());
                message.refusals = Some(refusals(&rejection, known.names));
                message.why = Some(match rejection.reason() {
                    Reason::Refused => "every processor it may go to refuses it".into(),
                    Reason::OtherAmount(processor) => {
                        let name = known.names.name_of(processor);
                        format!("{name} holds it under another amount")
                    }
                });
            }
            Story::Cancelled { amount, accepted_at } => {
                message.amount = number(&amount.to_string());
                message.accepted_at = (accepted_at.0 > 0).then(|| accepted_at.to_string());
            }
            Story::Settled(Line { settlement, attempts, .. }) => {
                let Settlement { processor, amount, requested_at } = settlement;
                let fee = known.fees[processor.index()].map(|fee| fee.on(amount));
                message.amount = number(&amount.to_string());
                message.processor = name(processor);
                message.requested_at = Some(requested_at.to_string());
                message.fee = fee.and_then(|fee| number(&fee_text(fee)));
                message.attempts = Some(attempts.0).filter(|count| *count > 0);
            }
        }
        message
    }

    /// Likewise, and what was decided about it.
    pub fn with(self, resolution: Option<&Resolution>, names: &Names) -> StoryMessage {
        let resolution = resolution.map(|it| ResolutionMessage::new(it, names));
        StoryMessage { resolution, ..self }
    }
}

/// The status of the last refusal of each processor.
pub fn refusals(rejection: &Rejection, names: &Names) -> ByName<u16> {
    let status = |(it, name): (Processor, &str)| (name.into(), rejection.statuses[it.index()]);
    ByName(names.iter().map(status).collect())
}

/// Exact, as JSON has it.
fn number(text: &str) -> Option<RawNumber> {
    sonic_rs::from_str(text).ok()
}

/// Millionths of a cent as a decimal, without zeros at its end beyond cents.
pub fn fee_text(millionths: i128) -> String {
    let unit = 100_000_000;
    let text = format!("{}.{:08}", millionths / unit, millionths % unit);
    let least = text.len() - 6;
    let kept = text.trim_end_matches('0').len().max(least);
    text[..kept].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::money::Fee;
    use crate::payments::each;
    use crate::payments::names::tests::names;

    const AT: Timestamp = Timestamp(1_752_000_000_123);

    fn settled() -> Story {
        let settlement =
            Settlement { processor: Processor::FALLBACK, amount: Cents(1990), requested_at: AT };
        Story::Settled(Line { id: Some(PaymentId(1)), settlement, attempts: Attempts(2) })
    }

    /// The contest's, with their fees.
    fn told(story: &Story) -> StoryMessage {
        let share = |share| Some(FeeSchedule { share: Fee(share), fixed: Cents(0) });
        let fees = each([share(50_000), share(150_000)]);
        let known = Known { names: &Names::contest(), fees: &fees };
        StoryMessage::new(PaymentId(1), story, known, "")
    }

    fn rejected(statuses: Each<u16>) -> Story {
        let (id, amount) = (PaymentId(1), Cents(1));
        Story::Rejected(Rejection { id, amount, statuses, accepted_at: AT })
    }

    #[test]
    fn what_is_further_on_counts() {
        let known = Story::Known { amount: Cents(1) };
        let waiting = Story::Waiting { amount: Cents(1), accepted_at: AT, attempts: Attempts(0) };
        let in_doubt = Story::InDoubt {
            amount: Cents(1),
            accepted_at: AT,
            processor: Processor::DEFAULT,
            requested_at: AT,
            attempts: Attempts(1),
        };
        let rejected = rejected(each([422, 0]));
        let cancelled = Story::Cancelled { amount: Cents(1), accepted_at: AT };
        let order = [known, waiting, in_doubt, rejected, cancelled, settled()];
        let order = order.map(|it| told(&it));
        for (index, earlier) in order.iter().enumerate() {
            for (other, later) in order.iter().enumerate() {
                assert_eq!(later.is_further(earlier), index < other);
            }
            assert_eq!(earlier.is_last(), index == 5);
        }
    }

    #[test]
    fn pages_are_of_all_in_their_order() {
        let all: Vec<u128> = vec![5, 9, 1, 7, 3, 8];
        let story = Story::Known { amount: Cents(1) };
        let page = |after: Option<u128>, max| {
            let all = all.iter().map(|id| (PaymentId(*id), story));
            let page = super::page(all, after.map(PaymentId), max);
            page.into_iter().map(|(id, _)| id.0).collect::<Vec<_>>()
        };
        assert_eq!(page(None, 4), [1, 3, 5, 7]);
        assert_eq!(page(Some(7), 4), [8, 9]);
        assert_eq!(page(Some(9), 4), []);
    }

    #[test]
    fn a_settlement_is_told_with_its_fee() {
        assert_eq!(
            sonic_rs::to_string(&told(&settled())).unwrap(),
            "{\"correlationId\":\"00000000-0000-0000-0000-000000000001\",\"state\":\"settled\",\
             \"amount\":19.90,\"processor\":\"fallback\",\
             \"requestedAt\":\"2025-07-08T18:40:00.123Z\",\"fee\":2.985,\"attempts\":2}"
        );
    }

    #[test]
    fn processors_are_told_by_name_and_a_fee_that_nobody_knows_is_not_told() {
        let text = sonic_rs::to_string(&told(&rejected(each([422, 0]))).refusals).unwrap();
        assert_eq!(text, r#"{"default":422,"fallback":0}"#);
        let names = names(&["a", "b", "c"]).unwrap();
        let known = Known { names: &names, fees: &Each::default() };
        let message = StoryMessage::new(PaymentId(1), &settled(), known, "");
        assert_eq!((message.processor.as_deref(), message.fee), (Some("b"), None));
        let other_amount = rejected(each([422, 0, Rejection::OTHER_AMOUNT]));
        let message = StoryMessage::new(PaymentId(1), &other_amount, known, "");
        assert_eq!(message.why.as_deref(), Some("c holds it under another amount"));
        let text = sonic_rs::to_string(&message.refusals).unwrap();
        assert_eq!(text, r#"{"a":422,"b":0,"c":200}"#);
    }

    #[test]
    fn fees_have_no_zeros_beyond_cents() {
        let cases = [(0, "0.00"), (99_500_000, "0.995"), (1, "0.00000001"), (250_000_000, "2.50")];
        for (millionths, text) in cases {
            assert_eq!(fee_text(millionths), text);
        }
    }
}
