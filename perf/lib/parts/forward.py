"""A payment's whole way: taken, forwarded to a processor on keep-alive, settled."""

import statistics

from lib import machine
from lib.load import exchange, wrk
from lib.machine import Cost
from lib.parts import ROOM, alternating

TITLE = "CPU of one payment taken, forwarded and settled, against the floor + a bare client"
NEEDS = {"tools": ["wrk"], "yardsticks": ["floor", "exchange"]}
LANES = 64


def whole_way(seconds, *arguments):
    """Microseconds of CPU a payment from the first byte to the last settlement. The processor costs
    as little as one can, so that it keeps up: what is queued in the end is waited for and counted."""
    port = machine.free_port()
    lanes = ["--processor-concurrency", str(LANES)]
    with machine.running(machine.floor(port, answer="processor")):
        child, entry, door = machine.galo([port, machine.free_port()], *ROOM, *lanes, *arguments)
        with machine.running(child):
            wrk(entry, 1)
            machine.wait_until(lambda: machine.metrics(door)["galo_waiting"] == 0, "all is settled")
            done = machine.settled(door)
            cost = Cost(child)
            load = wrk(entry, seconds)
            machine.wait_until(lambda: machine.settled(door) >= done + load["requests"],
                               "all is settled", timeout_s=120)
            cost.end()
            return {"cpu": cost.cpu / load["requests"] * 1e6, "rate": load["requests"] / cost.wall,
                    "switches": cost.switches / load["requests"]}


def bare(seconds):
    """The floor and the bare client at work at the same time, each for itself."""
    entry, port = machine.free_port(), machine.free_port()
    with machine.running(machine.floor(entry), machine.floor(port, answer="processor")) as servers:
        wrk(entry, 1)
        cost = Cost(servers[0])
        with machine.beside(lambda: exchange(port, seconds, LANES)) as client:
            load = wrk(entry, seconds)
        cost.end()
        taken, forwarded = cost.cpu / load["requests"] * 1e6, client.result["cpu_us"]
        return {"taken": taken, "forwarded": forwarded, "cpu": taken + forwarded}


def run(sheet, quick):
    rounds, seconds = (1, 1) if quick else (5, 3)
    ours, theirs = [], []
    for _, name in alternating(["galo", "bare"], rounds):
        if name == "galo":
            ours.append(whole_way(seconds))
        else:
            theirs.append(bare(seconds))
    sheet.figure("floor: CPU a request taken", [it["taken"] for it in theirs], "us")
    sheet.figure("bare client: CPU an exchange", [it["forwarded"] for it in theirs], "us")
    sheet.figure("galo: CPU a payment taken, forwarded, settled", [it["cpu"] for it in ours], "us")
    sheet.figure("galo: payments a second, to the last settlement",
                 [it["rate"] for it in ours], "/s", better="higher")
    sheet.figure("galo: context switches a payment", [it["switches"] for it in ours])
    def median(runs, what):
        return round(statistics.median(it[what] for it in runs), 3)

    sheet.bars("CPU of a payment", "microseconds of CPU a payment", {
        "floor + bare client": [["taken", median(theirs, "taken")],
                                ["forwarded", median(theirs, "forwarded")]],
        "galo": [["taken", 0], ["forwarded", 0], ["the whole way", median(ours, "cpu")]]})
    sheet.ratio("galo / (floor + bare client): CPU a payment", [it["cpu"] for it in ours],
                [it["cpu"] for it in theirs], ("<=", 1.30))
