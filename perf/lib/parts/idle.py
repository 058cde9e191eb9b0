"""What an instance costs that nobody uses."""

import time

from lib import machine
from lib.machine import Cost

TITLE = "An instance without traffic, both processors up, after 200 requests"
NEEDS = {"tools": [], "yardsticks": ["floor"]}


def run(sheet, quick):
    seconds = 2 if quick else 15
    ports = [machine.free_port(), machine.free_port()]
    started = [machine.floor(port, answer="processor") for port in ports]
    child, entry, _ = machine.galo(ports)
    with machine.running(*started, child):
        for _ in range(200):
            machine.call(entry, "GET", "/healthz")
        time.sleep(1)
        cost = Cost(child)
        time.sleep(seconds)
        cost.end()
        # One digit behind the point, as `top` shows it: below 0.05 % is 0.0 %.
        sheet.figure("CPU of a core", cost.cpu / cost.wall * 100, "%", ("<", 0.05))
        sheet.figure("context switches a second", cost.switches / cost.wall, "/s")
        sheet.figure("resident memory", machine.resident_mib(child), "MiB", ("<", 8))
