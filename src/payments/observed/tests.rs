//! What is learned of a processor from what it answers, and from what it reports.

use super::*;

const LATENCY_MAX: Duration = Duration::from_millis(1_300);

fn at(ms: u64) -> Moment {
    Moment(ms * 1_000)
}

fn observed() -> Observed {
    Observed::new(LATENCY_MAX, 400)
}

/// One attempt from `start` to `end`, booked.
fn book(seen: &mut Observed, start: u64, end: u64) {
    seen.started(at(start));
    seen.ended(at(start));
    seen.recorded(at(start), at(end));
}

/// One attempt from `start` to `end`, answered with the failure switch.
fn fail(seen: &mut Observed, start: u64, end: u64) {
    seen.started(at(start));
    seen.ended(at(start));
    seen.failed(at(start), true, at(end), 0.0);
}

fn report(failing: bool, ms: u64) -> Report {
    Report { failing, response_min: Duration::from_millis(ms) }
}

#[test]
fn three_failures_in_a_row_take_it_down_and_one_booking_brings_it_back() {
    let mut seen = observed();
    fail(&mut seen, 0, 5);
    fail(&mut seen, 0, 6);
    book(&mut seen, 0, 7);
    fail(&mut seen, 10, 15);
    fail(&mut seen, 10, 16);
    assert_eq!(seen.state(), State::Up, "a success between starts the count again");
    fail(&mut seen, 10, 17);
    assert_eq!(seen.state(), State::Down(Trouble::Failing));
    assert!(!seen.is_probe_due(at(18)));
    assert!(seen.is_probe_due(at(17 + 25)));
    book(&mut seen, 42, 45);
    assert_eq!(seen.state(), State::Up);
}

#[test]
fn probes_go_one_at_a_time_with_growing_pauses() {
    let mut seen = observed();
    for end in 1..=3 {
        fail(&mut seen, 0, end);
    }
    let mut now = 3;
    for pause in [25, 50, 100, 200, 250, 250] {
        assert!(!seen.is_probe_due(at(now + pause - 1)), "pause {pause}");
        assert!(seen.is_probe_due(at(now + pause)), "pause {pause}");
        now += pause;
        seen.started(at(now));
        assert!(!seen.is_probe_due(at(now + 5)), "one at a time");
        seen.ended(at(now));
        seen.failed(at(now), true, at(now), 0.0);
    }
}

#[test]
fn attempts_in_flight_when_it_went_down_do_not_stretch_the_pause() {
    let mut seen = observed();
    for end in 1..=200 {
        fail(&mut seen, 0, end);
    }
    assert!(seen.is_probe_due(at(3 + 25)));
}

#[test]
fn a_stall_shows_long_before_the_time_out() {
    let mut seen = observed();
    for start in (0..100).step_by(5) {
        book(&mut seen, start, start + 2);
    }
    seen.started(at(200));
    seen.watch(Some(at(200)), at(220));
    assert_eq!(seen.state(), State::Up);
    seen.watch(Some(at(200)), at(230));
    assert_eq!(seen.state(), State::Down(Trouble::Stalled));
    seen.ended(at(200));
    seen.recorded(at(200), at(1_200));
    assert_eq!(seen.state(), State::Up, "a second is slow, but within what an audit forgives");
    assert_eq!(seen.latency(), Duration::from_secs(1), "and believed at once");
}

#[test]
fn slower_than_an_audit_forgives_is_down_until_a_report_or_time_says_otherwise() {
    let mut seen = observed();
    seen.started(at(0));
    seen.watch(Some(at(0)), at(100));
    seen.ended(at(0));
    seen.recorded(at(0), at(2_000));
    assert_eq!(seen.state(), State::Down(Trouble::Slow));
    assert!(!seen.is_probe_due(at(11_999)));
    assert!(seen.is_probe_due(at(12_000)), "old evidence is void");
    seen.reported(report(false, 2_000), at(5_000));
    assert!(!seen.is_probe_due(at(14_999)));
    seen.reported(report(false, 0), at(10_000));
    assert!(seen.is_probe_due(at(10_000)));
}

#[test]
fn a_late_answer_from_slow_times_does_not_override_a_newer_fast_one() {
    let mut seen = observed();
    seen.started(at(0));
    book(&mut seen, 4_000, 4_003);
    seen.ended(at(0));
    seen.recorded(at(0), at(5_000));
    assert_eq!(seen.state(), State::Up);
    assert!(seen.latency() < Duration::from_millis(10));
}

