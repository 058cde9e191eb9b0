"""What takes long shows how far it is: a line on stderr, if that is a terminal, and nothing otherwise.

    progress.py WHAT SECONDS    until it is ended; for shell scripts
"""

import contextlib
import signal
import sys
import threading
import time

BAR_WIDTH = 24
EVERY_S = 0.5
lock = threading.Lock()
on_terminal = threading.Event()


def line(what, spent, seconds):
    if not seconds:
        return f"{what}  {spent:.0f} s"
    full = int(min(spent / seconds, 1) * BAR_WIDTH)
    return f"{what}  [{'#' * full}{'.' * (BAR_WIDTH - full)}] {spent:.0f} of {seconds:.0f} s"


def write(text):
    with lock:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
        (on_terminal.set if text else on_terminal.clear)()


def erase():
    """Before anything else is written to the same terminal."""
    if on_terminal.is_set():
        write("")


@contextlib.contextmanager
def shown(what, seconds=0):
    """Seconds that have passed, of so many if that is known."""
    if not sys.stderr.isatty():
        yield
        return
    ended, begun = threading.Event(), time.monotonic()

    def show():
        while not ended.wait(EVERY_S):
            write(line(what, time.monotonic() - begun, seconds))

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        erase()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), shown(sys.argv[1], float(sys.argv[2])):
        threading.Event().wait()
