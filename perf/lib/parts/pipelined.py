"""Several requests at once on a connection: the kernel's share shrinks, the server's shows."""

import statistics

from lib.parts import alternating
from lib.parts.floor import measure

TITLE = "Requests sent 1 to 64 at once on each of 64 connections"
NEEDS = {"tools": ["wrk"], "yardsticks": ["floor"]}
NAMES = ["floor", "galo none"]


def run(sheet, quick):
    depths = [1, 16] if quick else [1, 4, 16, 64]
    rounds, seconds = (1, 1) if quick else (3, 2)
    found = {}
    for depth in depths:
        for _, name in alternating(NAMES, rounds):
            found.setdefault((name, depth), []).append(measure(name, seconds, depth=depth))

    def cpu(name, depth):
        return [it["cpu"] for it in found[name, depth]]

    def per_core(name, depth):
        return 1e6 / statistics.median(cpu(name, depth))

    sheet.table("at once", [f"{name}, us CPU" for name in NAMES],
                {depth: [statistics.median(cpu(name, depth)) for name in NAMES] for depth in depths})
    for name in NAMES:
        sheet.figure(f"{name}: requests a second and core, 16 at once",
                     [1e6 / it for it in cpu(name, 16)], "/s", better="higher")
    sheet.ratio("none / floor: payments a second and core, 16 at once",
                [1 / it for it in cpu("galo none", 16)], [1 / it for it in cpu("floor", 16)],
                (">=", 0.50), better="higher")
    sheet.curve("requests a second and core", "requests at once", "requests/s and core",
                {name: [[depth, round(per_core(name, depth))] for depth in depths] for name in NAMES},
                log_y=True)
