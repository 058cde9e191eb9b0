"""The contest's peak through its balancer, against the balancer answering by itself."""

from lib import machine
from lib.load import pooled, quantile, steady
from lib.machine import Cost
from lib.parts import alternating

TITLE = "600 payments/s on 600 connections through HAProxy, timed from when each was due"
NEEDS = {"tools": ["haproxy"], "yardsticks": ["floor", "steady"]}
RATE, CONNECTIONS = 600, 600
NAMES = ["HAProxy alone", "HAProxy + floor", "HAProxy + galo, taking", "HAProxy + galo"]


def measure(name, seconds):
    """CPU microseconds a request of the balancer and what stands behind it, and the times. `taking`:
    no processor is there, so the instances do what the floor does, and queue."""
    with machine.sockets_directory() as sockets:
        behind, processors = [], [machine.free_port(), machine.free_port()]
        if name.endswith("galo"):
            processors = [machine.free_port(), machine.free_port()]
            started = [machine.floor(port, answer="processor") for port in processors]
        else:
            started = []
        if "galo" in name:
            behind, _, _ = machine.pair(processors, sockets=sockets)
        elif "floor" in name:
            # 200 and not 202: HAProxy asks it for its health with the contest's own settings.
            behind = [machine.floor(path=f"{sockets}/galo-{number}.sock", answer="healthy")
                      for number in (1, 2)]
        port = machine.free_port()
        balancer = machine.haproxy(port, sockets, alone=name.endswith("alone"))
        with machine.running(balancer, *behind, *started):
            steady(port, RATE, 1, connections=CONNECTIONS)
            cost = Cost(balancer, *behind)
            front = Cost(balancer)
            load = steady(port, RATE, seconds, connections=CONNECTIONS)
            cost.end(), front.end()
            load["cpu"] = cost.cpu / load["answered"] * 1e6
            load["front"] = front.cpu / load["answered"] * 1e6
            load["share"] = cost.cpu / cost.wall * 100
        return load


def run(sheet, quick):
    rounds, seconds = (1, 2) if quick else (9, 5)
    found = {name: [] for name in NAMES}
    for _, name in alternating(NAMES, rounds):
        found[name].append(measure(name, seconds))

    def each(name, what):
        return [it[what] for it in found[name]]

    for name in NAMES:
        sheet.figure(f"{name}: CPU a request", each(name, "cpu"), "us")
        sheet.figure(f"{name}: of which HAProxy", each(name, "front"), "us")
    alone, floor, taking, galo = NAMES
    cold = ("A payment wakes a sleeping instance each time: user space runs two and a half times the "
            "floor's instructions (forwarding: five times) at a fifth of the pace of full speed.")
    sheet.ratio("HAProxy + two instances / HAProxy + floor: CPU a request, both only taking",
                each(taking, "cpu"), each(floor, "cpu"), ("<=", 1.15), why=cold)
    sheet.ratio("the same with the payments forwarded and settled, which the floor does not do",
                each(galo, "cpu"), each(floor, "cpu"))
    histograms = {name: pooled(found[name]) for name in NAMES}
    shares = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)]
    sheet.table("all rounds, ms", [label for label, _ in shares] + ["max"], {
        name: [quantile(histograms[name], share) / 1000 for _, share in shares]
        + [max(each(name, "max")) / 1000] for name in NAMES})
    hop = ("HAProxy alone has no second hop, and no second process to wake; the floor behind HAProxy, "
           "measured above, pays that as well.")
    for label, what, goal in (("p99", "p99", 1.25), ("p99.9", "p999", 1.5)):
        for name, limit in ((floor, None), (galo, ("<=", goal))):
            sheet.ratio(f"{name} / HAProxy alone: {label}", each(name, what), each(alone, what), limit,
                        why=hop)
    sheet.latency_curve("latency at 600 a second", histograms)
