"""What more event loops bring on this machine."""

import os
import statistics

from lib import machine
from lib.load import wrk
from lib.machine import Cost
from lib.parts import ROOM, alternating

TITLE = "1 to N event loops at full speed, 64 connections, durability none"
NEEDS = {"tools": ["wrk"], "yardsticks": []}


def measure(threads, seconds):
    nobody = [machine.free_port(), machine.free_port()]
    child, port, _ = machine.galo(nobody, *ROOM, "--threads", str(threads))
    with machine.running(child):
        wrk(port, 1)
        cost = Cost(child)
        load = wrk(port, seconds, threads=1 if threads < 3 else 2)
        cost.end()
        return {"cpu": cost.cpu / load["requests"] * 1e6, "rate": load["rate"],
                "switches": cost.switches / load["requests"]}


def run(sheet, quick):
    counts = list(range(1, min(os.cpu_count(), 14) + 2))
    rounds, seconds = (1, 1) if quick else (3, 2)
    found = {count: [] for count in counts}
    for _, count in alternating(counts, rounds):
        found[count].append(measure(count, seconds))

    def median(count, what):
        return statistics.median(it[what] for it in found[count])

    sheet.table("threads", ["us CPU", "payments/s", "switches a payment"], {
        count: [median(count, what) for what in ("cpu", "rate", "switches")] for count in counts})
    for count in counts:
        sheet.figure(f"{count} threads: CPU a payment", [it["cpu"] for it in found[count]], "us")
    sheet.curve("payments a second by threads", "threads", "payments/s",
                {"galo none": [[count, round(median(count, "rate"))] for count in counts]},
                log_x=False)
