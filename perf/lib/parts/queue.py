"""What a deep queue does to the entry and to the dispatcher."""

from lib import machine
from lib.load import steady
from lib.machine import Cost
from lib.parts.peak import fill

TITLE = "A queue 10^2 to 10^5 deep: the entry at 600/s in front of it, and how fast it drains"
NEEDS = {"tools": [], "yardsticks": ["floor", "steady"]}
RATE = 600


def measure(depth, seconds):
    """The processors are not there until the queue is full; then the cheapest one comes up."""
    ports = [machine.free_port(), machine.free_port()]
    child, entry, door = machine.galo(ports)
    with machine.running(child):
        fill(entry, door, depth)
        cost = Cost(child)
        load = steady(entry, RATE, seconds)
        cost.end()
        waiting = depth + load["answered"]
        with machine.running(machine.floor(ports[0], answer="processor")):
            machine.wait_until(lambda: machine.settled(door) > 0, "the processor is found")
            drain, first = Cost(child), machine.settled(door)
            machine.wait_until(lambda: machine.settled(door) >= waiting, "the queue is empty")
            drained = waiting - first
            drain.end()
            # Of a few that are gone at once, the looking costs more than the settling.
            is_enough = drained > 5_000
        return {
            "p50": load["p50"] / 1000, "p99": load["p99"] / 1000,
            "cpu": cost.cpu / load["answered"] * 1e6,
            "settling": drain.cpu / drained * 1e6 if is_enough else None,
            "rate": drained / drain.wall if is_enough else None, "memory": machine.resident_mib(child),
        }


def run(sheet, quick):
    depths = [10**power for power in ((2, 4) if quick else (2, 3, 4, 5))]
    found = {depth: measure(depth, 1 if quick else 4) for depth in depths}
    columns = ["p50, ms", "p99, ms", "taking, us CPU", "settling, us CPU", "settled/s", "MiB resident"]
    sheet.table("waiting", columns, {
        depth: [it["p50"], it["p99"], it["cpu"], it["settling"], it["rate"], it["memory"]]
        for depth, it in found.items()})
    deep, shallow = found[depths[-1]], found[depths[0]]
    sheet.figure(f"p99 at {RATE}/s, {depths[-1]:,} / {depths[0]:,} waiting",
                 deep["p99"] / shallow["p99"], "x")
    sheet.figure(f"CPU of a payment settled from {depths[-1]:,} waiting", deep["settling"], "us")
    sheet.curve("latency by queue", "payments waiting", "ms", {
        "p50": [[depth, it["p50"]] for depth, it in found.items()],
        "p99": [[depth, it["p99"]] for depth, it in found.items()]}, log_y=True)