#[test]
fn one_late_answer_among_many_does_not_stop_the_traffic() {
    let mut seen = observed();
    for start in 0..50 {
        book(&mut seen, start, start + 2);
    }
    book(&mut seen, 60, 60 + 2_000);
    assert_eq!(seen.state(), State::Up);
}

#[test]
fn fresh_answers_outrank_the_health_endpoint() {
    let mut seen = observed();
    book(&mut seen, 0, 3);
    seen.reported(report(true, 5_000), at(100));
    assert_eq!(seen.state(), State::Up);
    seen.reported(report(true, 100), at(1_000));
    assert_eq!(seen.state(), State::Down(Trouble::Failing));
    assert!(seen.is_probe_due(at(1_025)));
    seen.reported(report(false, 0), at(1_001));
    assert!(seen.is_probe_due(at(1_001)), "good news: try one at once");
}

/// An endpoint that was wrong sent a payment every 0.8 s to the dearer processor, while the
/// cheaper one answered in a millisecond.
#[test]
fn a_report_that_contradicts_answers_is_decided_by_one_probe() {
    for wrong in [report(true, 0), report(false, 5_000), report(true, 5_000)] {
        let mut seen = observed();
        for now in (0..60_000).step_by(800) {
            assert!(seen.state() == State::Up || seen.is_probe_due(at(now)), "{now}");
            book(&mut seen, now, now + 1);
            assert_eq!(seen.state(), State::Up);
            if now % 4_000 == 0 {
                seen.reported(wrong, at(now + 700));
                assert_ne!(seen.state(), State::Up, "it may be true");
                seen.reported(wrong, at(now + 750));
            }
        }
    }
}

#[test]
fn our_own_slowness_is_not_the_processors() {
    let mut seen = observed();
    for end in 1..=3 {
        fail(&mut seen, 0, end);
    }
    seen.started(at(30));
    seen.watch(None, at(9_000));
    assert!(!seen.is_probe_due(at(9_000)), "it is still to be sent");
    assert!(seen.latency() < Duration::from_millis(10));
    seen.sent(at(30), at(9_000));
    seen.watch(None, at(10_000));
    seen.ended(at(30));
    seen.recorded(at(9_000), at(10_001));
    assert_eq!((seen.state(), seen.latency()), (State::Up, Duration::from_millis(1_001)));
}

#[test]
fn a_pause_of_nothing_is_a_pause_and_grows() {
    let mut seen = observed();
    let mut now = 1_000;
    for pause in [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
        seen.told_to_pause(Duration::ZERO, at(now));
        seen.told_to_pause(Duration::ZERO, at(now + 1));
        assert!(!seen.is_admitting(at(now + pause - 1)), "{pause}");
        now += pause + 1;
        assert!(seen.is_admitting(at(now)), "{pause}");
    }
    book(&mut seen, now, now + 1);
    seen.told_to_pause(Duration::ZERO, at(now + 2));
    assert!(seen.is_admitting(at(now + 52)));
}

#[test]
fn a_probe_that_hangs_counts_as_slow_and_does_not_block_the_next_for_ever() {
    let mut seen = observed();
    for end in 1..=3 {
        fail(&mut seen, 0, end);
    }
    seen.started(at(10));
    seen.sent(at(10), at(30));
    seen.watch(None, at(1_330));
    assert!(seen.latency() < Duration::from_millis(10));
    seen.watch(None, at(1_331));
    assert_eq!(seen.latency(), Duration::from_millis(1_301));
    assert_eq!(seen.state(), State::Down(Trouble::Failing), "as far as we know");
    assert!(!seen.is_probe_due(at(11_330)));
    assert!(seen.is_probe_due(at(11_331)));
    seen.reported(report(false, 5), at(4_000));
    assert!(seen.is_probe_due(at(4_000)), "a report may say so sooner");
}

#[test]
fn attempts_in_flight_are_probe_enough_after_a_stall() {
    let mut seen = observed();
    seen.started(at(0));
    seen.watch(Some(at(0)), at(100));
    assert_eq!(seen.state(), State::Down(Trouble::Stalled));
    assert!(!seen.is_probe_due(at(1_299)));
    seen.watch(None, at(1_301));
    assert_eq!(seen.state(), State::Down(Trouble::Slow), "older than an audit forgives");
    assert!(!seen.is_probe_due(at(11_300)));
    assert!(seen.is_probe_due(at(11_301)));
}

