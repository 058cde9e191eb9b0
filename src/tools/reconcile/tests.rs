//! The comparison as a whole, without files: each way in which two sides can differ, and any two
//! sides against a second opinion.

use super::report::Report;
use super::side::{Room, Row, Side};
use crate::base::clock::Timestamp;
use crate::base::money::Cents;
use crate::payments::names::Names;
use crate::payments::names::tests::names;
use crate::payments::{PaymentId, Processor, Settlement, Window, each};
use crate::tools::compare::{Fate, Known, Rules};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const DEFAULT: Processor = Processor::DEFAULT;
const FALLBACK: Processor = Processor::FALLBACK;

fn name_of(processor: Processor) -> String {
    Names::contest().name_of(processor).into()
}

/// Id, processor, cents, milliseconds.
type Line = (u128, Processor, i64, i64);

fn side(lines: &[Line], open: &[(u128, Fate)], window: Window) -> Side {
    let held = lines.iter().map(|(id, processor, cents, at_ms)| {
        let (processor, amount) = (*processor, Cents(*cents));
        let requested_at = Timestamp(*at_ms);
        Row::Held(Some(PaymentId(*id)), Settlement { processor, amount, requested_at })
    });
    let open = open
        .iter()
        .map(|(id, fate)| Row::Open(Known { id: PaymentId(*id), amount: Cents(10), fate: *fate }));
    let mut side = Side::default();
    side.take(held.chain(open).map(Ok), window, &mut Room::default()).unwrap();
    side.sort();
    side
}

fn report_by(rules: Rules, here: &[Line], there: &[Line]) -> Report {
    let window = Window::default();
    let (here, there) = (side(here, &[], window), side(there, &[], window));
    Report::of([&here, &there], Names::contest(), window, rules, 2)
}

fn report(here: &[Line], there: &[Line]) -> Report {
    report_by(Rules::default(), here, there)
}

/// What machines are told of the differences: kind, processor, how many, how much.
fn told(report: &Report) -> Vec<(String, String, u64, String)> {
    let document: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    let differences = document["differences"].as_array().unwrap();
    assert_eq!(document["same"], differences.is_empty());
    assert_eq!(report.is_same(), differences.is_empty());
    let text = |it: &serde_json::Value| it.as_str().unwrap().to_owned();
    let one = |it: &serde_json::Value| {
        let (kind, processor) = (text(&it["kind"]), text(&it["processor"]));
        (kind, processor, it["payments"].as_u64().unwrap(), it["amount"].to_string())
    };
    differences.iter().map(one).collect()
}

fn expect(report: &Report, expected: &[(&str, Processor, u64, f64)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(kind, by, payments, money)| {
            ((*kind).to_owned(), name_of(*by), *payments, format!("{money:?}"))
        })
        .collect();
    assert_eq!(told(report), expected, "{report}");
}

const GOOD: [Line; 3] = [(1, DEFAULT, 1_990, 5), (2, FALLBACK, 10, 6), (3, DEFAULT, 10, 7)];

#[test]
fn sides_that_agree_do_not_differ_in_whatever_order() {
    let mut there = GOOD;
    there.reverse();
    let report = report(&GOOD, &there);
    expect(&report, &[]);
    assert!(report.to_string().ends_with("no difference"), "{report}");
    expect(&self::report(&[], &[]), &[]);
}

#[test]
fn each_difference_is_told_with_its_processor_and_its_money() {
    expect(&report(&GOOD, &GOOD[..2]), &[("missing there", DEFAULT, 1, 0.1)]);
    expect(&report(&GOOD[1..], &GOOD), &[("missing here", DEFAULT, 1, 19.9)]);
    let with = |changed: &[Line]| [&GOOD[1..], changed].concat();
    expect(&report(&GOOD, &with(&[(1, DEFAULT, 1_995, 5)])), &[("other amount", DEFAULT, 1, 0.05)]);
    expect(&report(&GOOD, &with(&[(1, DEFAULT, 990, 5)])), &[("other amount", DEFAULT, 1, -10.0)]);
    expect(&report(&GOOD, &with(&[(1, DEFAULT, 1_990, 6)])), &[("other time", DEFAULT, 1, 19.9)]);
    let moved = report(&GOOD, &with(&[(1, FALLBACK, 1_990, 5)]));
    expect(&moved, &[("other processor", FALLBACK, 1, 19.9)]);
    let twice = report(&GOOD, &with(&[GOOD[0], GOOD[0]]));
    expect(&twice, &[("twice there", DEFAULT, 1, 19.9)]);
    let both = report(&GOOD, &with(&[GOOD[0], (1, FALLBACK, 1_990, 9)]));
    let expected = [("other processor", FALLBACK, 1, 19.9), ("held by both", FALLBACK, 1, 19.9)];
    expect(&both, &expected);
    expect(&report(&with(&[GOOD[0], GOOD[0]]), &GOOD), &[("twice here", DEFAULT, 1, 19.9)]);
    let many = report(&GOOD, &with(&[(1, DEFAULT, 1_991, 6)]));
    let expected = [("other amount", DEFAULT, 1, 0.01), ("other time", DEFAULT, 1, 19.91)];
    expect(&many, &expected);
    assert!(many.to_string().ends_with("1 payments differ"), "{many}");
}

