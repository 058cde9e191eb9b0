//! The command line of `galo serve`: refused in words, or settings that hang together; and addresses,
//! URLs and fees are shown as what they are.

#![no_main]

use clap::Parser;
use galo::instance::config::{Config, ListenAddress, ServeArgs};
use galo::net::client::Url;
use galo_fuzz::fuzz_target;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    serve: ServeArgs,
}

fuzz_target!(|text: &str| {
    check_values(text);
    let words: Vec<&str> = text.split(['\n', ' ']).collect();
    // A value is tried without the cost of a whole command line.
    if !text.starts_with("--") {
        return;
    }
    let parsed = Command::try_parse_from(std::iter::once("galo").chain(words));
    let Ok(Command { serve }) = parsed else { return };
    let files =
        [&serve.accounts, &serve.admin_token_file, &serve.peer_token_file, &serve.processors];
    if files.iter().any(|file| file.is_some()) {
        return; // of this machine
    }
    match Config::new(serve) {
        Ok(config) => check(&config),
        Err(reason) => assert!(reason.contains("--") && !reason.contains('\n'), "{reason}"),
    }
});

fn check(config: &Config) {
    assert!((1..=64).contains(&config.threads));
    assert!(config.queue_capacity <= config.ids_remembered);
    assert!(config.peer.is_none() || config.peer_token.first().len() >= 8);
    assert!(config.peer.is_none() || config.peer_listen.is_some());
    assert!(!config.request_timeout.is_zero());
    for processor in &config.processors {
        assert!(processor.timeouts.answer > config.policy.attempt_latency_max);
        assert!(!processor.timeouts.connect.is_zero());
    }
    for address in &config.listen {
        config.leaves_v4(address);
    }
}

fn check_values(text: &str) {
    if let Ok(address) = text.parse::<ListenAddress>() {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(url) = text.parse::<Url>() {
        let shown = url.to_string();
        assert_eq!(format!("http://{shown}").parse(), Ok(url));
        // It goes into a header.
        assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
