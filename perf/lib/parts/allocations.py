"""Heap allocations a payment, counted under the allocator (perf/lib/allocations.c)."""

import os
import struct
import subprocess

from lib import machine
from lib.load import steady

TITLE = "Heap allocations a payment taken, forwarded and settled at 2,000/s"
NEEDS = {"tools": ["cc"], "yardsticks": ["floor", "steady"]}
RATE = 2_000


def build():
    shim = f"{machine.TARGET}/perf-allocations.so"
    source = f"{machine.LIB}/allocations.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", shim, source], check=True)
    return shim


def counts(path):
    with open(path, "rb") as file:
        return struct.unpack("=QQ", file.read(16))


def measure(seconds, *arguments):
    """Calls and bytes a payment, and the calls of the whole start."""
    shim, port = build(), machine.free_port()
    with machine.directory() as folder, machine.running(machine.floor(port, answer="processor")):
        path = f"{folder}/counts"
        with open(path, "wb") as file:
            file.write(bytes(16))
        env = {"LD_PRELOAD": shim, "GALO_ALLOCATIONS": path}
        durable = ["--data", f"{folder}/data", *arguments] if arguments else []
        os.makedirs(f"{folder}/data")
        child, entry, door = machine.galo([port, machine.free_port()], *durable, env=env)
        with machine.running(child):
            at_start = counts(path)[0]
            # Until tables and lists have grown; the connections of the measured load are its own.
            steady(entry, RATE, seconds)
            machine.wait_until(lambda: machine.settled(door) >= RATE * seconds, "all is settled")
            before = counts(path)
            load = steady(entry, RATE, seconds)
            machine.wait_until(lambda: machine.settled(door) >= 2 * RATE * seconds, "all is settled")
            after = counts(path)
            return [(now - then) / load["answered"] for now, then in zip(after, before)] + [at_start]


def run(sheet, quick):
    seconds = 2 if quick else 5
    for name, durable in (("none", []), ("process", ["--durability", "process"])):
        calls, size, at_start = measure(seconds, *durable)
        # Two in a hundred payments and fewer: connections, growing tables and the look at the metrics.
        goal, label = ("<", 0.02), f"durability {name}: heap allocations a payment"
        if at_start == 0:
            sheet.unmeasured(label, goal, "the instance does not use glibc's allocator")
            continue
        sheet.figure(label, calls, "", goal if name == "none" else None)
        sheet.figure(f"durability {name}: bytes asked for a payment", size, "B")
