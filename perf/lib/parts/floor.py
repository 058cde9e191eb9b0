"""What one payment taken costs the server, against a server that does nothing."""

import contextlib
import statistics

from lib import machine
from lib.load import wrk
from lib.machine import Cost
from lib.parts import ROOM, alternating

TITLE = "CPU of one POST /payments taken at full speed, 64 connections; nothing is settled meanwhile"
NEEDS = {"tools": ["wrk", "perf"], "yardsticks": ["floor", "ordinary"]}
SYSCALLS = ("<=", 0.25)
NAMES = ["floor", "floor on epoll", "galo none", "galo process", "galo disk", "ordinary"]


@contextlib.contextmanager
def server(name):
    """The program of that name, and its port. Nobody listens at the processors' ports."""
    nobody = [machine.free_port(), machine.free_port()]
    if name.startswith("galo"):
        with machine.directory() as data:
            mode = name.split()[1]
            durable = [] if mode == "none" else ["--data", data, "--durability", mode]
            child, port, _ = machine.galo(nobody, *ROOM, *durable)
            with machine.running(child):
                yield child, port
        return
    port = machine.free_port()
    if name == "ordinary":
        child = machine.ordinary(port, nobody[0])
    else:
        child = machine.floor(port, on_epoll="epoll" in name)
    with machine.running(child):
        yield child, port


def measure(name, seconds, depth=1, connections=64):
    """CPU microseconds, in user space too, and context switches a request; requests a second."""
    with server(name) as (child, port):
        if seconds > 1:
            wrk(port, 1, connections=connections, depth=depth)
        cost = Cost(child)
        load = wrk(port, seconds, connections=connections, depth=depth)
        cost.end()
        return {
            "cpu": cost.cpu / load["requests"] * 1e6,
            "user": cost.user / load["requests"] * 1e6,
            "switches": cost.switches / load["requests"],
            "rate": load["rate"],
            "memory": machine.resident_mib(child),
            "cores": cost.cpu / cost.wall,
        }


def syscalls(name, clients=1):
    """System calls a request, and how many of them are io_uring_enter; None if perf cannot count."""
    with server(name) as (child, port):
        wrk(port, 1, threads=clients)
        calls, enters, load = machine.syscalls_during(child, lambda: wrk(port, 1, threads=clients))
        return [it if it is None else it / load["requests"] for it in (calls, enters)]


def run(sheet, quick):
    rounds, seconds = (1, 1) if quick else (9, 2)
    found = {name: [] for name in NAMES}
    for _, name in alternating(NAMES, rounds):
        found[name].append(measure(name, seconds))
    counted = {name: [syscalls(name) for _ in range(1 if quick else 3)] for name in NAMES}
    calls = {name: [it[0] for it in runs] for name, runs in counted.items()}
    enters = {name: [it[1] for it in runs] for name, runs in counted.items()}

    def each(name, what):
        return [it[what] for it in found[name]]

    for name in NAMES:
        sheet.figure(f"{name}: CPU a request", each(name, "cpu"), "us")
    for name in NAMES:
        sheet.figure(f"{name}: CPU in user space a request", each(name, "user"), "us")
    columns = ["us CPU (= s a million)", "requests/s", "switches", "syscalls",
               "io_uring_enter", "MiB resident"]
    sheet.table("medians", columns, {
        name: [
            statistics.median(each(name, "cpu")), statistics.median(each(name, "rate")),
            statistics.median(each(name, "switches")),
            median_or_none(calls[name]), median_or_none(enters[name]),
            statistics.median(each(name, "memory"))]
        for name in NAMES})
    draw(sheet, found)
    base = each("floor", "cpu")
    own = ("Beyond the floor's: strict parsing, the id's place in memory (a TLB miss), the ring, the "
           "journal's write; see perf/tried.md and perf/flamegraph payments.")
    sheet.ratio("none / floor: CPU a payment", each("galo none", "cpu"), base, ("<=", 1.15), why=own)
    sheet.ratio("process / floor: CPU a payment", each("galo process", "cpu"), base, ("<=", 1.30),
                why=own)
    sheet.ratio("disk / floor: CPU a payment", each("galo disk", "cpu"), base)
    sheet.ratio("process / none: CPU a payment", each("galo process", "cpu"),
                each("galo none", "cpu"), ("<=", 1.30))
    ordinary = each("ordinary", "cpu"), each("ordinary", "user")
    sheet.ratio("none / ordinary: CPU a payment", each("galo none", "cpu"), ordinary[0], ("<=", 0.75))
    sheet.ratio("none / ordinary: CPU in user space", each("galo none", "user"), ordinary[1],
                ("<=", 0.30))
    sheet.ratio("floor / floor on epoll: CPU a request", base, each("floor on epoll", "cpu"))
    if None in calls["galo none"]:
        sheet.unmeasured("galo none: syscalls a request", SYSCALLS, "perf does not count here")
        return
    more = "galo none: syscalls a request, two client threads"
    found = sheet.figure(more, [syscalls("galo none", 2)[0] for _ in range(1 if quick else 3)])
    batch = (f"A turn takes what one wrk thread has sent during the last one; with two it is {found:.2f}.")
    for name in ("floor", "galo none", "galo process"):
        goal = SYSCALLS if name == "galo none" else None
        sheet.figure(f"{name}: syscalls a request", calls[name], "", goal, why=batch)


def draw(sheet, found):
    lines = {}
    for name, runs in found.items():
        cpu, user = (statistics.median(it[what] for it in runs) for what in ("cpu", "user"))
        lines[name] = [["user space", round(user, 3)], ["kernel", round(cpu - user, 3)]]
    sheet.bars("CPU of a request", "microseconds of CPU a request; the kernel's part is loopback TCP",
               lines)


def median_or_none(values):
    return None if None in values else statistics.median(values)
