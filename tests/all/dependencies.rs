//! What the program is built from: under which licences, and nothing twice that need not be.
//!
//! By the dependencies that Cargo.lock gives on the one platform there is, with every feature.
//! Dependencies of tests are looked at as well.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// None of them asks more than to be named (and BSD-3-Clause, not to be named as who commends this); a
/// licence that does has to be thought about.
const LICENCES: [&str; 9] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that stand in more than one version, and which crates need another than the newest.
const IN_SEVERAL_VERSIONS: [(&str, &str); 10] = [
    ("bitflags", "io-uring 0.6 and monoio"),
    ("getrandom", "monoio-http's TLS, which is never used, and sonic-rs"),
    ("hashbrown", "monoio-http"),
    ("mio", "monoio"),
    ("rustls", "monoio-http's TLS, which is never used"),
    ("rustls-webpki", "likewise"),
    ("socket2", "monoio"),
    ("syn", "macros of monoio and of thiserror 1"),
    ("thiserror", "monoio-http"),
    ("thiserror-impl", "monoio-http"),
];

/// A crate that is built here: name, version, licence.
type Crate = [String; 3];

fn crates() -> BTreeSet<Crate> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--prefix",
            "none",
            "--no-dedupe",
            "--all-features",
        ])
        .args(["--edges", "normal,build,dev", "--target", "x86_64-unknown-linux-gnu"])
        .args(["--format", "{p}|{l}"])
        .output()
        .expect("cargo is there");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {stderr}");
    let read = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some([name, version, licence].map(str::to_owned))
    };
    let tree = String::from_utf8(output.stdout).unwrap();
    // Blank lines and headings stand between the kinds of dependencies.
    let crates: BTreeSet<Crate> = tree.lines().filter_map(read).collect();
    assert!(crates.len() > 50, "{tree}");
    crates
}

/// Whether a licence's expression (SPDX, or with a slash for OR as in old crates) can be met by what
/// is allowed. Of the brackets only those around a whole term of AND are known.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    let mut terms = expression.split(" AND ");
    terms.all(|term| {
        let term = term.trim_start_matches('(').trim_end_matches(')');
        term.split(" OR ").any(|licence| LICENCES.contains(&licence))
    })
}

#[test]
fn every_dependency_may_be_used_and_passed_on() {
    for [name, version, licence] in crates() {
        assert!(is_allowed(&licence), "{name} {version}: {licence}");
    }
}

#[test]
fn expressions_of_licences_are_read() {
    for allowed in ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
        assert!(is_allowed(allowed), "{allowed}");
    }
    for not in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR Apache-2.0) AND GPL-3.0", "none", ""] {
        assert!(!is_allowed(not), "{not}");
    }
}

#[test]
fn no_crate_stands_in_two_versions_unless_it_must() {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for [name, version, _] in crates() {
        versions.entry(name).or_default().push(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let found: Vec<&str> = versions.keys().map(String::as_str).collect();
    assert_eq!(found, IN_SEVERAL_VERSIONS.map(|(name, _)| name), "{versions:#?}");
}
