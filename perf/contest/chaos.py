#!/usr/bin/env python3
"""Judges what the death of an instance cost, by HAProxy's log of every request and k6's console.

    python3 perf/contest/chaos.py --log haproxy.log --console console.log --deaths deaths \\
        --excused excused

`deaths` has a line for each: service, the moments before and after it was killed, and the moment
from which a new process may have run, in milliseconds since 1970. Checked is that

  * the dead instance got no request, nor an attempt to connect, once the check interval was over,
  * each post that failed was in flight when an instance died,
  * each summary that failed was refused by the other one (503) while it could not ask its peer.

How many those were goes to `excused`, posts and audits, for `galo judge`: it must not find more.
Only the standard library is used. Exit status: 0 good, 1 not good, 2 the log cannot be read.
"""

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

CHECK_INTERVAL_MS = 500  # `inter` in haproxy.cfg
# The log rounds to milliseconds, and to both the posts and us time passes between clock and deed.
ROUNDING_MS = 2
# The kernel closes a dead process's sockets after it has taken down its rings: 6 to 12 ms (epoll:
# 0.4 to 4) on an idle machine. What is sent into them until then is in flight at the dead, too.
CLOSING_MS = 100
# After its restart: to recover, to be looked up (every 5 s) and to be found (every 0.5 s).
PEER_FOUND_MS = 6000
EXAMPLES_MAX = 5
# `option httplog`: date, server, timers, status, retries (+ if at another server), request.
LINE = re.compile(
    r"\[(?P<at>\d\d/\w{3}/\d{4}:[\d:.]{12})\] entry \S+?/(?P<server>\S+) "
    r"(?P<read>-?\d+)/(?P<wait>-?\d+)/(?P<connect>-?\d+)/-?\d+/\+?(?P<total>\d+) "
    r"(?P<status>-?\d+) .*?/(?P<retries>\+?\d+) \d+/\d+ \"(?P<request>[^\"]*)"
)


class Request(NamedTuple):
    """A line of the log; times in milliseconds since 1970."""

    began: int
    connected: int
    ended: int
    server: str
    retries: int
    status: int
    text: str


class Death(NamedTuple):
    """From when to when an instance did not run."""

    server: str
    before: int
    after: int
    until: int


def parse_log(text):
    """The requests of HAProxy's log."""
    requests = []
    for match in LINE.finditer(text):
        moment = datetime.strptime(match["at"], "%d/%b/%Y:%H:%M:%S.%f")
        began = round(moment.replace(tzinfo=UTC).timestamp() * 1000)
        timers = [max(int(match[key]), 0) for key in ("read", "wait", "connect")]
        ended = began + int(match["total"])
        requests.append(
            Request(
                began,
                min(began + sum(timers), ended),
                ended,
                match["server"],
                int(match["retries"]),
                int(match["status"]),
                match["request"],
            )
        )
    return requests


def parse_console(text):
    """Status (0: none) of each post that failed, and when it began and ended."""
    posts = re.findall(r"failed-post \d+ (\d+) \S+ from (\d+) to (\d+)", text)
    return [tuple(map(int, post)) for post in posts]


def parse_deaths(text):
    """The deaths in the order they happened."""
    rows = [line.split() for line in text.splitlines()]
    return [Death(row[0], *map(int, row[1:])) for row in rows]


def overdue(death, requests):
    """Requests and attempts that went to the dead after HAProxy had to know."""
    known = death.after + CHECK_INTERVAL_MS
    return [
        it
        for it in requests
        if known < it.connected < death.until and (it.server == death.server or it.retries)
    ]


def is_in_flight(post, deaths):
    """Whether a failed post, (status, began, ended), was under way when an instance died: HAProxy
    then answers 502, or closes the connection if it had served before."""
    status, began, ended = post
    return status in (0, 502) and any(
        began - ROUNDING_MS <= death.after + CLOSING_MS
        and death.before - ROUNDING_MS <= ended <= death.after + CHECK_INTERVAL_MS
        for death in deaths
    )


def is_alone(request, deaths):
    """Whether a summary was refused because the peer was away."""
    return (
        request.status == 503
        and "GET /payments-summary" in request.text
        and any(
            death.before - ROUNDING_MS <= request.ended <= death.until + PEER_FOUND_MS
            for death in deaths
        )
    )


