//! Directories for journals that go away with the test, and what `galo journal` says of them.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own, removed with everything in it at the end, also after a failure.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("galo-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new directory");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside it, as an argument.
    pub fn join(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").into()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `galo journal check|dump PATH`
pub fn journal(action: &str, path: impl AsRef<Path>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_galo"))
        .args(["journal", action])
        .arg(path.as_ref())
        .output()
        .expect("the binary starts")
}

/// `galo journal check|copy|salvage ONE OTHER`
pub fn journal_of_two(action: &str, one: &str, other: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_galo"))
        .args(["journal", action, one, other])
        .output()
        .expect("the binary starts")
}

/// A record as `galo journal dump` prints it.
#[derive(Clone, Debug)]
pub struct Line {
    pub file: String,
    pub offset: u64,
    /// The words of the record, its kind first.
    pub words: Vec<String>,
}

/// Every record of a journal, in order, without what stands at the end of a file.
pub fn records(directory: &str) -> Vec<Line> {
    let output = journal("dump", directory);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let read = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let (file, offset) = (words.next()?, words.next()?.parse().ok()?);
        let line = Line { file, offset, words: words.collect() };
        (line.words.len() > 1).then_some(line)
    };
    text.lines().filter_map(read).collect()
}

/// The attempts of unknown outcome in a journal: id → processor and requestedAt in ms.
pub fn open_attempts(directory: &str) -> HashMap<String, (usize, i64)> {
    let mut open = HashMap::new();
    for Line { words, .. } in records(directory) {
        match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["Attempted", id, "at", processor, "requested", at] => {
                let at: jiff::Timestamp = at.parse().expect("a time");
                let processor = usize::from(processor == "fallback");
                open.insert(id.to_owned(), (processor, at.as_millisecond()));
            }
            ["Released" | "Settled" | "Foreign" | "Forwarded", id, ..] => {
                open.remove(id);
            }
            _ => {}
        }
    }
    open
}

/// The payments of a journal that are accepted and not over, and those that were rejected.
pub fn open_and_rejected(directory: &str) -> (HashSet<String>, HashSet<String>) {
    let (mut open, mut rejected) = (HashSet::new(), HashSet::new());
    for Line { words, .. } in records(directory) {
        let [kind, id, ..] = &words[..] else { continue };
        match kind.as_str() {
            "Accepted" | "Carried" => _ = open.insert(id.clone()),
            "Settled" | "Foreign" | "Forwarded" => _ = open.remove(id),
            "Rejected" => {
                open.remove(id);
                rejected.insert(id.clone());
            }
            _ => {}
        }
    }
    (open, rejected)
}

/// A disk of its own that can be made to stand still: an ext4 in a file.
pub struct Disk {
    mounted: Scratch,
    _image: Scratch,
}

/// Room for a new journal, and as much again.
const DISK_SIZE: u64 = 192 << 20;

impl Disk {
    /// `None`, and the reason on standard output, where this is not permitted.
    pub fn new() -> Option<Disk> {
        let (mounted, image) = (Scratch::new(), Scratch::new());
        let path = image.join("image");
        std::fs::File::create(&path).and_then(|file| file.set_len(DISK_SIZE)).expect("a file");
        let target = mounted.path().to_str().expect("UTF-8");
        for command in
            [&["mkfs.ext4", "-q", "-F", &path][..], &["mount", "-o", "loop", &path, target]]
        {
            let output = Command::new(command[0]).args(&command[1..]).output();
            if !output.as_ref().is_ok_and(|output| output.status.success()) {
                println!("skipped: {}: {output:?}", command[0]);
                return None;
            }
        }
        Some(Disk { mounted, _image: image })
    }

    pub fn join(&self, name: &str) -> String {
        self.mounted.join(name)
    }

    /// Whoever writes to it waits, until it goes on.
    pub fn freeze(&self) {
        assert!(self.is_done("-f"), "it can be frozen");
    }

    pub fn thaw(&self) {
        assert!(self.is_done("-u"), "it goes on");
    }

    fn is_done(&self, how: &str) -> bool {
        let status = Command::new("fsfreeze").arg(how).arg(self.mounted.path()).status();
        status.is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("fsfreeze").arg("-u").arg(self.mounted.path()).output();
        }
        let _ = Command::new("umount").arg("--lazy").arg(self.mounted.path()).status();
    }
}

/// A small file system in memory. Unmounted at the end, whoever may still use it.
pub struct Mount(Scratch);

impl Mount {
    /// `None`, and the reason on standard output, where this is not permitted.
    pub fn new(mebibytes: u32) -> Option<Mount> {
        let scratch = Scratch::new();
        let options = format!("size={mebibytes}m");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(scratch.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Mount(scratch)),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: mount(8) does not run: {error}");
                None
            }
        }
    }

    pub fn join(&self, name: &str) -> String {
        self.0.join(name)
    }

    pub fn resize(&self, mebibytes: u32) {
        let options = format!("remount,size={mebibytes}m");
        let status = Command::new("mount").args(["-o", &options]).arg(self.0.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "it can be resized");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
