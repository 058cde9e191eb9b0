#!/usr/bin/env python3
"""Compares the books after a contest run and says whether the run was good.

    python3 perf/contest/books.py --sheet sheet.json --console console.log
    python3 perf/contest/books.py --self-test

What lives here: the judgement. It reads the score sheet that `contest.js` wrote, the console lines
k6 wrote while it ran (they name the posts that failed), and the list of payments each processor
holds (`GET /admin/payments`), and checks that

  * the run was complete and no request and no audit failed or differed,
  * the lag was zero when the load ended, if the run had the contest's own timetable, and the score
    is what the formula gives,
  * every accepted payment is held by exactly one processor, with the right amount,
  * nothing is held that this run did not send, or that was refused,
  * the backend's summary says what the books say: in total, and for windows whose bounds are
    taken from the books themselves.

Only the standard library is used. Exit status: 0 good, 1 not good, 2 the check could not be made.

Payment number n of a run has the id `payment_id(seed, n)` and n counts up from 0 without gaps, so
the seed and the number of posts are enough to know every id that was sent.
"""

import argparse
import json
import random
import re
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

MASK = 0xFFFFFFFF
STEP = 0x9E3779B9
CALL_TIMEOUT_S = 30
POLL_INTERVAL_S = 0.25
EXAMPLES_MAX = 3
NAMES = ("default", "fallback")
# No answer, or the balancer's word that it got none: such a post may have been accepted or not.
UNKNOWN_STATUSES = (0, 502, 504)


class Payment(NamedTuple):
    """One line of a processor's books; the time is in milliseconds since 1970."""

    payment_id: str
    cents: int
    requested_at_ms: int


# --- ids ------------------------------------------------------------------------------------------


def mix(word):
    """The bijection of 32-bit words that contest.js uses (the finaliser of MurmurHash3)."""
    word = (word ^ (word >> 16)) * 0x85EBCA6B & MASK
    word = (word ^ (word >> 13)) * 0xC2B2AE35 & MASK
    return word ^ (word >> 16)


def unmix(word):
    """The inverse of `mix`."""
    word ^= word >> 16
    word = word * pow(0xC2B2AE35, -1, 1 << 32) & MASK
    word ^= (word >> 13) ^ (word >> 26)
    word = word * pow(0x85EBCA6B, -1, 1 << 32) & MASK
    return word ^ (word >> 16)


def payment_id(seed, number):
    """The id of payment `number` in the run with this seed; the same function as in contest.js."""
    a = mix(number ^ seed)
    b = mix((a + seed + STEP) & MASK)
    c = mix((b + seed + STEP) & MASK)
    d = mix((c + seed + STEP) & MASK)
    version = 0x4000 | (b & 0x0FFF)
    variant = 0x8000 | ((c >> 16) & 0x3FFF)
    return f"{a:08x}-{b >> 16:04x}-{version:04x}-{variant:04x}-{c & 0xFFFF:04x}{d:08x}"


def number_of(seed, text):
    """The number of the payment with this id, or None if the id is not of this run."""
    if not re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", text):
        return None
    number = unmix(int(text[:8], 16)) ^ seed
    return number if payment_id(seed, number) == text else None


# --- reading --------------------------------------------------------------------------------------


def cents(amount):
    """A JSON number, read as Decimal, in cents. More than two decimals is an error in the books."""
    scaled = amount * 100
    if scaled != int(scaled):
        raise ValueError(f"{amount} is not a whole number of cents")
    return int(scaled)


def milliseconds(text):
    """ISO 8601 in UTC to whole milliseconds since 1970, rounded down."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)


def iso(time_ms):
    """Whole milliseconds since 1970 as the ISO 8601 that the contest uses."""
    moment = datetime.fromtimestamp(time_ms // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def decode(text):
    """JSON with exact decimals: money never passes through a float."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def parse_books(text):
    """The payments in a processor's JSON lines."""
    payments = []
    for line in filter(None, text.splitlines()):
        row = decode(line)
        time_ms = milliseconds(row["requestedAt"])
        payments.append(Payment(row["correlationId"].lower(), cents(row["amount"]), time_ms))
    return payments


def parse_failed_posts(text):
    """Payment number to status of the posts that were not accepted (0: no answer came)."""
    posts = re.findall(r"failed-post (\d+) (\d+)", text)
    return {int(number): int(status) for number, status in posts}


def fetch(url, token=None):
    """The body of a GET, as text."""
    headers = {"X-Rinha-Token": token} if token else {}
    request = urllib.request.Request(url, headers=headers)
    # No proxy from the environment: every address here is a server under test.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=CALL_TIMEOUT_S) as response:
        return response.read().decode()


