//! What the black-box tests share: the real binary as a child process, and raw HTTP over a socket.
//!
//! Knows nothing of what is under test. On failure everything the child wrote on standard error is
//! printed, so that no run has to be repeated to see it.

pub mod certificates;
pub mod clients;
pub mod front;
pub mod journals;
pub mod ledger;
pub mod linearizable;
pub mod names;
#[cfg(feature = "cluster")]
pub mod postgres;
pub mod proxy;
pub mod seeds;
pub mod system;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Never reached by a test that passes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `galo`. Killed when dropped.
pub struct Galo {
    child: Child,
    /// The lines of its standard output.
    stdout: Mutex<Receiver<String>>,
    stderr: Arc<Mutex<String>>,
    stderr_reader: Option<JoinHandle<()>>,
}

impl Galo {
    /// Starts the binary with these arguments.
    pub fn start<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Galo {
        let mut command = Command::new(env!("CARGO_BIN_EXE_galo"));
        command.args(args);
        Galo::spawn(command)
    }

    /// Starts a command that is or becomes the binary.
    pub fn spawn(mut command: Command) -> Galo {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stdout = Mutex::new(lines_of(child.stdout.take().expect("stdout is piped")));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let stderr = Arc::new(Mutex::new(String::new()));
        let seen = stderr.clone();
        let stderr_reader = std::thread::spawn(move || {
            let mut line = String::new();
            while matches!(lines.read_line(&mut line), Ok(1..)) {
                seen.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Galo { child, stdout, stderr, stderr_reader: Some(stderr_reader) }
    }

    /// Waits for the next line `listening on ADDR` → a TCP address.
    pub fn address(&mut self) -> SocketAddr {
        self.endpoint().parse().expect("an address")
    }

    /// Waits for the next line `listening on ADDR` → the address, of whatever kind.
    pub fn endpoint(&mut self) -> String {
        loop {
            match self.stdout.get_mut().unwrap().recv_timeout(PATIENCE) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("listening on ") {
                        return address.to_owned();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("galo does not listen:\n{}", self.stderr());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("galo ended without listening:\n{}", self.finish_stderr());
                }
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its number.
    pub fn signal(&self, signal: i32) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.id().to_string()])
            .status()
            .expect("kill(1) runs");
        assert!(status.success(), "kill: {status}");
    }

    /// Stops it as if its machine had frozen, and returns when none of its threads runs any more.
    pub fn freeze(&self) {
        const SIGSTOP: i32 = 19;
        self.signal(SIGSTOP);
        let tasks = format!("/proc/{}/task", self.id());
        let is_stopped = |task: std::fs::DirEntry| {
            // The state is the first field behind the name, which is in brackets.
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_some_and(|fields| fields.starts_with(" T"))
        };
        wait_until("it is frozen", || {
            let mut tasks = std::fs::read_dir(&tasks).expect("the process is there").flatten();
            tasks.all(is_stopped)
        });
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        const SIGCONT: i32 = 18;
        self.signal(SIGCONT);
    }

    /// Waits for the end of the process → its status, and what it wrote on standard error.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("the child can be waited for");
        (status, self.finish_stderr())
    }

    /// Waits for an end that is to come by itself → its exit code, and its standard error.
    pub fn wait_for_end(&mut self) -> (Option<i32>, String) {
        wait_until("it ends", || !self.is_running());
        let (status, stderr) = self.wait();
        (status.code(), stderr)
    }

    /// What it has written on standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn finish_stderr(&mut self) -> String {
        if let Some(reader) = self.stderr_reader.take() {
            let _ = reader.join();
        }
        self.stderr.lock().unwrap().clone()
    }
}

/// The lines of a pipe as they come, so that waiting for one can have an end.
fn lines_of(pipe: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Read to its end even if nobody listens: the child must not meet a closed pipe.
        BufReader::new(pipe).lines().map_while(Result::ok).for_each(|line| {
            let _ = sender.send(line);
        });
    });
    receiver
}

impl Drop for Galo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let stderr = self.finish_stderr();
        if std::thread::panicking() {
            eprintln!("--- stderr of galo {} ---\n{stderr}---", self.child.id());
        }
    }
}

/// One answer, read from the raw bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A client's socket, of either kind.
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn set_read_timeout(&self, timeout: Duration) {
        let timeout = Some(timeout);
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
        }
        .expect("a time-out can be set");
    }

    fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client's connection that says exactly what it is told to.
