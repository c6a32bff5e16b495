"""A tree through the embedded Valkey, every value and edge in the store, beside dask.distributed with two workers.

    python benchmarks/through_store.py [--leaves 8192] [--rounds 5] [--json FILE]

Two executor threads here, two worker processes of one thread each there; both start before the clock does. The rounds
are interleaved. Round trips are those of both stores together, the plan's publication included.
"""

import argparse
import json
import operator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import dask
from distributed import Client, LocalCluster

import wukong


def tree(leaves: int) -> Any:
    """Sum 2 * leaves numbers two by two, through Delayed."""
    add = dask.delayed(operator.add)
    level = [add(i, i + 1) for i in range(leaves)]
    while len(level) > 1:
        level = [add(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    graph = tree(options.leaves)
    tasks = 2 * options.leaves - 1
    expected = options.leaves**2
    seconds: dict[str, list[float]] = {"wukong": [], "distributed": []}
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1")
    with cluster, Client(cluster) as client:
        for turn in range(options.rounds + 1):
            began = perf_counter()
            (result,) = wukong.compute(graph, store="embedded", workers=2)
            middle = perf_counter()
            (other,) = dask.compute(graph, scheduler=client.get)
            end = perf_counter()
            assert result == other == expected
            if turn:  # the first round warms up
                seconds["wukong"].append(middle - began)
                seconds["distributed"].append(end - middle)
    run = wukong.last_run()
    assert run is not None
    ours, theirs = median(seconds["wukong"]), median(seconds["distributed"])
    print(f"{tasks} tasks       seconds    tasks/s")
    print(f"wukong          {ours:10.3f}{tasks / ours:11.0f}")
    print(f"distributed     {theirs:10.3f}{tasks / theirs:11.0f}")
    print(f"{theirs / ours:.1f} times the task rate; {run.round_trips / tasks:.3f} round trips a task")
    print(f"{run.bytes_sent / tasks:.0f} bytes a task sent, {run.bytes_received / tasks:.0f} received")
    if options.json:
        options.json.write_text(json.dumps({"tasks": tasks, "seconds": seconds, "round_trips": run.round_trips}))


if __name__ == "__main__":
    main()
