#!/usr/bin/env python3
"""Measures the containers of a run until SIGTERM, then prints a table and what is wrong.

    python3 perf/contest/containers.py SERVICE=CONTAINER-ID ...

What lives here: reading control groups (version 1 or 2) and the limits the rules set. CPU time and
throttled periods count from the first look; memory is the container's peak since it was started.
Only the standard library is used. Exit status: 0 within the rules, 1 not, 2 nothing to read.
"""

import argparse
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
LOOK_EVERY_S = 0.25
CPUS_MAX = 1.5
MEMORY_MAX = 350 * 1024 * 1024
# Goals of this project, not rules of the contest.
PEAK_MAX = 100_000_000
THROTTLED_MAX = 0.01
MIB = 1024 * 1024


def folder(container_id, controller):
    """Where the kernel tells about a container; the path differs by version and by driver."""
    for candidate in (
        CGROUPS / controller / "docker" / container_id,
        CGROUPS / controller / "system.slice" / f"docker-{container_id}.scope",
        CGROUPS / "docker" / container_id,
        CGROUPS / "system.slice" / f"docker-{container_id}.scope",
    ):
        if candidate.is_dir():
            return candidate
    return None


def fields(path):
    """A file of `name number` lines as a dictionary."""
    return {name: int(value) for name, value in map(str.split, path.read_text().splitlines())}


def number(path):
    """A file that holds one number."""
    return int(path.read_text())


def look(container_id):
    """Counters and gauges of one container now, or None while it does not run."""
    cpu, memory = folder(container_id, "cpu"), folder(container_id, "memory")
    if cpu is None or memory is None:
        return None
    try:
        counters = fields(cpu / "cpu.stat")
        stat = fields(memory / "memory.stat")
        if (memory / "memory.max_usage_in_bytes").exists():
            cpu_ns = number(folder(container_id, "cpuacct") / "cpuacct.usage")
            peak = number(memory / "memory.max_usage_in_bytes")
            usage, anonymous = number(memory / "memory.usage_in_bytes"), stat["rss"]
            killed = fields(memory / "memory.oom_control")["oom_kill"]
        else:
            cpu_ns = counters["usage_usec"] * 1000
            usage, anonymous = number(memory / "memory.current"), stat["anon"]
            peak = number(memory / "memory.peak") if (memory / "memory.peak").exists() else usage
            killed = fields(memory / "memory.events")["oom_kill"]
    except (OSError, AttributeError, TypeError):
        return None  # it ended while we looked
    counters = {
        "cpu_ns": cpu_ns,
        "periods": counters["nr_periods"],
        "throttled": counters["nr_throttled"],
        "oom_kills": killed,
    }
    gauges = {"peak": peak, "private": anonymous, "working": usage - stat["inactive_file"]}
    return counters, gauges


class Watched:
    """What is known about one container over all its lives."""

    def __init__(self, name, container_id):
        self.name, self.container_id = name, container_id
        self.counted, self.last, self.highest = {}, {}, {}

    def look(self):
        """Adds what happened since the last look. Returns the working set now."""
        seen = look(self.container_id)
        if seen is None:
            return 0
        counters, gauges = seen
        if self.last:
            # A restarted container counts from zero again.
            born_again = any(counters[key] < self.last[key] for key in counters)
            for key, value in counters.items():
                before = 0 if born_again else self.last[key]
                self.counted[key] = self.counted.get(key, 0) + value - before
        self.last = counters
        for key, value in gauges.items():
            self.highest[key] = max(self.highest.get(key, 0), value)
        return gauges["working"]


def inspect(watched):
    """What the engine says about the containers."""
    command = ["docker", "inspect", *(it.container_id for it in watched)]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def judge(watched, inspected, restarts_expected):
    """What breaks a rule or a goal."""
    found = []
    cpus = sum(it["HostConfig"]["NanoCpus"] for it in inspected) / 1e9
    memory = sum(it["HostConfig"]["Memory"] for it in inspected)
    if not 0 < cpus <= CPUS_MAX or not 0 < memory <= MEMORY_MAX:
        found.append(f"the limits sum up to {cpus} CPUs and {memory / MIB:.0f} MB")
    for it in inspected:
        name, host = it["Name"].lstrip("/"), it["HostConfig"]
        if host["Privileged"] or host["NetworkMode"] == "host":
            found.append(f"{name} is privileged or on the host's network")
        if not host["ReadonlyRootfs"] or "ALL" not in (host["CapDrop"] or []):
            found.append(f"{name} may write its root or keeps capabilities")
        if it["RestartCount"] and not restarts_expected:
            found.append(f"{name} was restarted {it['RestartCount']} times")
        if it["State"]["OOMKilled"] or not it["State"]["Running"]:
            found.append(f"{name} was killed for its memory, or does not run")
    for it in watched:
        if it.counted["oom_kills"]:
            found.append(f"{it.name}: {it.counted['oom_kills']} processes killed for their memory")
        if it.counted["throttled"] > THROTTLED_MAX * it.counted["periods"]:
            found.append(f"{it.name} was throttled in more than {THROTTLED_MAX:.0%} of periods")
    peak = sum(it.highest["peak"] for it in watched)
    # A restart reads the journal, and a reload runs two HAProxies for a while.
    if peak > PEAK_MAX and not restarts_expected:
        found.append(f"the services' peaks sum up to {peak / 1e6:.1f} MB")
    return found


def print_table(watched, inspected, together):
    """A line for each container; `together` is the highest sum of working sets at one moment."""
    print(f"  {'container':10} {'CPU s':>8} {'throttled':>12} {'peak MB':>8} {'private':>8} restarts")
    for it, engine in zip(watched, inspected, strict=True):
        counted, highest = it.counted, it.highest
        print(
            f"  {it.name:10} {counted['cpu_ns'] / 1e9:8.2f} "
            f"{counted['throttled']:5} /{counted['periods']:5} {highest['peak'] / 1e6:8.1f} "
            f"{highest['private'] / 1e6:8.1f} {engine['RestartCount']:8}"
        )
    sums = {key: sum(it.highest[key] for it in watched) / 1e6 for key in ("peak", "private")}
    cpu_s = sum(it.counted["cpu_ns"] for it in watched) / 1e9
    print(
        f"  {'together':10} {cpu_s:8.2f} {'':12} {sums['peak']:8.1f} {sums['private']:8.1f}   "
        f"(working sets at one moment: {together / 1e6:.1f} MB)"
    )


def main():
    """Entry point; the exit status is in the file's comment."""
    parser = argparse.ArgumentParser(description="Measures containers until SIGTERM.")
    parser.add_argument("containers", nargs="+", metavar="SERVICE=ID")
    parser.add_argument("--restarts-expected", action="store_true")
    settings = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides when it is over
    watched = [Watched(*text.split("=", 1)) for text in sorted(settings.containers)]
    together = 0
    while True:
        over = stop.is_set()
        together = max(together, sum(it.look() for it in watched))
        if over:
            break
        stop.wait(LOOK_EVERY_S)
    if not all(it.counted for it in watched):
        print("containers.py: no control group to read; is this Linux?", file=sys.stderr)
        return 2
    inspected = inspect(watched)
    print_table(watched, inspected, together)
    found = judge(watched, inspected, settings.restarts_expected)
    for finding in found:
        print(f"  WRONG: {finding}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