def fetch_summary(url, window=None):
    """The backend's summary as {name: (payments, cents)}, for a window in ms or for everything."""
    query = f"?from={iso(window[0])}&to={iso(window[1])}" if window else ""
    body = decode(fetch(f"{url}/payments-summary{query}"))
    return {n: (int(body[n]["totalRequests"]), cents(body[n]["totalAmount"])) for n in NAMES}


# --- judging: pure --------------------------------------------------------------------------------


def examples(items):
    """A few items, and how many there are."""
    items = sorted(items)
    shown = ", ".join(str(item) for item in items[:EXAMPLES_MAX])
    return f"{len(items)} ({shown}{', ...' if len(items) > EXAMPLES_MAX else ''})"


def score_cents(held, p99_ms, different):
    """The contest's score: (gross - fees) * (1 + bonus - fine), in exact decimals."""
    net = sum(held[n]["cents"] * (1 - Decimal(str(held[n]["fee"]))) for n in NAMES)
    bonus = max((11 - Decimal(str(p99_ms))) * Decimal("0.02"), Decimal(0))
    bonus = bonus.quantize(Decimal("0.01"), ROUND_HALF_UP)
    fine = Decimal("0.35") if different else 0
    return net * (1 + bonus - fine)


def judge_sheet(sheet, excused_posts=0, excused_audits=0):
    """What is wrong with the run according to its score sheet. What is excused failed of necessity:
    an audit without an answer counts zeros, and so as inconsistent, too."""
    posts, audits = sheet["posts"], sheet["audits"]
    found = []
    if not sheet["complete"]:
        found.append("the run ended before the processors' totals could be read")
    elif sheet["backend"]["default"]["payments"] is None:
        found.append("the backend did not tell its totals when the load ended")
    if posts["accepted"] == 0:
        found.append("no payment was accepted")
    if posts["attempted"] != posts["accepted"] + posts["failed"]:
        cut = posts["attempted"] - posts["accepted"] - posts["failed"]
        found.append(f"{cut} posts were cut off before their answer")
    if posts["failed"] > excused_posts:
        found.append(
            f"{posts['failed']} posts failed: "
            f"{posts['refused']} refused, {posts['unanswered']} unanswered"
        )
    if sheet["droppedIterations"]:
        found.append(f"{sheet['droppedIterations']} iterations dropped")
    if audits["done"] == 0:
        found.append("no audit was made")
    if audits["unanswered"] > excused_audits:
        found.append(f"{audits['unanswered']} audits had a question unanswered")
    inconsistent = max(audits["inconsistent"], audits["inconsistentStrict"])
    if inconsistent > min(excused_audits, audits["unanswered"]):
        found.append(
            f"{inconsistent} of {audits['done']} "
            f"audits inconsistent (by the contest's measure {audits['inconsistent']})"
        )
    if sheet["complete"]:
        found += judge_score(sheet)
    if sheet["firstIds"] != [payment_id(sheet["seed"], n) for n in range(3)]:
        found.append("contest.js and books.py make different ids; this comparison is void")
    return found


def judge_score(sheet):
    """What is wrong with the score."""
    score, found = sheet["score"], []
    # A hurried run keeps the processors' delays: preview's last stage is then 2 s long and delays
    # fallback by 5 s, so what fallback had been sent before may still be there when the load ends.
    # That it arrives, once, is asked of the books.
    if score["lag"] < 0 or (score["lag"] and sheet["timeDivisor"] == 1):
        found.append(f"the lag was {score['lag']} when the load ended")
    if score["disqualified"]:
        found.append("disqualified: the processors held more payments than were accepted")
        return found
    different = sheet["audits"]["inconsistent"] > 0
    expected = score_cents(sheet["held"], sheet["latencyMs"]["p99"], different)
    if abs(score["scoreCents"] - expected) > 1:
        found.append(f"the sheet's score is {score['scoreCents']} cents, the formula's {expected}")
    return found