#[test]
fn of_what_is_known_twice_that_is_right_which_is_held() {
    let here = [(1, DEFAULT, 10, 5), (1, FALLBACK, 10, 6)];
    let report = report(&here, &here[1..]);
    expect(&report, &[("twice here", FALLBACK, 1, 0.1)]);
}

#[test]
fn of_a_processor_that_does_not_tell_nothing_is_missing() {
    let rules = Rules { told: each([true, false]), ..Rules::default() };
    let there = [GOOD[0], GOOD[2]];
    let same = report_by(rules, &GOOD, &there);
    expect(&same, &[]);
    assert!(!same.to_string().contains("fallback") && !same.json().contains("fallback"));
    let moved = report_by(rules, &GOOD, &[there[0], there[1], (2, DEFAULT, 10, 6)]);
    expect(&moved, &[("other processor", DEFAULT, 1, 0.1)]);
}

#[test]
fn times_may_be_a_little_apart_if_it_is_said() {
    let there = GOOD.map(|(id, by, cents, at_ms)| (id, by, cents, at_ms + 3));
    for (time_tolerance_ms, differing) in [(0, 3), (2, 3), (3, 0), (u64::MAX, 0)] {
        let rules = Rules { time_tolerance_ms, ..Rules::default() };
        let report = report_by(rules, &GOOD, &there);
        assert_eq!(report.is_same(), differing == 0, "{time_tolerance_ms}: {report}");
    }
}

#[test]
fn what_waits_may_be_held_and_what_is_rejected_may_not() {
    let window = Window::default();
    let there = side(&[(1, DEFAULT, 10, 5), (2, DEFAULT, 10, 5)], &[], window);
    let compare = |lines: &[Line], open: &[(u128, Fate)]| {
        let here = side(lines, open, window);
        Report::of([&here, &there], Names::contest(), window, Rules::default(), 2)
    };
    let waiting = [(1, Fate::Unknown), (1, Fate::Unknown), (2, Fate::Unknown), (3, Fate::Unknown)];
    expect(&compare(&[], &waiting), &[]);
    let rejected = [(1, Fate::Unknown), (2, Fate::Refused), (3, Fate::Refused)];
    let report = compare(&[], &rejected);
    expect(&report, &[("rejected here", DEFAULT, 1, 0.1)]);
    assert!(report.to_string().contains("here   0.10, rejected\n"), "{report}");
    // It waits at one instance still, and is settled at the other.
    let both = [(1, DEFAULT, 10, 5), (2, DEFAULT, 10, 5)];
    expect(&compare(&both, &waiting), &[]);
}

#[test]
fn a_hundredfold_is_taken_for_a_sign_of_cents() {
    let cents = GOOD.map(|(id, by, amount, at_ms)| (id, by, amount * 100, at_ms));
    assert!(report(&GOOD, &cents).to_string().contains("--amounts cents"));
    assert!(report(&cents, &GOOD).to_string().contains("--amounts decimal"));
    let one = report(&GOOD, &[cents[0], GOOD[1], (3, DEFAULT, 11, 7)]).to_string();
    assert!(!one.contains("--amounts"), "{one}");
}

