"""The loads: wrk at full speed, `steady` at a fixed rate, `exchange` as a bare client."""

import json
import os
import subprocess

from lib.machine import LIB, YARDSTICKS, at


def last_line(command):
    # The load's own duration bounds it; the rest is for starting.
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return json.loads(done.stdout.strip().rsplit("\n", 1)[-1])


def wrk(port, seconds, kind="payments", connections=64, depth=1, accounts=5, refusals=0.01,
        threads=1):
    """Requests at full speed. At most the share `refusals` may be answered other than 2xx: an
    instance that stood still for a moment, on a machine with too much to do, says 503."""
    seed = os.urandom(4).hex()
    # wrk takes whole seconds, and at least a connection for each of its threads.
    command = ["wrk", f"-t{min(threads, connections)}", f"-c{connections}", f"-d{seconds}s",
               "--timeout", "10s", "-s", f"{LIB}/requests.lua", f"http://{at(port)}",
               "--", kind, seed, str(depth), str(accounts)]
    found = last_line(command)
    found["rate"] = found["requests"] / found["seconds"]
    allowed = refusals * found["requests"]
    assert found["requests"] and found["refused"] <= allowed, f"{kind}: refused: {found}"
    if found["refused"] and refusals < 1:
        print(f"  note: {found['refused']} of {found['requests']:,} {kind} were refused", flush=True)
    return found


def steady(port, rate, seconds, kind="payments", connections=16, fresh=False, accounts=5, also=()):
    """Requests at a fixed rate, each timed from when it was due (steady.rs says how exactly).
    Answers other than 2xx are allowed only if named in `also`."""
    command = [f"{YARDSTICKS}/steady", "--to", at(port), "--rate", str(rate), "--seconds",
               str(seconds), "--kind", kind, "--connections", str(connections),
               "--accounts", str(accounts), *(["--fresh"] if fresh else [])]
    found = last_line(command)
    wrong = {status: count for status, count in found["statuses"].items()
             if not status.startswith("2") and int(status) not in also}
    assert not wrong and not found["failures"], f"{kind}: {found['failures']} failures, {wrong}"
    return found


def exchange(port, seconds, connections=64):
    """Bare exchanges with a processor, one after the other on each connection."""
    command = [f"{YARDSTICKS}/exchange", "--to", at(port), "--seconds", str(seconds),
               "--connections", str(connections)]
    found = last_line(command)
    assert found["exchanges"] and not found["refused"], found
    return found


def pooled(runs):
    """Several runs of `steady` as one: percentiles over all their answers."""
    counts = {}
    for run in runs:
        for upper, count in run["histogram"]:
            counts[upper] = counts.get(upper, 0) + count
    return sorted(counts.items())


def quantile(histogram, share):
    target, seen = share * sum(count for _, count in histogram), 0
    for upper, count in histogram:
        seen += count
        if seen >= target:
            return upper
    return 0.0
