"""Programs started and ended, and what they cost: CPU, memory, switches, system calls.

Only programs started here are ever ended, by their ids, also after a failure and on Ctrl-C.
"""

import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
TARGET = os.path.join(ROOT, "target")
LIB = os.path.join(ROOT, "perf/lib")
YARDSTICKS = os.path.join(TARGET, "yardsticks/release")
TICKS = os.sysconf("SC_CLK_TCK")
TOKEN = "a-token-for-perf"
START_TIMEOUT_S = 30
PACKAGES = {"wrk": "wrk", "haproxy": "haproxy", "perf": "linux-perf", "cc": "gcc libc6-dev"}

galo_binary = os.environ.get("GALO", os.path.join(TARGET, "release/galo"))
children = []


def help_wanted(text):
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(text.strip())
        sys.exit(0)


def need(*tools):
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = " ".join(PACKAGES.get(tool, tool) for tool in missing)
        sys.exit(f"missing: {', '.join(missing)}; apt-get install -y {packages}")


def build_galo():
    if "GALO" in os.environ:
        if not os.access(galo_binary, os.X_OK):
            sys.exit(f"GALO={galo_binary}: there is no such program")
    else:
        print("building, if need be", file=sys.stderr)
        cargo("build", "--release", cwd=ROOT)


def build_yardsticks(*binaries):
    """Without `ordinary` none of its hundred dependencies is built."""
    folder = f"{ROOT}/perf/yardsticks"
    if "ordinary" in binaries:
        cargo("build", "--release", "--bin", "ordinary", cwd=folder)
    cargo("build", "--release", "--no-default-features", cwd=folder)


def cargo(*arguments, **options):
    """Cargo shows by itself how far it is, to people; whoever else reads gets its errors alone."""
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    subprocess.run(["cargo", *arguments, *quiet], check=True, **options)


# --- programs -------------------------------------------------------------------------------------


def end_with_the_signal():
    """SIGTERM unwinds like Ctrl-C, so that what was started is ended."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def start(*command, env=None, announces=True):
    """Starts a program and waits until it says that it listens."""
    log = tempfile.TemporaryFile("w+")
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE if announces else log, stderr=log, text=True,
        env={**os.environ, **(env or {})})
    child.log = log
    children.append(child)
    if announces and not child.stdout.readline().startswith("listening on"):
        log.seek(0)
        raise RuntimeError(f"{' '.join(command)} did not start: {log.read()[-1000:]}")
    return child


def stop(*ended):
    """Kills: what is measured is over, and what is not settled does not matter."""
    for child in ended:
        if child in children:
            children.remove(child)
            child.kill()
            child.wait()
            if child.stdout:
                child.stdout.close()
            child.log.close()


def stop_all():
    stop(*list(children))


@contextlib.contextmanager
def running(*started):
    try:
        yield started[0] if len(started) == 1 else started
    finally:
        stop(*started)


@contextlib.contextmanager
def directory():
    """On the disk that holds the project: a temporary file system has nothing to sync."""
    with tempfile.TemporaryDirectory(dir=TARGET, prefix="perf-") as path:
        yield path


_ports_given = set()


def free_port():
    """One that was not given before: what was to listen on an earlier one may not do so yet."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port not in _ports_given:
            _ports_given.add(port)
            return port


def at(port):
    return f"127.0.0.1:{port}"


def floor(port=None, path=None, answer="entry", on_epoll=False):
    where = f"unix:{path}" if path else at(port)
    options = ["--epoll"] if on_epoll else []
    return start(f"{YARDSTICKS}/floor", "--listen", where, "--answer", answer, *options)


def ordinary(port, processor_port):
    url = f"http://{at(processor_port)}"
    options = ["--default-url", url, "--fallback-url", f"http://{at(free_port())}"]
    return start(f"{YARDSTICKS}/ordinary", "--listen", at(port), *options)


def processor(port, *arguments):
    """The simulated processor of the contest, with its limits and delays."""
    return start(galo_binary, "processor", "--listen", at(port), *arguments)


