"""The parts of `perf/bench`, in the order in which they run. Each has TITLE (the question it
answers), NEEDS (tools and yardsticks), and run(sheet, quick)."""

ORDER = ["floor", "forward", "pipelined", "balancer", "peak", "drain", "connections", "history",
         "queue", "threads", "idle", "webhook", "allocations", "ledger"]


def alternating(names, rounds):
    """(round, name) pairs; each round goes through the names the other way round."""
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else list(reversed(names)):
            yield turn, name


# Room for everything that a load at full speed sends while nothing is settled.
ROOM = ["--queue-capacity", "8000000", "--ids-remembered", "8000000"]