#[test]
fn examples_are_few_and_counts_are_whole() {
    let here: Vec<Line> = (0..1_234).map(|id| (id, DEFAULT, 1_000, 0)).collect();
    let report = report(&here, &[]);
    expect(&report, &[("missing there", DEFAULT, 1_234, 12_340.0)]);
    let text = report.to_string();
    assert!(text.contains("missing there, default, 2 of 1,234:"), "{text}");
    assert_eq!(text.matches("there  not held").count(), 2, "{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    let table = "  default                1,234         12,340.00             0              0.00";
    assert!(text.contains(table), "{text}");
}

#[test]
fn a_document_for_machines_has_everything() {
    let window = Window { from: Some(Timestamp(5)), to: None };
    let here = side(&[GOOD[0], (9, DEFAULT, 1, 4)], &[], window);
    let there = side(&[(1, FALLBACK, 5, 5), (9, DEFAULT, 2, 3)], &[], window);
    let report = Report::of([&here, &there], Names::contest(), window, Rules::default(), 1);
    let example = concat!(
        r#"[{"id":"00000000-0000-0000-0000-000000000001","#,
        r#""here":[{"state":"settled","amount":19.90,"processor":"default","#,
        r#""requestedAt":"1970-01-01T00:00:00.005Z"}],"there":[{"amount":0.05,"#,
        r#""processor":"fallback","requestedAt":"1970-01-01T00:00:00.005Z"}]}]"#
    );
    let expected = format!(
        concat!(
            r#"{{"same":false,"differing":1,"#,
            r#""window":{{"from":"1970-01-01T00:00:00.005Z","to":null}},"#,
            r#""processors":{{"default":{{"here":{{"payments":1,"amount":19.90}},"#,
            r#""there":{{"payments":0,"amount":0.00}}}},"#,
            r#""fallback":{{"here":{{"payments":0,"amount":0.00}},"#,
            r#""there":{{"payments":1,"amount":0.05}}}}}},"#,
            r#""differences":[{{"kind":"other processor","processor":"fallback","payments":1,"#,
            r#""amount":0.05,"examples":{example}}},"#,
            r#"{{"kind":"other amount","processor":"fallback","payments":1,"#,
            r#""amount":-19.85,"examples":{example}}}]}}"#
        ),
        example = example
    );
    assert_eq!(report.json(), expected);
}

#[test]
fn any_number_of_processors_is_compared_by_name() {
    let names = names(&["pix", "card", "boleto", "cash"]).unwrap();
    let of = |name: &str| names.by_name(name).unwrap();
    let window = Window::default();
    let here = [(1, of("cash"), 10, 5), (2, of("boleto"), 20, 6), (3, of("pix"), 30, 7)];
    let there = [
        (1, of("cash"), 10, 5),
        (1, of("boleto"), 10, 9),
        (1, of("pix"), 10, 9),
        (2, of("card"), 20, 6),
        (3, of("pix"), 31, 7),
        (4, of("boleto"), 5, 7),
    ];
    let told_of = each([true, true, true, true]);
    let rules = Rules { told: told_of, ..Rules::default() };
    let sides = [side(&here, &[], window), side(&there, &[], window)];
    let report = Report::of(sides.each_ref(), names.clone(), window, rules, 2);
    let found = told(&report);
    let found: Vec<_> = found.iter().map(|it| (it.0.as_str(), it.1.as_str(), it.2)).collect();
    let expected = [
        ("missing here", "boleto", 1),
        ("other processor", "pix", 1),
        ("other processor", "card", 1),
        ("other processor", "boleto", 1),
        ("other amount", "pix", 1),
        ("held by several", "boleto", 1),
    ];
    assert_eq!(found, expected, "{report}");
    let text = report.to_string();
    for name in ["pix", "card", "boleto", "cash"] {
        assert!(text.contains(&format!("\n  {name:<16}")), "{text}");
    }
    assert!(text.contains("held by boleto, ") && text.contains("settled by cash, "), "{text}");
}

/// Kind, processor → how many payments. Found by look-ups, id by id, without any order.
fn second_opinion(here: &[Line], there: &[Line]) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    let mut by_id: HashMap<u128, [Vec<Line>; 2]> = HashMap::new();
    for (index, lines) in [here, there].into_iter().enumerate() {
        lines.iter().for_each(|line| by_id.entry(line.0).or_default()[index].push(*line));
    }
    for [ours, theirs] in by_id.into_values() {
        let mut count = |kind: &str, by: Processor| {
            *counts.entry((kind.to_owned(), name_of(by))).or_insert(0) += 1;
        };
        let Some(first) = ours.iter().min_by_key(|it| (!theirs.contains(it), it.1, it.3, it.2))
        else {
            for by in Processor::CONTEST {
                let held = theirs.iter().filter(|it| it.1 == by).count();
                if held > 0 {
                    count("missing here", by);
                }
                if held > 1 {
                    count("twice there", by);
                }
            }
            if Processor::CONTEST.iter().all(|by| theirs.iter().any(|it| it.1 == *by)) {
                count("held by both", FALLBACK);
            }
            continue;
        };
        if ours.len() > 1 {
            count("twice here", first.1);
        }
        if theirs.is_empty() {
            count("missing there", first.1);
        }
        for by in Processor::CONTEST {
            let held: Vec<_> = theirs.iter().filter(|it| it.1 == by).collect();
            if held.len() > 1 {
                count("twice there", by);
            }
            if held.iter().any(|it| it.2 != first.2) {
                count("other amount", by);
            }
            if by != first.1 && !held.is_empty() {
                count("other processor", by);
            }
            if by == first.1 && held.iter().any(|it| it.3 != first.3) {
                count("other time", by);
            }
        }
        if Processor::CONTEST.iter().all(|by| theirs.iter().any(|it| it.1 == *by)) {
            count("held by both", if first.1 == DEFAULT { FALLBACK } else { DEFAULT });
        }
    }
    counts
}

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let line = (0_u128..12, any::<bool>(), 1_i64..3, 0_i64..3);
    let line = line.prop_map(|(id, is_default, cents, at_ms)| {
        (id << 90 | id, if is_default { DEFAULT } else { FALLBACK }, cents, at_ms)
    });
    prop::collection::vec(line, 0..24)
}

proptest! {
    #[test]
    fn two_opinions_are_one(here in lines(), other in lines(), alike: bool) {
        let there = if alike {
            // Nearly the same: what is usual.
            let kept = other.iter().take(2).copied();
            here.iter().skip(1).copied().chain(kept).collect()
        } else {
            other
        };
        let found = told(&report(&here, &there)).into_iter();
        let found: BTreeMap<_, _> =
            found.map(|(kind, by, payments, _)| ((kind, by), payments)).collect();
        prop_assert_eq!(found, second_opinion(&here, &there));
    }
}
