"""Heap allocations a payment, counted under the allocator (perf/lib/allocations.c)."""

import os
import struct
import subprocess
import time

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
        # As many ids as it will ever remember, after a second: their table has its final size.
        small = ["--queue-capacity", "4096", "--ids-remembered", "4096"]
        child, entry, door = machine.galo([port, machine.free_port()], *small, *durable, env=env)
        with machine.running(child):
            at_start = counts(path)[0]
            # As many connections to the processor, and as much room, as any pause below can ask for.
            steady(entry, 4 * RATE, 1, connections=256)
            with machine.beside(lambda: steady(entry, RATE, seconds + 3)):
                # By then all connections are open and used.
                time.sleep(1.5)
                settled = machine.settled(door)
                before = counts(path)
                time.sleep(seconds)
                after = counts(path)
                settled = machine.settled(door) - settled
            return [(now - then) / settled for now, then in zip(after, before, strict=True)] + [at_start]


def run(sheet, quick):
    seconds = 2 if quick else 5
    for name, durable in (("none", []), ("process", ["--durability", "process"])):
        calls, size, at_start = measure(seconds, *durable)
        # Tables and lists grow now and then: 0.00 is none.
        goal, label = ("<", 0.005), f"durability {name}: heap allocations a payment"
        if at_start == 0:
            sheet.unmeasured(label, goal, "the instance does not use glibc's allocator")
            continue
        sheet.figure(label, calls, "", goal if name == "none" else None)
        sheet.figure(f"durability {name}: bytes asked for a payment", size, "B")
