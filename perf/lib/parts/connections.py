"""How cost and speed change with the number of connections."""

import statistics

from lib.parts import alternating
from lib.parts.floor import measure

TITLE = "1 to 10,000 keep-alive connections at full speed, durability none"
NEEDS = {"tools": ["wrk"], "yardsticks": ["floor"]}
NAMES = ["floor", "galo none"]


def run(sheet, quick):
    counts = [1, 1_000] if quick else [1, 16, 128, 1_024, 10_000]
    rounds, seconds = (1, 1) if quick else (3, 2)
    found = {}
    for count in counts:
        for _, name in alternating(NAMES, rounds):
            found.setdefault((name, count), []).append(measure(name, seconds, connections=count))

    def median(name, count, what):
        return statistics.median(it[what] for it in found[name, count])

    columns = [("cpu", "us CPU"), ("rate", "requests/s"), ("memory", "MiB")]
    sheet.table("connections", [f"{name}, {unit}" for _, unit in columns for name in NAMES],
                {count: [median(name, count, what) for what, _ in columns for name in NAMES]
                 for count in counts})
    for count in counts:
        sheet.ratio(f"none / floor: CPU a payment, {count:,} connections",
                    [it["cpu"] for it in found["galo none", count]],
                    [it["cpu"] for it in found["floor", count]])
    for what, unit in (("rate", "requests a second"), ("cpu", "us CPU a request")):
        lines = {name: [[count, round(median(name, count, what), 2)] for count in counts]
                 for name in NAMES}
        sheet.curve(f"{what} by connections", "connections", unit, lines, log_y=what == "cpu")
