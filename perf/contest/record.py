#!/usr/bin/env python3
"""Prints what an admin door says of the system once a second, a line each, until SIGTERM.

    python3 perf/contest/record.py ADMIN_URL TOKEN_FILE > status.jsonl

What `galo report` makes a page of. A second without an answer is left out. Only the standard
library is used.
"""

import http.client
import signal
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

EVERY_S = 1.0
TIMEOUT_S = 5


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    url, token_file = sys.argv[1:]
    token = Path(token_file).read_text().strip()
    request = urllib.request.Request(
        f"{url}/status.json", headers={"Authorization": f"Bearer {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    trouble = None
    while not stop.wait(EVERY_S):
        try:
            document = opener.open(request, timeout=TIMEOUT_S).read()
        except (OSError, http.client.HTTPException, urllib.error.URLError) as error:
            if str(error) != trouble:
                trouble = str(error)
                print(f"no status: {trouble}", file=sys.stderr)
            continue
        sys.stdout.write(document.decode().replace("\n", " ") + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