pub struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    /// Connects; every read gives up after [`PATIENCE`].
    pub fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("it takes connections")
    }

    /// Connects, or says why not: for one that may be dead.
    ///
    /// # Errors
    /// The kernel's.
    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        Ok(Client::over(Stream::Tcp(stream)))
    }

    /// Sends a request and reads its answer, from one that may die meanwhile.
    ///
    /// # Errors
    /// As [`Client::receive`], and those of sending.
    pub fn try_call(&mut self, request: impl AsRef<[u8]>) -> io::Result<Answer> {
        self.stream.get_mut().write_all(request.as_ref())?;
        self.receive()
    }

    /// Connects to a unix socket.
    ///
    /// # Errors
    /// The kernel's: nobody may listen there.
    pub fn connect_unix(path: &Path) -> io::Result<Client> {
        UnixStream::connect(path).map(|stream| Client::over(Stream::Unix(stream)))
    }

    fn over(stream: Stream) -> Client {
        stream.set_read_timeout(PATIENCE);
        Client { stream: BufReader::new(stream) }
    }

    /// The TCP socket, for questions to the kernel about it.
    pub fn tcp(&self) -> &TcpStream {
        match self.stream.get_ref() {
            Stream::Tcp(stream) => stream,
            Stream::Unix(_) => panic!("not a TCP connection"),
        }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("it can be sent");
    }

    /// Reads one answer.
    ///
    /// # Errors
    /// `UnexpectedEof` if the connection ends first, `ConnectionReset` if it is reset, and
    /// `WouldBlock` if nothing comes.
    pub fn receive(&mut self) -> io::Result<Answer> {
        let mut answer = self.receive_head()?;
        let body = match (answer.header("transfer-encoding"), answer.header("content-length")) {
            (Some("chunked"), None) => self.chunks()?,
            (None, Some(length)) => self.exactly(length.parse().expect("a length"))?,
            (None, None) if answer.status == 204 || answer.status < 200 => Vec::new(),
            framing => panic!("unclear framing: {framing:?}"),
        };
        answer.body = String::from_utf8(body).expect("UTF-8");
        Ok(answer)
    }

    /// Reads one answer without a body, as those to HEAD are, whatever length it tells.
    ///
    /// # Errors
    /// As [`Client::receive`].
    pub fn receive_head(&mut self) -> io::Result<Answer> {
        let status_line = self.line()?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else {
                assert_eq!(line, "", "not a header");
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Answer { status, headers, body: String::new() })
    }

    /// Sends a request and reads its answer.
    pub fn call(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.receive().expect("an answer")
    }

    /// Waits for the end of the connection: `Ok` if it is closed in order, else the error.
    pub fn end(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing more was expected");
        Ok(())
    }

    /// Whether nothing comes, neither bytes nor the end, for `time`.
    pub fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream.get_ref().set_read_timeout(time);
        let nothing = matches!(&self.stream.fill_buf(), Err(error) if
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        self.stream.get_ref().set_read_timeout(PATIENCE);
        nothing
    }

    /// Says that nothing more will be sent, but keeps reading.
    pub fn half_close(&mut self) {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line()?, 16).expect("a chunk's length");
            body.extend(self.exactly(length)?);
            assert_eq!(self.line()?, "", "a chunk ends with a line break");
            if length == 0 {
                return Ok(body);
            }
        }
    }
}

/// A request as bytes. `headers` are whole lines, each with its line break.
pub fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: test\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// Asks until the answer is yes. For states of another process that can only be asked for.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_until_within(PATIENCE, what, || is_so().then_some(()).ok_or_else(String::new));
}

/// Asks until the answer is `Ok`; after `patience` fails with what it was last.
pub fn wait_until_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<T, String>,
) -> T {
    // Between two questions the others get the processor; the tests share two of them.
    const PAUSE: Duration = Duration::from_millis(1);
    let started = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) => assert!(started.elapsed() < patience, "in vain: {what} {last}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Allows this process and its children so many open files, where the usual limit of 1,024 is in
/// force. Without prlimit(1), or above the hard limit, everything stays as it is.
pub fn allow_open_files(count: u32) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next())
        .and_then(|soft| soft.parse::<u32>().ok());
    if soft.is_some_and(|soft| soft < count) {
        let pid = std::process::id().to_string();
        let limit = format!("--nofile={count}:");
        let _ = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    }
}