#[test]
fn a_stall_that_turns_out_to_be_failures_is_probed_like_failures() {
    let mut seen = observed();
    seen.started(at(0));
    seen.watch(Some(at(0)), at(100));
    seen.ended(at(0));
    seen.failed(at(0), true, at(150), 0.0);
    assert_eq!(seen.state(), State::Down(Trouble::Failing));
    assert!(seen.is_probe_due(at(175)));
}

#[test]
fn a_time_out_from_bad_times_does_not_take_a_recovered_processor_down() {
    // Attempts lost in a cut of the network time out 10 s later, many in one turn.
    let mut seen = observed();
    for _ in 0..10 {
        seen.started(at(0));
    }
    book(&mut seen, 5_000, 5_002);
    for _ in 0..10 {
        seen.ended(at(0));
        seen.failed(at(0), false, at(10_000), 0.0);
    }
    assert_eq!(seen.state(), State::Up);
}

#[test]
fn however_wrong_the_reports_a_processor_is_tried_again_as_a_last_resort() {
    for (is_failing, pause_ms) in [(false, 2_000), (true, 15_000)] {
        let mut seen = observed();
        seen.reported(report(is_failing, 5_000), at(1_000));
        assert!(seen.is_probe_due(at(1_000)), "not on its word alone");
        seen.started(at(1_000));
        seen.sent(at(1_000), at(1_000));
        seen.watch(None, at(2_400));
        assert!(!seen.is_probe_due(at(5_999)));
        seen.ended(at(1_000));
        for now in (6_000..60_000).step_by(5_000) {
            seen.reported(report(is_failing, 5_000), at(now));
            assert!(!seen.is_probe_due(at(now + 4_999)));
        }
        assert!(seen.is_last_resort_due(at(60_000)));
        assert!(!seen.is_probe_due(at(60_000)));
        seen.reported(report(is_failing, 5_000), at(61_001));
        assert!(seen.is_probe_due(at(61_001)), "nor for ever without evidence of its own");
        seen.started(at(60_000));
        seen.ended(at(60_000));
        assert!(!seen.is_last_resort_due(at(60_000 + pause_ms - 1)));
        assert!(seen.is_last_resort_due(at(60_000 + pause_ms)));
    }
}

#[test]
fn a_report_is_a_minimum_and_does_not_make_the_next_answer_look_late() {
    let mut seen = observed();
    for start in (0..1_000).step_by(100) {
        book(&mut seen, start, start + 100);
    }
    seen.reported(report(false, 0), at(5_000));
    seen.started(at(5_000));
    seen.watch(Some(at(5_000)), at(5_110));
    assert_eq!(seen.state(), State::Up);
}

#[test]
fn a_last_resort_that_fails_fast_is_news() {
    let mut seen = observed();
    seen.reported(report(false, 5_000), at(1_000));
    fail(&mut seen, 3_000, 3_020);
    assert_eq!(seen.state(), State::Down(Trouble::Failing));
    assert!(seen.is_probe_due(at(3_070)), "no longer slow: probed as usual");
}

#[test]
fn a_short_interruption_does_not_make_a_processor_new() {
    let mut seen = observed();
    seen.watch(Some(at(0)), at(5_000));
    assert_eq!(seen.up_for(at(5_001)), Duration::ZERO);
    book(&mut seen, 4_995, 5_010);
    assert_eq!(seen.up_for(at(5_010)), Duration::from_millis(5_010));
    seen.watch(Some(at(5_020)), at(6_000));
    book(&mut seen, 6_900, 7_000);
    assert_eq!(seen.up_for(at(7_000)), Duration::ZERO, "a second is long");
}

#[test]
fn too_many_requests_pause_and_narrow_the_window() {
    let mut seen = observed();
    for _ in 0..100 {
        seen.started(at(0));
    }
    seen.ended(at(0));
    seen.told_to_pause(Duration::from_secs(5), at(10));
    assert!(!seen.is_admitting(at(5_009)));
    assert!(seen.is_admitting(at(5_010)));
    assert_eq!(seen.window(), 50);
    seen.ended(at(0));
    seen.told_to_pause(Duration::from_secs(5), at(11));
    assert_eq!(seen.window(), 50, "a burst of refusals narrows it once");
    seen.ended(at(0));
    seen.recorded(at(0), at(20));
    assert_eq!(seen.window(), 51);
    seen.told_to_pause(Duration::from_secs(1 << 40), at(20));
    assert!(seen.is_admitting(at(20 + 30_000)), "no processor silences us for longer");
}
