"""What a receiver of the feed costs those who pay: none, one that is well, slow, silent or dead."""

import contextlib
import http.server
import os
import socket
import statistics
import threading
import time

from lib import machine
from lib.load import pooled, quantile, steady, wrk
from lib.machine import Cost
from lib.parts import ROOM, alternating

TITLE = "Payments with a webhook whose receiver is well, slow, silent or dead, beside none"
NEEDS = {"tools": ["wrk"], "yardsticks": ["floor", "steady"]}
LANES = 64
RATE = 600
SLOW_S = 2


@contextlib.contextmanager
def answering(after_s):
    """A receiver that takes everything, each request after so long."""
    class Taking(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(after_s)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def silent():
    """Takes connections, as the kernel does for it, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def dead():
    yield machine.free_port()


RECEIVERS = {"none": None, "well": lambda: answering(0), "slow": lambda: answering(SLOW_S),
             "silent": silent, "dead": dead}


def measure(name, seconds):
    """The feed is kept in every case: what differs is who takes it. CPU of a payment's whole way at
    full speed, where it is steadiest; latencies at the contest's rate."""
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(machine.directory())
        options = ["--data", f"{data}/journal", "--events-kept", "64MiB",
                   "--processor-concurrency", str(LANES), *ROOM]
        if RECEIVERS[name]:
            port = stack.enter_context(RECEIVERS[name]())
            secret = f"{data}/secret"
            with open(secret, "w", encoding="ascii", opener=lambda path, flags:
                      os.open(path, flags, 0o600)) as file:
                file.write("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            options += ["--webhook", f"http://{machine.at(port)}/hook",
                        "--webhook-secret-file", secret]
        ports = [machine.free_port(), machine.free_port()]
        stack.enter_context(machine.running(
            *(machine.floor(it, answer="processor") for it in ports)))
        child, entry, door = machine.galo(ports, *options)
        with machine.running(child):
            steady(entry, RATE, 1)
            paced = steady(entry, RATE, seconds)
            done = machine.settled(door)
            cost = Cost(child)
            load = wrk(entry, seconds)
            machine.wait_until(lambda: machine.settled(door) >= done + load["requests"],
                               "all is settled", timeout_s=120)
            cost.end()
            return {"cpu": cost.cpu / load["requests"] * 1e6, "load": paced}


def run(sheet, quick):
    rounds, seconds = (1, 1) if quick else (5, 3)
    found = {name: [] for name in RECEIVERS}
    for _, name in alternating(list(RECEIVERS), rounds):
        found[name].append(measure(name, seconds))
    rows = {}
    for name, runs in found.items():
        histogram = pooled([it["load"] for it in runs])
        rows[name] = [statistics.median(it["cpu"] for it in runs),
                      quantile(histogram, 0.5), quantile(histogram, 0.99)]
    sheet.table("receiver", ["us CPU a payment", "p50 at 600/s, us", "p99, us"], rows)
    without = [it["cpu"] for it in found["none"]]
    for name in ("slow", "silent", "dead"):
        sheet.ratio(f"{name} receiver / none: CPU a payment", [it["cpu"] for it in found[name]],
                    without, ("<=", 1.05))
    sheet.ratio("receiver that takes all / none: CPU a payment",
                [it["cpu"] for it in found["well"]], without)