def galo(processors, *arguments, listen=None, door=None, env=None):
    """One instance. Returns it with the ports of its entry and of its peer door (metrics)."""
    entry, door = free_port(), door or free_port()
    urls = [f"http://{at(port)}" for port in processors]
    child = start(
        galo_binary, "serve", "--listen", listen or at(entry), "--peer-listen", at(door),
        "--default-url", urls[0], "--fallback-url", urls[1], "--log", "error", *arguments, env=env)
    return child, entry, door


def pair(processors, *arguments, sockets=None, each=((), ())):
    """Two instances; at `sockets`/galo-N.sock if that directory is given, else on free ports."""
    doors, instances = [free_port(), free_port()], []
    for index in (0, 1):
        listen = f"unix:{sockets}/galo-{index + 1}.sock" if sockets else None
        instances.append(galo(
            processors, "--instance", str(index + 1), "--peer", f"http://{at(doors[1 - index])}",
            "--peer-token", TOKEN, *arguments, *each[index], listen=listen, door=doors[index]))
    wait_until(lambda: all(metrics(door)["galo_peer_up"] for door in doors), "the pair is up")
    return [it[0] for it in instances], [it[1] for it in instances], doors


def haproxy(port, sockets, alone=False):
    """The balancer as the contest uses it; `alone` it answers 202 by itself."""
    text = open(f"{ROOT}/haproxy.cfg").read()
    if alone:
        text = text.split("\nbackend instances")[0] + "\n"
        text = text.replace("default_backend instances", "http-request return status 202")
    path = f"{sockets}/haproxy.cfg"
    with open(path, "w") as file:
        file.write(text)
    env = {"ENTRY": f"127.0.0.1:{port}", "SOCKETS": sockets}
    child = start("haproxy", "-db", "-f", path, env=env, announces=False)

    def answers():
        if child.poll() is not None:
            child.log.seek(0)
            raise RuntimeError(f"HAProxy ended: {child.log.read()}")
        return status_of(port, "GET", "/payments-summary") in (200, 202)

    wait_until(answers, "HAProxy takes requests")
    return child


class beside:
    """Runs something on a thread beside the block; what it returned is in `result` afterwards."""

    def __init__(self, work):
        self.result = self.error = None
        self.thread = threading.Thread(target=self._run, args=(work,), daemon=True)

    def _run(self, work):
        try:
            self.result = work()
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join()
        if self.error:
            raise self.error


def sockets_directory():
    """Under /tmp: the path of a unix socket has 107 bytes at most."""
    return tempfile.TemporaryDirectory(dir="/tmp", prefix="galo-perf.")


def wait_until(is_so, what, timeout_s=START_TIMEOUT_S):
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError, IndexError):
            if is_so():
                return
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {timeout_s} s: {what}")
        time.sleep(0.02)


# --- one request ----------------------------------------------------------------------------------


def call(port, method, path, body="", headers=""):
    """One request on a connection of its own: status and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stream:
        head = f"{method} {path} HTTP/1.1\r\nHost: perf\r\nConnection: close\r\n{headers}"
        stream.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = b"".join(iter(lambda: stream.recv(65536), b""))
    head, body = answer.split(b"\r\n\r\n", 1)
    return int(head.split(b" ", 2)[1]), body.decode()


def status_of(port, method, path, body="", headers=""):
    return call(port, method, path, body, headers)[0]


def configure(port, name, body):
    """A call to the simulated processor's admin door."""
    assert call(port, "PUT", f"/admin/configurations/{name}", body, "X-Rinha-Token: 123\r\n")[0] < 300


def metrics(door):
    samples = {}
    for line in call(door, "GET", "/metrics")[1].splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    return samples


def settled(door):
    return sum(value for name, value in metrics(door).items() if name.startswith("galo_settled_total"))


# --- what it costs --------------------------------------------------------------------------------


