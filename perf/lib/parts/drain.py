"""A backlog drained, against what wrk reaches with as many connections at the same processor."""

import statistics
import time

from lib import machine
from lib.load import wrk
from lib.parts import alternating
from lib.parts.peak import fill

TITLE = "A backlog drained over 400 connections, beside wrk with as many at the same processor"
NEEDS = {"tools": ["wrk"], "yardsticks": []}
LANES = 400


def drain(backlog):
    """Payments a second, from the first answers to the last hundredth: neither the probing before
    nor the tail, where connections run out of work, is counted."""
    ports = [machine.free_port(), machine.free_port()]
    started = [machine.processor(port) for port in ports]
    for port in ports:
        machine.configure(port, "failure", '{"failure":true}')
    child, entry, door = machine.galo(ports, "--processor-concurrency", str(LANES))
    with machine.running(*started, child):
        fill(entry, door, backlog)
        machine.configure(ports[0], "failure", '{"failure":false}')
        first = None
        while True:
            settled, now = machine.settled(door), time.monotonic()
            if first is None and settled > backlog * 0.05:
                first = (now, settled)
            if settled >= backlog * 0.99:
                return (settled - first[1]) / (now - first[0])
            time.sleep(0.01)


def reference():
    port = machine.free_port()
    with machine.running(machine.processor(port)):
        return wrk(port, 3, kind="bookings", connections=LANES)["rate"]


def run(sheet, quick):
    backlog, rounds = (20_000, 1) if quick else (100_000, 3)
    found = {"galo": [], "wrk": []}
    for _, name in alternating(["galo", "wrk"], rounds):
        found[name].append(drain(backlog) if name == "galo" else reference())
    sheet.figure(f"galo: payments settled a second, of {backlog:,}", found["galo"], "/s",
                 better="higher")
    sheet.figure("wrk: payments booked a second", found["wrk"], "/s", better="higher")
    # Not round by round: the processor's own speed drifts more than either differs from it.
    ratio = statistics.median(found["galo"]) / statistics.median(found["wrk"])
    sheet.figure("galo / wrk: payments a second (of the medians)", ratio, "x", (">=", 0.90),
                 better="higher")
