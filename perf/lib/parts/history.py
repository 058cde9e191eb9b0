"""Summary queries and start over a long history of settled payments."""

import subprocess
import time

from lib import machine
from lib.load import steady, wrk
from lib.machine import Cost

TITLE = "Summaries over a history of 10^3 to 10^7 settled payments (a journal made by `history`)"
NEEDS = {"tools": ["wrk"], "yardsticks": ["history", "steady"]}


def measure(count, seconds):
    with machine.directory() as data:
        subprocess.run([f"{machine.YARDSTICKS}/history", "--settled", str(count), "--to", data],
                       check=True)
        begun = time.monotonic()
        nobody = [machine.free_port(), machine.free_port()]
        child, entry, _ = machine.galo(nobody, "--data", data)
        started = time.monotonic() - begun
        with machine.running(child):
            body = machine.call(entry, "GET", "/payments-summary")[1]
            assert f'"totalRequests":{count - count // 20}' in body, body
            memory = machine.resident_mib(child)
            found = {"start": started, "memory": memory}
            for kind in ("summary", "windows"):
                cost = Cost(child)
                load = wrk(entry, seconds, kind=kind)
                found[kind] = cost.end().cpu / load["requests"] * 1e6
            load = steady(entry, 100, seconds, kind="summary")
            found.update(p50=load["p50"] / 1000, p99=load["p99"] / 1000)
            return found


def run(sheet, quick):
    counts = [10**power for power in ((3, 5) if quick else (3, 4, 5, 6, 7))]
    found = {count: measure(count, 1 if quick else 2) for count in counts}
    columns = ["all, us CPU", "a minute, us CPU", "p50 at 100/s, ms", "p99, ms", "MiB resident", "start, s"]
    sheet.table("settled", columns, {
        count: [it["summary"], it["windows"], it["p50"], it["p99"], it["memory"], it["start"]]
        for count, it in found.items()})
    most, least = found[counts[-1]], found[counts[0]]
    sheet.figure(f"summary over {counts[-1]:,}, the whole request (median)", most["p50"], "ms", ("<", 1))
    sheet.figure(f"a random minute of {counts[-1]:,}: CPU a query", most["windows"], "us", ("<", 1000))
    sheet.figure(f"start with {counts[-1]:,} settled payments", most["start"], "s")
    if counts[-1] >= 10**6:
        grown = (most["memory"] - least["memory"]) * 1024 * 1024 / (counts[-1] - counts[0])
        sheet.figure("memory a settlement", grown, "B", ("<=", 16))
    sheet.curve("CPU of a query by history", "settled payments", "us CPU a query", {
        "everything": [[count, round(it["summary"], 2)] for count, it in found.items()],
        "a random minute": [[count, round(it["windows"], 2)] for count, it in found.items()]})
    sheet.curve("memory by history", "settled payments", "MiB resident",
                {"galo": [[count, round(it["memory"], 2)] for count, it in found.items()]}, log_y=True)