def judge_books(sheet, failed, books):
    """What is wrong with the payments that the processors hold, {name: [Payment]}."""
    found = []
    sent = set(range(sheet["posts"]["attempted"]))
    accepted = sent - set(failed)
    numbers = {}
    for name in NAMES:
        ids = Counter(payment.payment_id for payment in books[name])
        twice = [i for i, times in ids.items() if times > 1]
        if twice:
            found.append(f"held twice by {name}: {examples(twice)}")
        number_by_id = {i: number_of(sheet["seed"], i) for i in ids}
        strangers = [i for i, number in number_by_id.items() if number not in sent]
        if strangers:
            found.append(f"held by {name} but never sent: {examples(strangers)}")
        numbers[name] = sent & set(number_by_id.values())
        wrong = [p.payment_id for p in books[name] if p.cents != sheet["amountCents"]]
        if wrong:
            found.append(f"held by {name} with a wrong amount: {examples(wrong)}")

    def ids_of(which):
        return examples(payment_id(sheet["seed"], number) for number in which)

    both = numbers["default"] & numbers["fallback"]
    held = numbers["default"] | numbers["fallback"]
    if both:
        found.append(f"held by both processors: {ids_of(both)}")
    if accepted - held:
        found.append(f"accepted but held by none: {ids_of(accepted - held)}")
    refused = {number for number, status in failed.items() if status not in UNKNOWN_STATUSES}
    if refused & held:
        found.append(f"refused but held: {ids_of(refused & held)}")
    if len(failed) != sheet["posts"]["failed"]:
        found.append(
            f"k6's console names {len(failed)} failed posts, the sheet {sheet['posts']['failed']}"
        )
    return found


def totals(payments, window=None):
    """(payments, cents) of the books, for a window in ms (bounds inclusive) or for everything."""
    if window:
        payments = [p for p in payments if window[0] <= p.requested_at_ms <= window[1]]
    return len(payments), sum(p.cents for p in payments)


def choose_windows(books, seed, count):
    """Windows whose bounds lie exactly on, or one millisecond beside, times in the books."""
    times = sorted(p.requested_at_ms for name in NAMES for p in books[name])
    if not times:
        return []
    dice = random.Random(seed)
    windows = []
    for _ in range(count):
        bounds = sorted(dice.choice(times) + dice.choice((-1, 0, 0, 1)) for _ in range(2))
        windows.append(tuple(bounds))
    return windows


# --- the whole check ------------------------------------------------------------------------------


def fetch_books(settings):
    """What each processor holds now."""
    urls = {"default": settings.default_url, "fallback": settings.fallback_url}
    return {n: parse_books(fetch(f"{urls[n]}/admin/payments", settings.token)) for n in NAMES}


def settle(settings, accepted):
    """The books once nothing is under way any more, or as they are when patience ends."""
    deadline = time.monotonic() + settings.wait_seconds
    while True:
        books = fetch_books(settings)
        if sum(len(books[name]) for name in NAMES) >= accepted:
            expected = {name: totals(books[name]) for name in NAMES}
            try:
                if fetch_summary(settings.backend_url) == expected:
                    return books
            except OSError:
                pass  # judge_summaries asks once more and says what happened.
        if time.monotonic() >= deadline:
            return books
        time.sleep(POLL_INTERVAL_S)


def judge_summaries(settings, sheet, books):
    """What the backend's summaries get wrong, measured against the books."""
    expected = {name: totals(books[name]) for name in NAMES}
    summary = fetch_summary(settings.backend_url)
    found = []
    if summary != expected:
        found.append(f"the backend's summary says {summary}, the books {expected}")
    wrong = 0
    windows = choose_windows(books, sheet["seed"], settings.windows)
    for window in windows:
        said = fetch_summary(settings.backend_url, window)
        truth = {name: totals(books[name], window) for name in NAMES}
        if said != truth:
            wrong += 1
            if wrong <= EXAMPLES_MAX:
                span = f"from {iso(window[0])} to {iso(window[1])}"
                found.append(f"{span} the backend says {said}, the books {truth}")
    if wrong:
        found.append(f"{wrong} of {len(windows)} windows wrong")
    return found


def check(settings):
    """Runs every check and prints the result; returns the exit status."""
    with open(settings.sheet, encoding="utf-8") as file:
        sheet = json.load(file)
    with open(settings.console, encoding="utf-8") as file:
        failed = parse_failed_posts(file.read())
    found = judge_sheet(sheet, settings.excused_posts, settings.excused_audits)
    if sheet["seed"] is not None:
        books = settle(settings, sheet["posts"]["accepted"])
        found += judge_books(sheet, failed, books)
        try:
            found += judge_summaries(settings, sheet, books)
        except OSError as error:
            found.append(f"the backend does not tell its totals: {error}")
        sizes = " + ".join(str(len(books[name])) for name in NAMES)
        print(f"Books: {sizes} payments held, {sheet['posts']['accepted']} accepted")
    for finding in found:
        print(f"  WRONG: {finding}")
    if not found:
        print(
            "  every accepted payment is held by exactly one processor; "
            f"{settings.windows} windows agree"
        )
    return 1 if found else 0


