//! A journal that holds nothing but settled payments, made in seconds: ten million cannot be driven
//! through a server in the time of a benchmark.
//!
//!     history --settled N --to DIRECTORY
//!
//! Writes the first segment the way the journal's keeper leaves it once all its payments are over:
//! `.books` (settlements, sorted) and `.ids` (here none); the layout stands in src/journal/head.rs
//! and src/journal/books.rs. One payment a millisecond up to the end of 2025, every twentieth at the
//! fallback processor.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// 2026-01-01T00:00:00Z in milliseconds since 1970.
const END_MS: i64 = 1_767_225_600_000;
const CENTS: i64 = 1990;
/// At the fallback: one of so many.
const FALLBACK_EVERY: i64 = 20;
const NUMBER: u32 = 1;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (settled, to) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--settled", settled, "--to", to] => (settled.parse().ok(), Path::new(to)),
        _ => (None, Path::new("")),
    };
    let Some(settled) = settled else {
        eprintln!("history --settled N --to DIRECTORY");
        std::process::exit(2);
    };
    let is_fallback = |number: &i64| number % FALLBACK_EVERY == 0;
    let mut body = Vec::new();
    let mut counts = [0_u64; 2];
    for fallback in [false, true] {
        for number in (0..settled).filter(|number| is_fallback(number) == fallback) {
            body.extend_from_slice(&(END_MS - settled + number).to_le_bytes());
            body.extend_from_slice(&CENTS.to_le_bytes());
            counts[usize::from(fallback)] += 1;
        }
    }
    std::fs::create_dir_all(to)?;
    write(&to.join(format!("{NUMBER:010}.books")), b"galo:bks", counts, &body)?;
    write(&to.join(format!("{NUMBER:010}.ids")), b"galo:ids", [0, 0], &[])
}

fn write(path: &Path, magic: &[u8; 8], counts: [u64; 2], body: &[u8]) -> io::Result<()> {
    const VERSION: u32 = 1;
    const FLAGS: u32 = 0;
    let mut head = magic.to_vec();
    for word in [VERSION, NUMBER, FLAGS, crc32c::crc32c(body)] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    for count in counts {
        head.extend_from_slice(&count.to_le_bytes());
    }
    head.extend_from_slice(&[0; 4]);
    head.extend_from_slice(&crc32c::crc32c(&head).to_le_bytes());
    let mut file = File::create(path)?;
    file.write_all(&head)?;
    file.write_all(body)
}
