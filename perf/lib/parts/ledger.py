"""The account ledger of the contest of 2024, beside the payments."""

import time

from lib import machine
from lib.load import pooled, steady, wrk
from lib.machine import Cost
from lib.parts import ROOM, alternating

TITLE = "The ledger beside the payments, at the contest's peak, and with 100,000 accounts"
NEEDS = {"tools": ["wrk", "haproxy"], "yardsticks": ["steady"]}
MODES = ["none", "process"]
# What is sent to instance 1 of a pair: payments of its own, transactions of accounts that it keeps,
# and of accounts that the other one keeps.
KINDS = {"payments": "even", "owned": "owned", "foreign": "foreign"}
# The contest's peak: each request on a connection of its own.
RATE = 340
ACCOUNTS = 100_000


def answers():
    """Whether this binary has a ledger."""
    child, entry, _ = machine.galo([machine.free_port(), machine.free_port()])
    with machine.running(child):
        return machine.status_of(entry, "GET", "/clientes/1/extrato") == 200


def measure(mode, kind, seconds):
    """CPU microseconds a request, of both instances, at full speed over 64 connections."""
    with machine.directory() as data:
        each = [(), ()]
        if mode != "none":
            each = [("--data", f"{data}/{number}", "--durability", mode) for number in (1, 2)]
        nobody = [machine.free_port(), machine.free_port()]
        instances, entries, _ = machine.pair(nobody, *ROOM, each=each)
        with machine.running(*instances):
            wrk(entries[0], 1, kind=KINDS[kind])
            cost = Cost(*instances)
            load = wrk(entries[0], seconds, kind=KINDS[kind])
            cost.end()
            return {"cpu": cost.cpu / load["requests"] * 1e6, "rate": load["rate"]}


def beside_payments(sheet, modes, rounds, seconds):
    for mode in modes:
        found = {kind: [] for kind in KINDS}
        for _, kind in alternating(list(KINDS), rounds):
            found[kind].append(measure(mode, kind, seconds))
        cpu = {kind: [it["cpu"] for it in runs] for kind, runs in found.items()}
        sheet.figure(f"{mode}: CPU a payment of its own", cpu["payments"], "us")
        sheet.figure(f"{mode}: CPU a transaction, direct to its owner", cpu["owned"], "us")
        sheet.figure(f"{mode}: CPU a transaction through the other instance, of both",
                     cpu["foreign"], "us")
        sheet.figure(f"{mode}: transactions a second, direct to their owner",
                     [it["rate"] for it in found["owned"]], "/s", better="higher")
        for kind, goal in (("owned", 0.80), ("foreign", 0.35)):
            # Per second and core: the reverse of CPU each.
            sheet.ratio(f"{mode}: transactions / payments a second and core, {kind}",
                        [1 / it for it in cpu[kind]], [1 / it for it in cpu["payments"]],
                        (">=", goal), better="higher")


def peak(sheet, rounds, seconds):
    """The contest's mix and rate through its balancer; each request opens a connection."""
    shares, fronts, runs = [], [], []
    for _ in range(rounds):
        with machine.sockets_directory() as sockets:
            nobody = [machine.free_port(), machine.free_port()]
            instances, _, _ = machine.pair(nobody, sockets=sockets)
            port = machine.free_port()
            balancer = machine.haproxy(port, sockets)
            with machine.running(balancer, *instances):
                costs = [Cost(child) for child in instances]
                front = Cost(balancer)
                runs.append(steady(port, RATE, seconds, kind="ledger", connections=64, fresh=True,
                                   also=(422,)))
                shares.append(max(cost.end().cpu / cost.wall * 100 for cost in costs))
                fronts.append(front.end().cpu / front.wall * 100)
    name = f"{RATE} new connections/s through HAProxy"
    sheet.figure(f"{name}: an instance's share of a core", shares, "%", ("<", 5))
    sheet.figure(f"{name}: HAProxy's share", fronts, "%")
    sheet.figure(f"{name}: p99, connecting included", [it["p99"] / 1000 for it in runs], "ms")
    sheet.latency_curve(f"latency at {RATE} new connections a second", {"ledger": pooled(runs)})


def accounts(sheet, seconds):
    """Start and memory by the number of accounts; each gets transactions in the second half."""
    rows = {}
    for count in (5, ACCOUNTS):
        with machine.directory() as folder:
            path = f"{folder}/accounts"
            with open(path, "w") as file:
                file.writelines(f"{number},{number * 100}\n" for number in range(1, count + 1))
            begun = time.monotonic()
            nobody = [machine.free_port(), machine.free_port()]
            child, entry, _ = machine.galo(nobody, "--accounts", path, "--data", f"{folder}/data")
            started = time.monotonic() - begun
            with machine.running(child):
                fresh = machine.resident_mib(child)
                cost = Cost(child)
                load = wrk(entry, seconds, kind="transactions", accounts=count)
                rows[count] = [started, fresh, cost.end().cpu / load["requests"] * 1e6,
                               machine.resident_mib(child)]
    sheet.table("accounts", ["start, s", "MiB at start", "us CPU a transaction", "MiB after"], rows)
    few, many = rows[5], rows[ACCOUNTS]
    sheet.figure(f"{ACCOUNTS:,} accounts: start", many[0], "s")
    sheet.figure(f"{ACCOUNTS:,} accounts: memory an account at start",
                 (many[1] - few[1]) * 1024 * 1024 / (ACCOUNTS - 5), "B")
    sheet.figure(f"{ACCOUNTS:,} accounts / 5: CPU a transaction", many[2] / few[2], "x")


def run(sheet, quick):
    if not answers():
        sheet.note("this binary answers 404 to GET /clientes/1/extrato: it has no ledger")
        return
    beside_payments(sheet, MODES[:1] if quick else MODES, 1 if quick else 3, 1 if quick else 2)
    peak(sheet, 1 if quick else 3, 2 if quick else 6)
    accounts(sheet, 1 if quick else 2)
