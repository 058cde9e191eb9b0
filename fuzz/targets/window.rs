//! Times as text, and the windows of time that a summary is asked for.

#![no_main]

use galo::base::clock::{Micros, Rounding, Timestamp};
use galo::base::json;
use galo::instance::api::query::{decode_unreserved, read_bounds, read_window};
use galo::net::http::response::error_body;
use galo::payments::Window;
use galo::tools::simulator::units::MicroTimestamp;
use galo_fuzz::{Source, fuzz_target, percent_encoded};

fuzz_target!(|data: &[u8]| {
    check_time(data);
    check_query(data);
    assert!(decode_unreserved(data).len() <= data.len());
    assert_eq!(decode_unreserved(percent_encoded(b"/~aZ09._-").as_bytes()), b"%2f~aZ09._-");

    let mut source = Source::new(data);
    let years_of_four_digits = -62_167_219_200_000..=253_402_300_799_999;
    let mut bound = || {
        Timestamp(source.i64().clamp(*years_of_four_digits.start(), *years_of_four_digits.end()))
    };
    let (from, to) = (bound(), bound());
    let window = Window { from: Some(from), to: Some(to) };
    let query = format!("to={to}&from={from}");
    let read = read_window(Some(query.as_bytes()));
    assert_eq!(
        read,
        if from > to { Err("The bound from is after the bound to.".into()) } else { Ok(window) }
    );
    let bounds = read_bounds(Some(query.as_bytes())).expect("two times");
    assert_eq!(Window::from(bounds), window);
    let encoded =
        format!("to={}&_=1&{}={from}", percent_encoded(&to.text()), percent_encoded(b"from"));
    assert_eq!(read_bounds(Some(encoded.as_bytes())), Ok(bounds));
});

fn check_time(text: &[u8]) {
    let down = Timestamp::parse(text, Rounding::Down);
    let up = Timestamp::parse(text, Rounding::Up);
    assert_eq!(down.is_some(), up.is_some());
    assert_eq!(MicroTimestamp::parse(text).map(|at| at.0.div_euclid(1_000)), down.map(|at| at.0));
    if let (Some(down), Some(up)) = (down, up) {
        assert!((0..=1).contains(&(up.0 - down.0)));
        for at in [down, up] {
            assert_eq!(Timestamp::parse(&at.text(), Rounding::Up), Some(at));
            assert_eq!(at.to_string().as_bytes(), at.text());
        }
        let micros = Micros(down.0 * 1_000 + 999);
        assert_eq!(Timestamp::parse(&micros.text(), Rounding::Down), Some(down));
        for cut in 0..text.len().min(19) {
            assert_eq!(Timestamp::parse(&text[..cut], Rounding::Down), None);
        }
    }
    if let Some(bytes) = text.first_chunk() {
        // Whatever a file says can be shown.
        let any = i64::from_le_bytes(*bytes);
        assert!(Timestamp(any).text().is_ascii() && Micros(any).text().is_ascii());
    }
}

fn check_query(query: &[u8]) {
    let reason = match (read_bounds(Some(query)), read_window(Some(query))) {
        (Ok(bounds), Ok(window)) => {
            assert_eq!(Window::from(bounds), window);
            let both = [bounds.from, bounds.to].into_iter().flatten();
            for (down, up) in both {
                assert!((0..=1).contains(&(up.0 - down.0)));
            }
            if let (true, Some(from), Some(to)) = (window.is_empty(), window.from, window.to) {
                assert!(from.0 - to.0 <= 2, "empty only where two bounds are a millisecond apart");
            }
            return;
        }
        (Ok(bounds), Err(reason)) => {
            assert!(Window::from(bounds).is_empty());
            reason
        }
        (Err(reason), window) => {
            assert_eq!(window, Err(reason.clone()));
            reason
        }
    };
    assert!(reason.len() < 300, "an answer of any length on demand");
    json::read::<serde_json::Value>(&error_body(&reason)).expect("JSON that says why");
}