def judge(requests, posts, deaths):
    """(posts excused, audits excused, findings)."""
    found = []
    if not requests:
        found.append("HAProxy's log has no requests; is ACCESS_LOG set?")
    for death in deaths:
        late = overdue(death, requests)
        found += [f"sent to {death.server}, which was dead for long: {it}" for it in late]
    in_flight = [post for post in posts if is_in_flight(post, deaths)]
    needless = [post for post in posts if post not in in_flight]
    found += [f"a post failed without need: status {it[0]}, {it[1]} to {it[2]}" for it in needless]
    reads = [it for it in requests if it.text.startswith("GET") and it.status != 200]
    alone = [it for it in reads if is_alone(it, deaths)]
    found += [f"failed without need: {it}" for it in reads if it not in alone]
    return len(in_flight), len(alone), found


def print_death(death, requests):
    """What a death looked like from outside."""
    to_it = [it for it in requests if it.server == death.server and it.ended <= death.until]
    away = [it for it in requests if death.after < it.began < death.until]
    refused = [it.connected - death.after for it in away if it.retries]
    last = max((it.connected for it in to_it), default=death.after) - death.after
    print(
        f"  {death.server} was away for {death.until - death.after} ms and {len(away)} requests: "
        f"the last one it got was sent {last} ms after its death; {len(refused)} more met a closed "
        f"door, the last after {max(refused, default=0)} ms, and went to the other one"
    )


def self_test():
    """Each fault this file exists for must be found."""
    line = (
        "172.18.0.1:1 [22/Nov/2026:02:00:{at}] entry instances/{server} 0/0/{connect}/0/{total} "
        '{status} 65 - - ---- 1/1/0/0/{retries} 0/0 "{request} HTTP/1.1"'
    )
    usual = {"at": "00.000", "server": "galo-1", "connect": 0, "total": 1, "status": 202}
    usual |= {"retries": "0", "request": "POST /payments"}
    start = parse_log(line.format(**usual))[0].began
    deaths = [Death("galo-1", start + 999, start + 1000, start + 4000)]

    def findings(posts=(), **changes):
        return judge(parse_log(line.format(**(usual | changes))), posts, deaths)

    assert findings() == (0, 0, [])
    console = f'msg="failed-post 7 0 a-b from {start + 998} to {start + 1003} EOF"'
    assert parse_console(console) == [(0, start + 998, start + 1003)]
    assert findings(parse_console(console)) == (1, 0, [])
    assert findings([(0, start + 900, start + 990)])[2], "a post that failed before the death"
    assert findings([(0, start + 900, start + 2400)])[2], "a post that waited for long"
    assert findings([(0, start + 1200, start + 1201)])[2], "a post that failed after the death"
    assert findings([(503, start + 998, start + 1003)])[2], "a post that was sent nowhere"
    assert findings(at="01.400")[2] == [] and findings(at="01.600")[2], "sent to the dead"
    late = findings(at="01.600", server="galo-2", retries="+1")
    assert late[2] and not findings(at="01.600", server="galo-2")[2], "tried at the dead"
    summary = {"request": "GET /payments-summary", "server": "galo-2", "status": 503}
    assert findings(at="02.000", **summary) == (0, 1, [])
    assert findings(at="00.000", **summary)[2], "a refusal without a death"
    assert findings(at="02.000", **(summary | {"status": 504}))[2], "no answer at all"
    assert judge([], [], deaths)[2], "an empty log"
    print("chaos.py: self-test passed")


def main():
    """Entry point; the exit status is in the file's comment."""
    parser = argparse.ArgumentParser(description="Judges what the death of an instance cost.")
    parser.add_argument("--self-test", action="store_true", help="check this file and exit")
    parser.add_argument("--log", help="HAProxy's log with ACCESS_LOG=1")
    parser.add_argument("--console", help="k6's --console-output file")
    parser.add_argument("--deaths", help="a line for each death")
    parser.add_argument("--excused", help="where to write how many failed of necessity")
    settings = parser.parse_args()
    if settings.self_test:
        self_test()
        return 0
    try:
        requests = parse_log(Path(settings.log).read_text(encoding="utf-8"))
        failed = parse_console(Path(settings.console).read_text(encoding="utf-8"))
        deaths = parse_deaths(Path(settings.deaths).read_text(encoding="utf-8"))
    except (OSError, TypeError, ValueError) as error:
        print(f"chaos.py: the logs cannot be judged: {error!r}", file=sys.stderr)
        return 2
    posts, audits, found = judge(requests, failed, deaths)
    for death in deaths:
        print_death(death, requests)
    print(f"  failed: {posts} posts in flight, {audits} audits while one was away")
    Path(settings.excused).write_text(f"{posts} {audits}\n", encoding="utf-8")
    for finding in found[:EXAMPLES_MAX]:
        print(f"  WRONG: {finding}")
    if len(found) > EXAMPLES_MAX:
        print(f"  WRONG: {len(found)} such findings in all")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