# --- self-test ------------------------------------------------------------------------------------


def good_sheet(count, seed):
    """A sheet of a run in which nothing went wrong."""
    return {
        "complete": True,
        "seed": seed,
        "timeDivisor": 1,
        "amountCents": 1990,
        "firstIds": [payment_id(seed, n) for n in range(3)],
        "posts": {
            "attempted": count,
            "accepted": count,
            "failed": 0,
            "refused": 0,
            "unanswered": 0,
        },
        "droppedIterations": 0,
        "audits": {"done": 6, "unanswered": 0, "inconsistent": 0, "inconsistentStrict": 0},
        "held": {
            "default": {"cents": 1990 * 2000, "fee": 0.05},
            "fallback": {"cents": 1990 * 1000, "fee": 0.15},
        },
        "backend": {"default": {"payments": 2000}, "fallback": {"payments": 1000}},
        "latencyMs": {"p99": 1.0},
        # (3,980,000 - 5 % + 1,990,000 - 15 %) + 20 %
        "score": {"lag": 0, "disqualified": False, "scoreCents": 6567000},
    }


def good_books(count, seed):
    """Books in which every third payment went to fallback."""
    books = {"default": [], "fallback": []}
    for n in range(count):
        name = "default" if n % 3 else "fallback"
        books[name].append(Payment(payment_id(seed, n), 1990, 1_750_000_000_000 + n))
    return books


def expect(found, *words):
    """Each finding must contain the word at its place, and there must be no other finding."""
    assert len(found) == len(words), found
    for finding, word in zip(found, words, strict=True):
        assert word in finding, (word, found)


def self_test():
    """Each fault that the comparison exists for must be found, and a good run must pass."""
    seed, count = 0xDEADBEEF, 3000
    for word in (0, 1, 0x7FFFFFFF, 0x80000000, MASK, *random.Random(1).sample(range(MASK), 1000)):
        assert unmix(mix(word)) == word
    # Held fixed: k6 made this one, so a change on either side shows.
    assert payment_id(1, 0) == "514e28b7-943b-4487-a400-1f2388872fea"
    ids = [payment_id(seed, n) for n in range(count)]
    assert len(set(ids)) == count
    assert all(number_of(seed, text) == n for n, text in enumerate(ids))
    assert number_of(seed + 1, ids[5]) is None and number_of(seed, "nonsense") is None
    assert number_of(seed, ids[5][:-1] + ("0" if ids[5][-1] != "0" else "1")) is None

    assert milliseconds("2020-07-10T12:34:56.007Z") == 1594384496007
    assert milliseconds("2020-07-10T12:34:56.007999+00:00") == 1594384496007
    assert iso(1594384496007) == "2020-07-10T12:34:56.007Z"
    assert cents(decode("19.90")) == 1990 and cents(decode("20")) == 2000
    row = '{"correlationId":"%s","amount":19.9,"requestedAt":"2020-07-10T12:34:56.007Z"}\n'
    assert parse_books(row % ids[0]) == [Payment(ids[0], 1990, 1594384496007)]
    console = 'msg="failed-post 17 503 x"\nmsg="failed-post 4 0 x"'
    assert parse_failed_posts(console) == {17: 503, 4: 0}

    sheet, books = good_sheet(count, seed), good_books(count, seed)
    expect(judge_sheet(sheet))
    expect(judge_books(sheet, {}, books))
    self_test_score()
    self_test_sheet(sheet)
    self_test_books(sheet, count, seed)
    window = (1_750_000_000_010, 1_750_000_000_012)
    assert totals(books["default"], window) == (2, 3980)
    assert totals(books["fallback"], window) == (1, 1990)
    assert len(choose_windows(books, 1, 50)) == 50
    print("books.py: self-test passed")


def self_test_score():
    """Five published results of the final: default, fallback, p99 and the score in whole units."""
    for default, fallback, p99_ms, score in (
        (52945, 37646, 2.55, 1949876),
        (11787, 78814, 2.09, 1937542),
        (11312, 79220, 2.18, 1935736),
        (16650, 73942, 2.75, 1924355),
        (3643, 86933, 2.58, 1914863),
    ):
        held = {
            "default": {"cents": default * 2005, "fee": 0.07},
            "fallback": {"cents": fallback * 2005, "fee": 0.1},
        }
        assert round(score_cents(held, p99_ms, False) / 100) == score
    assert score_cents(held, 11.5, False) * Decimal("0.65") == score_cents(held, 11.5, True)


