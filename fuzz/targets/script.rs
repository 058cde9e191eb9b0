//! The simulated processor's script: refused, or every answer that it leads to is of bounded length,
//! and has no header that was not asked for.

#![no_main]

use galo::tools::simulator::script::{Script, ScriptedCall};
use galo_fuzz::fuzz_target;

/// A body, and what stands in the script itself.
const ANSWER_BYTES_MAX: usize = (64 << 20) + 1024;

fuzz_target!(|document: &[u8]| {
    // Bodies of megabytes cost time and show nothing that those of kilobytes do not.
    let times = document.windows(9).position(|it| it == b"bodyTimes");
    let digits =
        times.map_or(0, |at| document[at..].iter().filter(|it| it.is_ascii_digit()).count());
    let Some(mut script) = Script::read(document).filter(|_| digits < 5) else { return };
    let rules = script.rules();
    let lines_max = 3 + headers_max(document);
    assert!(rules <= document.len() / r#"{"call":"pay"}"#.len() + 1);
    let calls = [ScriptedCall::Pay, ScriptedCall::Look, ScriptedCall::Health];
    for (call, id) in
        calls.into_iter().cycle().zip(["", "4a7901b8", "a"].into_iter().cycle()).take(9)
    {
        let Some(scripted) = script.next(call, id) else { continue };
        assert!(rules > 0 && scripted.delay.as_secs() <= 3_600);
        let Some(answer) = scripted.answer else { continue };
        assert!(answer.len() <= ANSWER_BYTES_MAX + document.len());
        if scripted.is_cut {
            continue;
        }
        let head = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("the end of a head");
        let head = String::from_utf8_lossy(&answer[..head]).into_owned();
        assert!(head.starts_with("HTTP/1.1 "));
        assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head:?}");
        assert!(head.split("\r\n").count() <= lines_max, "{head:?}");
        let names = head.to_ascii_lowercase();
        let said = names.split("\r\n").filter_map(|line| line.strip_prefix("content-length: "));
        let is_framed = said.count() > 0 || names.contains("\r\ntransfer-encoding: ");
        assert!(is_framed, "nobody would know where it ends: {head:?}");
    }
    assert_eq!(script.rules(), rules);
});

/// So many headers has the rule that has most.
fn headers_max(script: &[u8]) -> usize {
    let script: serde_json::Value = serde_json::from_slice(script).expect("JSON");
    let rules = script["rules"].as_array().expect("rules");
    let count = |rule: &serde_json::Value| rule["headers"].as_object().map_or(0, |it| it.len());
    rules.iter().map(count).max().unwrap_or(0)
}
