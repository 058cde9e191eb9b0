"""The contest's peak without a balancer, and what a slow processor does to the entry."""

import re
import socket

from lib import machine
from lib.load import pooled, steady
from lib.machine import Cost
from lib.parts import alternating

TITLE = "600 payments/s: an instance's share of a core, and its own p99, also when processors are slow"
NEEDS = {"tools": [], "yardsticks": ["floor", "steady"]}


def pair_at_peak(sheet, seconds):
    ports = [machine.free_port(), machine.free_port()]
    started = [machine.processor(port) for port in ports]
    instances, entries, _ = machine.pair(ports)
    with machine.running(*started, *instances):
        costs = [Cost(child) for child in instances]
        with machine.beside(lambda: steady(entries[0], 300, seconds, kind="even")):
            steady(entries[1], 300, seconds, kind="odd")
        shares = [cost.end().cpu / cost.wall * 100 for cost in costs]
        sheet.figure("one instance of two: share of a core, serving and dispatching",
                     max(shares), "%", ("<", 8))
        sheet.figure("one instance of two: peak resident memory",
                     max(machine.resident_mib(child, peak=True) for child in instances), "MiB",
                     ("<", 16))


def quantile_between(before, after, share):
    """Upper bound, in ms, of the bucket in which the share of the requests in between falls. The
    text has powers of two only, so this is up to twice the true value."""
    def bound(name):
        text = re.search(r'le="([^"]+)"', name)[1]
        return float("inf") if text == "+Inf" else float(text)
    names = sorted((it for it in after if it.startswith("galo_entry_seconds_bucket")), key=bound)
    counts = [after[name] - before[name] for name in names]
    target = share * counts[-1]
    buckets = zip(names, counts, strict=True)
    return next(bound(name) for name, count in buckets if count >= target) * 1000


def fill(entry, door, count):
    """Posts so many payments at once, and waits until they are all in."""
    sent, stream = 0, socket.create_connection(("127.0.0.1", entry))
    before = machine.metrics(door)["galo_entry_seconds_count"]
    with stream:
        while sent < count:
            turn = min(500, count - sent)
            pieces = []
            for number in range(sent, sent + turn):
                body = f'{{"correlationId":"{entry:08x}-ffff-4000-8000-{number:012x}","amount":19.90}}'
                pieces.append(f"POST /payments HTTP/1.1\r\nHost: perf\r\n"
                              f"Content-Length: {len(body)}\r\n\r\n{body}")
            stream.sendall("".join(pieces).encode())
            wanted = turn * len(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            while wanted > 0:
                piece = stream.recv(min(wanted, 65536))
                assert piece and b" 503 " not in piece, piece[:200]
                wanted -= len(piece)
            sent += turn
    machine.wait_until(
        lambda: machine.metrics(door)["galo_entry_seconds_count"] >= before + count, "all are in")


def slow_processor(sheet, seconds):
    ports = [machine.free_port(), machine.free_port()]
    started = [machine.processor(port) for port in ports]
    machine.configure(ports[0], "delay", '{"delay":5000}')
    machine.configure(ports[1], "failure", '{"failure":true}')
    child, entry, door = machine.galo(ports)
    with machine.running(*started, child):
        fill(entry, door, 3_001)
        before = machine.metrics(door)
        steady(entry, 600, seconds)
        after = machine.metrics(door)
        assert after["galo_waiting"] > 3_000, after["galo_waiting"]
        sheet.figure("default answers after 5 s, fallback fails, 3,000 wait: p99 in the instance, <=",
                     quantile_between(before, after, 0.99), "ms", ("<", 0.3))


def durabilities(sheet, rounds, seconds):
    """Latency at each durability, payments forwarded and settled; in the instance's own buckets, and
    as a client sees it."""
    modes = ["none", "process", "disk"]
    inside, outside = {mode: [] for mode in modes}, {mode: [] for mode in modes}
    for _, mode in alternating(modes, rounds):
        with machine.directory() as data:
            durable = [] if mode == "none" else ["--data", data, "--durability", mode]
            port = machine.free_port()
            started = machine.floor(port, answer="processor")
            child, entry, door = machine.galo([port, machine.free_port()], *durable)
            with machine.running(child, started):
                steady(entry, 600, 0.5)
                before = machine.metrics(door)
                outside[mode].append(steady(entry, 600, seconds))
                inside[mode].append(quantile_between(before, machine.metrics(door), 0.99))
    for mode in modes:
        sheet.figure(f"{mode}: p99 at 600/s as a client sees it",
                     [it["p99"] / 1000 for it in outside[mode]], "ms")
    sheet.ratio("process / none: p99 at 600/s in the instance (buckets of powers of two)",
                inside["process"], inside["none"], ("<=", 1.10),
                why="A write(2) to the journal comes before each answer; that may be a bucket more.")
    sheet.latency_curve("latency by durability", {mode: pooled(outside[mode]) for mode in modes})


def run(sheet, quick):
    seconds = 2 if quick else 15
    pair_at_peak(sheet, seconds)
    slow_processor(sheet, seconds)
    durabilities(sheet, 1 if quick else 3, 1 if quick else 4)
