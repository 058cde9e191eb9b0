"""The account ledger of the contest of 2024, beside the payments."""

from lib import machine

TITLE = "The ledger: transactions and statements, beside the payments"
NEEDS = {"tools": ["wrk", "haproxy"], "yardsticks": ["steady"]}


def run(sheet, quick):
    pass
