//! House rules that a machine can check. A rule that is broken is named with file and line.

use std::fs;
use std::path::{Path, PathBuf};

/// The order in which to read the program; a room may use only those before it. `lib.rs` lists
/// the same.
fn modules() -> Vec<String> {
    let library = fs::read_to_string("src/lib.rs").unwrap();
    let names = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(String::from).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = ["src", "tests", "fuzz/src", "fuzz/targets"].map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

/// `src/payments/router.rs` belongs to the module `payments`.
fn module_of(path: &Path) -> Option<String> {
    let inner = path.strip_prefix("src").ok()?;
    let first = inner.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "main" && name != "lib").then(|| name.to_string())
}

#[test]
fn a_module_uses_only_modules_before_it() {
    let order = modules();
    let place = |name: &str| order.iter().position(|module| module == name);
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else { continue };
        let own = place(&module).unwrap_or_else(|| panic!("lib.rs does not list {module}"));
        // Test modules may look at anything: what they use does not ship.
        let shipped = text.split("#[cfg(test)]").next().unwrap();
        if path.file_name().is_some_and(|name| name == "tests.rs") {
            continue;
        }
        for (number, line) in shipped.lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let name: String =
                    used.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
                let used = place(&name);
                let allowed = used.is_none_or(|used| used <= own);
                assert!(allowed, "{}:{}: {module} uses {name}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn every_file_says_what_lives_in_it() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} has no //! header", path.display());
    }
}

#[test]
fn functions_fit_on_a_screen_and_lines_in_a_window() {
    const FUNCTION_LINES_MAX: usize = 70;
    const LINE_LENGTH_MAX: usize = 100;
    for (path, text) in sources() {
        let mut open: Option<(usize, usize)> = None;
        for (index, line) in text.lines().enumerate() {
            let is_text = line.contains('"') || line.trim_start().starts_with("//");
            let length = line.chars().count();
            assert!(
                length <= LINE_LENGTH_MAX || is_text,
                "{}:{}: {length} columns",
                path.display(),
                index + 1
            );
            let indent = line.len() - line.trim_start().len();
            let is_function = line.contains("fn ") && line.trim_end().ends_with('{');
            match open {
                None if is_function => open = Some((index, indent)),
                Some((start, depth)) if line.trim_end() == format!("{}}}", " ".repeat(depth)) => {
                    let lines = index - start + 1;
                    assert!(
                        lines <= FUNCTION_LINES_MAX,
                        "{}:{}: a function of {lines} lines",
                        path.display(),
                        start + 1
                    );
                    open = None;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn nothing_is_left_open_and_only_the_clock_reads_the_clock() {
    // Written in two parts, so that this file does not find itself.
    let banned: [(&str, &[&str]); 7] = [
        (concat!("FIX", "ME"), &[]),
        (concat!("TO", "DO"), &[]),
        (concat!("db", "g!("), &[]),
        (concat!("unimplemented", "!("), &[]),
        // Heap corruption from safe code in monoio 0.2.4.
        (concat!("Buf", "Writer"), &["src/journal/inspect.rs", "src/tools/export.rs"]), // std's, on stdout
        (concat!("SystemTime", "::now"), &["src/base/clock.rs"]),
        (concat!("Instant", "::now"), &["src/base/clock.rs"]),
    ];
    for (path, text) in sources() {
        let name = path.display().to_string();
        let shipped = text.split("#[cfg(test)]").next().unwrap();
        for (word, exempt) in banned {
            let in_tests = name.contains("tests/") || name.ends_with("tests.rs");
            if exempt.contains(&name.as_str()) || (in_tests && word.ends_with("now")) {
                continue;
            }
            for (index, line) in shipped.lines().enumerate() {
                assert!(!line.contains(word), "{name}:{}: {word}", index + 1);
            }
        }
    }
}

#[test]
fn the_table_of_flags_names_every_flag_and_no_other() {
    let document = fs::read_to_string("docs/operating.md").unwrap();
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_galo"))
        .args(["serve", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flag = |line: &str| line.split_whitespace().next()?.strip_prefix("--").map(String::from);
    let offered: Vec<String> = help.lines().filter_map(flag).filter(|it| it != "help").collect();
    assert!(offered.len() > 10, "{help}");
    let row = |line: &str| Some(line.strip_prefix("| `--")?.split('`').next()?.to_string());
    let named: Vec<String> = document.lines().filter_map(row).collect();
    assert_eq!(named, offered);
}

#[test]
fn commands_for_tests_name_a_part_that_is_there() {
    // A failing simulation prints how to replay it; that has to work when it is needed.
    let mut found = 0;
    for (path, text) in sources() {
        for (index, line) in text.lines().enumerate() {
            let Some((_, rest)) = line.split_once(concat!("cargo test --", "test ")) else {
                continue;
            };
            let place = format!("{}:{}", path.display(), index + 1);
            let part = rest.strip_prefix("all ").unwrap_or_else(|| panic!("{place}: not all"));
            let part = part.trim_start_matches("-- ").split("::").next().unwrap();
            assert!(Path::new(&format!("tests/all/{part}.rs")).exists(), "{place}: no {part}");
            found += 1;
        }
    }
    assert!(found >= 6, "{found}");
}

#[test]
fn the_code_is_formatted() {
    let status = std::process::Command::new("cargo").args(["fmt", "--check"]).status();
    // A toolchain without rustfmt can still run the tests.
    let formatted = status.map_or(true, |status| status.success());
    assert!(formatted, "run cargo fmt");
}
