//! The documents are held to what they say: links lead somewhere, flags and settings exist, the
//! README is short, and its commands do what it says they do.
//!
//! Reads Markdown as far as this repository uses it: headings with `#`, fenced and indented code,
//! code in backticks, links in brackets.

use crate::support::journals::Scratch;
use crate::support::system::{Instance, Processor, addresses, id, pair_with};
use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a newcomer reads in five minutes.
const README_WORDS_MAX: usize = 1_000;

/// Every document, with its text. Stored runs are no documents.
fn documents() -> Vec<(PathBuf, String)> {
    let in_folder = |folder: &str| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|it| it == "md")).collect::<Vec<_>>()
    };
    let paths = [".", "docs", "perf", "perf/contest"].into_iter().flat_map(in_folder);
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
    let documents: Vec<_> = paths.map(read).collect();
    assert!(documents.len() >= 7, "{documents:?}");
    documents
}

/// The lines of a document: its number, whether it is code, its text.
fn lines(text: &str) -> Vec<(usize, bool, &str)> {
    let (mut fenced, mut indented, mut after_blank) = (false, false, true);
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        indented = line.starts_with("    ") && (after_blank || indented);
        after_blank = line.is_empty();
        found.push((index + 1, fenced || indented, line));
    }
    found
}

/// What stands in backticks in a line.
fn code_in(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Every piece of code of a document, with its line: a command that is continued in the next line
/// is one piece.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut pieces: Vec<(usize, String)> = Vec::new();
    let mut continued = false;
    for (number, is_code, line) in lines(text) {
        if !is_code {
            pieces.extend(code_in(line).map(|code| (number, code.to_string())));
            continued = false;
            continue;
        }
        let piece = line.trim().trim_end_matches('\\').to_string();
        match pieces.last_mut().filter(|_| continued) {
            Some((_, started)) => *started += &piece,
            None => pieces.push((number, piece)),
        }
        continued = line.ends_with('\\');
    }
    pieces
}

/// The name that a heading can be linked by.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|it| it.is_alphanumeric() || " -_".contains(*it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect()
}

fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let headings =
        lines(text).into_iter().filter(|(_, is_code, line)| !is_code && is_heading(line));
    let named = headings.map(|(_, _, line)| {
        let slug = slug(line.trim_start_matches('#').trim());
        let times = seen.entry(slug.clone()).or_default();
        *times += 1;
        if *times == 1 { slug } else { format!("{slug}-{}", *times - 1) }
    });
    named.collect()
}

fn is_heading(line: &str) -> bool {
    line.trim_start_matches('#').starts_with(' ') && line.starts_with('#')
}

#[test]
fn the_readme_is_short() {
    let readme = fs::read_to_string("README.md").unwrap();
    let words = readme.split_whitespace().count();
    assert!(words <= README_WORDS_MAX, "{words} words");
}