def self_test_sheet(sheet):
    """The faults that the sheet alone shows."""
    expect(judge_sheet({**sheet, "complete": False}), "ended before")
    expect(judge_sheet({**sheet, "droppedIterations": 1}), "dropped")
    expect(judge_sheet({**sheet, "firstIds": ["a", "b", "c"]}), "void")
    score = sheet["score"]
    expect(judge_sheet({**sheet, "score": {**score, "lag": 2}}), "lag was 2")
    late = {**sheet, "timeDivisor": 5, "score": {**score, "lag": 2}}
    assert judge_sheet(late) == [], judge_sheet(late)
    negative = {**score, "lag": -1, "disqualified": True}
    expect(judge_sheet({**sheet, "score": negative}), "lag was -1", "disq")
    expect(judge_sheet({**sheet, "score": {**score, "scoreCents": 6567002}}), "the formula's")
    silent = {"default": {"payments": None}, "fallback": {"payments": None}}
    expect(judge_sheet({**sheet, "backend": silent}), "did not tell")
    for field, word in (("unanswered", "unanswered"), ("inconsistentStrict", "inconsistent")):
        expect(judge_sheet({**sheet, "audits": {**sheet["audits"], field: 1}}), word)
    posts = {**sheet["posts"], "accepted": 2999, "failed": 1, "refused": 1}
    expect(judge_sheet({**sheet, "posts": posts}), "1 posts failed: 1 refused")
    expect(judge_sheet({**sheet, "posts": posts}, excused_posts=1))
    posts = {**sheet["posts"], "accepted": 2999}
    expect(judge_sheet({**sheet, "posts": posts}), "cut off")
    # An audit that got no answer is also inconsistent; one that got an answer is not excused.
    audits = {**sheet["audits"], "unanswered": 1, "inconsistentStrict": 1}
    expect(judge_sheet({**sheet, "audits": audits}, excused_audits=1))
    expect(judge_sheet({**sheet, "audits": {**audits, "unanswered": 0}}, 0, 1), "inconsistent")


def self_test_books(sheet, count, seed):
    """The faults that only the processors' books show."""
    books = good_books(count, seed)
    books["fallback"].append(books["default"][0])
    expect(judge_books(sheet, {}, books), "held by both")
    books = good_books(count, seed)
    lost = books["default"].pop()
    expect(judge_books(sheet, {}, books), f"held by none: 1 ({lost.payment_id})")
    books = good_books(count, seed)
    books["default"].append(books["default"][0])
    expect(judge_books(sheet, {}, books), "held twice by default")
    books = good_books(count + 1, seed)
    expect(judge_books(sheet, {}, books), "never sent")
    books = good_books(count, seed)
    books["default"][7] = books["default"][7]._replace(cents=1991)
    expect(judge_books(sheet, {}, books), "wrong amount")
    # A post that got no answer may be held or not; a refused one must not be.
    one_failed = {**sheet, "posts": {**sheet["posts"], "failed": 1}}
    books = good_books(count, seed)
    expect(judge_books(one_failed, {5: 0}, books))
    expect(judge_books(one_failed, {5: 502}, books))
    expect(judge_books(one_failed, {5: 503}, books), "refused but held")
    expect(judge_books(one_failed, {}, books), "console names 0")


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Compares the books after a contest run.", allow_abbrev=False
    )
    parser.add_argument("--self-test", action="store_true", help="check this file and exit")
    parser.add_argument("--sheet", help="the score sheet that contest.js wrote")
    parser.add_argument("--console", help="k6's --console-output file of the same run")
    parser.add_argument("--backend-url", default="http://127.0.0.1:9999")
    parser.add_argument("--default-url", default="http://127.0.0.1:8001")
    parser.add_argument("--fallback-url", default="http://127.0.0.1:8002")
    parser.add_argument("--token", default="123", help="the processors' X-Rinha-Token")
    parser.add_argument(
        "--wait-seconds", type=float, default=10, help="how long queued payments may take to settle"
    )
    parser.add_argument(
        "--excused-posts", type=int, default=0, help="how many posts may have failed (chaos.py)"
    )
    parser.add_argument(
        "--excused-audits", type=int, default=0, help="how many audits may be without an answer"
    )
    parser.add_argument("--windows", type=int, default=50, help="how many windows to ask about")
    settings = parser.parse_args()
    if not settings.self_test and not (settings.sheet and settings.console):
        parser.error("--sheet and --console are needed")
    return settings


def main():
    """Entry point; the exit status is in the file's comment."""
    settings = parse_arguments()
    if settings.self_test:
        self_test()
        return 0
    try:
        return check(settings)
    except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
        print(f"books.py: the comparison could not be made: {error!r}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