def cpu_seconds(child):
    """Of all threads, also of those that have ended, to the nanosecond: the process's CPU clock."""
    return time.clock_gettime((~child.pid << 3) | 2)


def user_and_kernel_ticks(child):
    fields = open(f"/proc/{child.pid}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[11]), int(fields[12])


def switches(child):
    total = 0
    for task in os.listdir(f"/proc/{child.pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            text = open(f"/proc/{child.pid}/task/{task}/status").read()
            total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", text)))
    return total


def resident_mib(child, peak=False):
    status = open(f"/proc/{child.pid}/status").read()
    return int(re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+)", status)[1]) / 1024


class Cost:
    """What programs have spent between two moments."""

    def __init__(self, *measured):
        self.measured = measured
        self.begun = self._now()

    def _now(self):
        ticks = [user_and_kernel_ticks(it) for it in self.measured]
        return {
            "wall": time.monotonic(),
            "cpu": sum(map(cpu_seconds, self.measured)),
            "user_ticks": sum(it[0] for it in ticks),
            "kernel_ticks": sum(it[1] for it in ticks),
            "switches": sum(map(switches, self.measured)),
        }

    def end(self):
        now = self._now()
        spent = {name: now[name] - self.begun[name] for name in now}
        ticks = spent["user_ticks"] + spent["kernel_ticks"]
        self.wall, self.cpu = spent["wall"], spent["cpu"]
        # The kernel splits by sampling; the sum is exact.
        self.user = self.cpu * spent["user_ticks"] / max(ticks, 1)
        self.switches = max(spent["switches"], 0)
        return self


def syscalls_during(child, load):
    """System calls of a program while `load()` runs, how many of them are io_uring_enter, and what
    `load` returned. (None, None, …) if perf cannot count them."""
    events = "raw_syscalls:sys_enter,syscalls:sys_enter_io_uring_enter"
    command = ["perf", "stat", "-x,", "-e", events, "-p", str(child.pid)]
    with tempfile.TemporaryFile("w+") as output:
        counter = subprocess.Popen(command, stdout=output, stderr=output, text=True)
        children.append(counter)
        counter.log = tempfile.TemporaryFile()
        time.sleep(0.3)
        try:
            result = load()
        finally:
            counter.send_signal(signal.SIGINT)
            counter.wait()
            children.remove(counter)
        output.seek(0)
        text = output.read()
    found = [re.search(rf"^(\d+),,{event}", text, re.MULTILINE) for event in events.split(",")]
    return *(int(it[1]) if it else None for it in found), result


# --- the machine ----------------------------------------------------------------------------------


def first_line(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    except OSError:
        return "missing"
    return (done.stdout or done.stderr).strip().split("\n")[0]


def commit():
    text = first_line("git", "rev-parse", "--short=9", "HEAD")
    dirty = subprocess.run(["git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock"],
                           cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return text + ("-dirty" if dirty else "")


def busy_share(seconds=1.0):
    """How busy this machine is right now, of all its cores; steal (the host's others) included."""
    def read():
        numbers = list(map(int, open("/proc/stat").readline().split()[1:9]))
        return sum(numbers), numbers[3] + numbers[4]
    before = read()
    time.sleep(seconds)
    after = read()
    return 1 - (after[1] - before[1]) / max(after[0] - before[0], 1)


def stolen_seconds():
    return int(open("/proc/stat").readline().split()[8]) / TICKS


def description():
    cpu = re.search(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())
    memory = int(re.search(r"MemTotal:\s+(\d+)", open("/proc/meminfo").read())[1])
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory": f"{memory / 1024 / 1024:.1f} GiB",
        "kernel": platform.release(),
        "virtual": "hypervisor" in open("/proc/cpuinfo").read(),
        "rustc": first_line("rustc", "--version"),
        "wrk": first_line("wrk", "-v").split(" Copyright")[0],
        "haproxy": first_line("haproxy", "-v"),
        "perf": first_line("perf", "--version"),
    }