#[test]
fn the_oldest_rust_is_the_same_everywhere() {
    let asked_for = concat!("Rust ", env!("CARGO_PKG_RUST_VERSION"), " or newer");
    for path in ["README.md", "CONTRIBUTING.md", "docs/operating.md"] {
        assert!(fs::read_to_string(path).unwrap().contains(asked_for), "{path}: {asked_for}");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut followed = 0;
    for (path, text) in documents() {
        for (number, is_code, line) in lines(&text) {
            if is_code {
                continue;
            }
            for rest in line.split("](").skip(1) {
                let target = rest.split(')').next().unwrap();
                if target.starts_with("https://") {
                    continue;
                }
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                let folder = path.parent().unwrap();
                let file = if file.is_empty() { path.clone() } else { folder.join(file) };
                let place = format!("{}:{number}: {target}", path.display());
                assert!(file.exists(), "{place}: no such file");
                if !anchor.is_empty() {
                    let anchors = anchors(&fs::read_to_string(&file).unwrap());
                    assert!(anchors.iter().any(|it| it == anchor), "{place}: not in {anchors:?}");
                }
                followed += 1;
            }
        }
    }
    assert!(followed > 20, "{followed}");
}

#[test]
fn a_word_of_the_glossary_is_defined_once() {
    let document = fs::read_to_string("docs/architecture.md").unwrap();
    let (_, glossary) = document.split_once("## Glossary\n").unwrap();
    let glossary = glossary.split("\n## ").next().unwrap();
    let rows = glossary.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let words = rows.filter(|word| *word != "word" && !word.starts_with("---"));
    let words: Vec<_> = words.flat_map(|row| row.split(['(', ')', ','])).map(str::trim).collect();
    for word in ["lease", "reach", "home", "guest", "adopt", "foreign", "lane", "door", "greeting"]
    {
        assert!(words.contains(&word), "{word} is not defined");
    }
    for (index, word) in words.iter().enumerate().filter(|(_, word)| !word.is_empty()) {
        assert!(!words[..index].contains(word), "{word} is defined twice");
    }
}

/// Whoever is woken by one finds it there.
#[test]
fn every_alert_is_explained_and_no_other() {
    let rules = fs::read_to_string("deploy/alerts.yml").unwrap();
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = alerts.collect();
    let document = fs::read_to_string("docs/operating.md").unwrap();
    let explained = document.lines().filter_map(|line| line.strip_prefix("| `Galo"));
    let explained: Vec<_> =
        explained.map(|rest| format!("Galo{}", rest.split('`').next().unwrap())).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    assert_eq!(alerts, explained);
}

/// What is set there is a setting; and the one for teams opens nothing.
#[test]
fn the_files_in_deploy_set_what_there_is() {
    let known = help("serve");
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    for path in ["docker-compose.yml", "deploy/docker-compose.yml", "deploy/galo.env"] {
        let text = fs::read_to_string(path).unwrap();
        let settings = text.split(|it| !is_part(it)).filter(|it| it.starts_with("GALO_"));
        for setting in settings {
            let is_known = known.split(|it| !is_part(it)).any(|it| it == setting);
            assert!(is_known, "{path}: nothing knows {setting}");
        }
    }
    let team = fs::read_to_string("deploy/docker-compose.yml").unwrap();
    let lines = || team.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    assert!(lines().all(|line| !line.contains("GALO_ALLOW_PURGE")));
    let ports: Vec<_> = lines().filter(|line| line.starts_with("ports:")).collect();
    assert_eq!(ports.len(), 3);
    assert!(ports.iter().all(|line| line.starts_with(r#"ports: ["127.0.0.1:"#)), "{ports:?}");
    for given in ["GALO_DURABILITY: disk", "GALO_PEER_TOKEN_FILE: /secrets/peer-token"] {
        assert!(lines().any(|line| line == given), "{given}");
    }
}

fn help(subcommand: &str) -> String {
    let mut galo = Command::new(env!("CARGO_BIN_EXE_galo"));
    let output = galo.args(subcommand.split(' ')).arg("--help").output().unwrap();
    assert!(output.status.success(), "galo {subcommand}: no such command");
    String::from_utf8(output.stdout).unwrap()
}

/// The flags that a help text offers.
fn flags_of(help: &str) -> Vec<String> {
    let words = help.split_whitespace().filter(|word| word.starts_with("--"));
    words.map(|word| word.trim_end_matches(',').to_string()).collect()
}

/// The words of each `galo` command in a piece of code, without what stands before and behind it.
fn galo_commands(code: &str) -> Vec<Vec<&str>> {
    let code = code.split(" #").next().unwrap();
    let code = code.split(['&', '|', ';', '(', ')']);
    let commands = code.filter_map(|command| {
        let words: Vec<_> = command.split_whitespace().collect();
        let is_galo = |word: &&str| *word == "galo" || word.ends_with("/release/galo");
        let by_name = words.iter().position(is_galo);
        let by_cargo = words.windows(2).position(|it| it == ["--release", "--"]);
        let from = by_name.map(|it| it + 1).or(by_cargo.map(|it| it + 2))?;
        Some(words[from..].to_vec())
    });
    commands.collect()
}

#[test]
fn every_command_and_flag_of_galo_that_is_named_exists() {
    let mut helps: HashMap<String, Vec<String>> = HashMap::new();
    let mut found = 0;
    for (path, text) in documents() {
        for (number, piece) in code(&text) {
            for words in galo_commands(&piece) {
                // `GALO=target/release/galo` and the like name no command.
                let Some(first) = words.first().filter(|it| it.starts_with(char::is_alphabetic))
                else {
                    continue;
                };
                let subcommand = match (*first, words.get(1)) {
                    ("journal", Some(second)) => format!("journal {second}"),
                    (first, _) => first.to_string(),
                };
                let flags = helps
                    .entry(subcommand.clone())
                    .or_insert_with_key(|subcommand| flags_of(&help(subcommand)));
                for flag in words.iter().filter(|word| word.starts_with("--")) {
                    let name = flag.split('=').next().unwrap();
                    let place = format!("{}:{number}: galo {subcommand}", path.display());
                    assert!(flags.iter().any(|it| it == name), "{place} has no {name}");
                    found += 1;
                }
            }
        }
    }
    assert!(found > 10, "{found}");
}

/// Everything that takes flags or settings: galo's own help, and the scripts.
fn known_words() -> String {
    let commands = [
        "serve",
        "processor",
        "rehearse",
        "demo",
        "judge",
        "reconcile",
        "export",
        "check-config",
        "journal check",
        "journal dump",
        "journal copy",
        "journal salvage",
    ];
    let mut known: String = commands.map(help).concat();
    for folder in [".ci", "perf", "perf/contest", "tests/all/support"] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && path.extension().is_none_or(|it| it != "md") {
                known += &fs::read_to_string(path).unwrap();
            }
        }
    }
    known
}

#[test]
fn every_flag_and_setting_that_is_named_exists() {
    let known = known_words();
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    for (path, text) in documents() {
        for (number, piece) in code(&text) {
            // A flag that is named by itself; those of a command may be another program's.
            let flag = piece.starts_with("--").then(|| piece.split(|it| !is_part(it)).next());
            let settings = piece.split(|it| !is_part(it)).filter(|it| it.starts_with("GALO_"));
            for word in flag.flatten().into_iter().chain(settings).filter(|it| *it != "GALO_") {
                let is_known = known.split(|it| !is_part(it)).any(|it| it == word);
                assert!(is_known, "{}:{number}: nothing knows {word}", path.display());
            }
        }
    }
}

/// The first block of code under a heading.
fn block_under<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, section) = text.split_once(heading).unwrap();
    let (_, block) = section.split_once("```sh\n").unwrap();
    block.split("```").next().unwrap()
}

