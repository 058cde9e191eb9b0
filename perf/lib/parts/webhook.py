"""What a receiver of the feed costs those who pay: none, one that is well, slow, silent or dead."""

import contextlib
import http.server
import os
import socket
import statistics
import threading
import time

from lib import machine
from lib.load import pooled, quantile, steady
from lib.machine import Cost
from lib.parts import alternating

TITLE = "Payments at 600/s with a webhook whose receiver is well, slow, silent or dead, beside none"
NEEDS = {"tools": [], "yardsticks": ["floor", "steady"]}
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
    """With an admin's feed kept in every case: what differs is who takes it."""
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(machine.directory())
        options = ["--data", f"{data}/journal", "--events-kept", "64MiB"]
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
            done = machine.settled(door)
            cost = Cost(child)
            load = steady(entry, RATE, seconds)
            cost.end()
            paid = machine.settled(door) - done
            return {"cpu": cost.cpu / paid * 1e6, "load": load}


def run(sheet, quick):
    rounds, seconds = (1, 2) if quick else (5, 5)
    found = {name: [] for name in RECEIVERS}
    for _, name in alternating(list(RECEIVERS), rounds):
        found[name].append(measure(name, seconds))
    rows = {}
    for name, runs in found.items():
        histogram = pooled([it["load"] for it in runs])
        rows[name] = [statistics.median(it["cpu"] for it in runs),
                      quantile(histogram, 0.5), quantile(histogram, 0.99)]
    sheet.table("receiver", ["us CPU a payment", "p50 of a 202, us", "p99, us"], rows)
    without = [it["cpu"] for it in found["none"]]
    for name in ("slow", "silent", "dead"):
        sheet.ratio(f"{name} receiver / none: CPU a payment", [it["cpu"] for it in found[name]],
                    without, ("<=", 1.05))
    sheet.ratio("receiver that takes all / none: CPU a payment",
                [it["cpu"] for it in found["well"]], without)