/// The commands for backups and repairs, in the order they stand there, on the journals of a pair.
#[test]
fn the_backups_of_the_manual_do_what_they_say() {
    let scratch = Scratch::new();
    let processors = Processor::both();
    let data = ["data/1", "data/2"].map(|name| scratch.join(name));
    let args = data.each_ref().map(|data| ["--data", &**data]);
    let mut pair = pair_with(addresses(&processors), args.each_ref().map(|it| &it[..]));
    assert_eq!(pair[0].pay(&id(2), "19.90").status, 202);
    pair.iter().for_each(Instance::settle);
    pair.iter_mut().for_each(Instance::kill);
    let manual = fs::read_to_string("docs/operating.md").unwrap();
    let script = block_under(&manual, "\n## Backups and repairs");
    let output = Command::new("bash")
        .args(["-e", "-c", script])
        .current_dir(scratch.path())
        .env("PATH", path_with_galo())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let said = format!("{}\n{stdout}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for expected in [
        "data/1 and data/2 are a pair\n",
        "backup-1: a copy of data/1, ",
        "nothing is lost; a start with salvaged-1 asks before it pays, as with a copy\n",
    ] {
        assert!(stdout.contains(expected), "{expected}: {said}");
    }
    pair[0].start_again();
    assert!(pair[0].galo.stderr().contains("it is a copy, or was restored"), "{said}");
}

/// Where commands are found, the binary first.
fn path_with_galo() -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_galo")).parent().unwrap();
    format!("{}:{}", binary.display(), std::env::var("PATH").unwrap())
}

/// A loopback address that nobody else here uses, so that a port which was free on it stays free.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 100 + high % 100, middle, low.max(2))
}

#[test]
fn the_try_by_hand_of_the_readme_does_what_it_says() {
    if !Command::new("curl").arg("--version").output().is_ok_and(|it| it.status.success()) {
        eprintln!("left out: there is no curl");
        return;
    }
    let readme = fs::read_to_string("README.md").unwrap();
    let mut script = block_under(&readme, "## Try it by hand").to_string();
    let address = own_address();
    let ports = ["8001", "8002", "9001", "9002", "9101", "9102"];
    let free = ports.map(|_| TcpListener::bind((address, 0)).unwrap());
    for (port, free) in ports.iter().zip(&free) {
        let free = free.local_addr().unwrap().port().to_string();
        assert!(script.contains(port), "{port}");
        // Marked, or a free port could be taken for one that is still to be replaced.
        script = script.replace(port, &format!("\u{1}{free}\u{1}"));
    }
    drop(free);
    let script = script.replace('\u{1}', "").replace("localhost", "127.0.0.1");
    let script = script.replace("127.0.0.1", &address.to_string());
    let directory = Scratch::new();
    // Whatever happens, nothing that it started stays behind.
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{script}\nwait");
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", &script])
        .current_dir(directory.path())
        .env("PATH", path_with_galo())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = format!("{}\n{script}\n{stdout}\n{stderr}", output.status);
    assert!(output.status.success(), "{said}");
    assert_eq!(stdout.matches("HTTP/1.1 202 Accepted").count(), 2, "{said}");
    assert_eq!(stdout.matches("listening on ").count(), 6, "{said}");
    let summary = concat!(
        r#"{"default":{"totalRequests":1,"totalAmount":19.90},"#,
        r#""fallback":{"totalRequests":1,"totalAmount":5.00}}"#
    );
    assert!(stdout.contains(summary), "{said}");
    assert!(stdout.contains(r#"{"limite":100000,"saldo":-1000}"#), "{said}");
    assert!(stdout.contains(r#""descricao":"bread""#), "{said}");
    assert!(directory.path().join("data/1").is_dir(), "{said}");
}
