"""Graphs that make several times more than the memory limit: they complete, and their memory stays where it should.

    python benchmarks/memory_limit.py [--limit 200MB] [--times 3] [--out out/bench]

Two graphs of blocks on process granules, each making `times` the limit in all. In the first each block is used up soon
after it is made, so little is needed at any time; in the second all blocks have to be there before the first is read,
so what is beyond the limit goes to disk. Samples every 10 ms: what the arena holds in memory and on disk, and the
proportional set size of the client and its workers, beyond what they had when they began (it counts shared memory only
while somebody has it mapped). A plot and the peaks.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from dask.utils import parse_bytes

import wukong

BLOCK = 10_000_000


def make(number: int) -> Any:
    """Return a block of 10 MB."""
    return np.full(BLOCK // 8, float(number))


def add(one: Any, other: Any) -> Any:
    """Return the sum of two blocks."""
    return one + other


def soon(blocks: int) -> tuple[dict[str, Any], float]:
    """A tree of sums: depth first, each block is used up soon."""
    graph: dict[str, Any] = {f"x0-{i}": (make, i) for i in range(blocks)}
    level, width = 0, blocks
    while width > 1:
        for i in range(-(-width // 2)):
            pair = [f"x{level}-{j}" for j in (2 * i, 2 * i + 1) if j < width]
            graph[f"x{level + 1}-{i}"] = (add, *pair) if len(pair) == 2 else (np.copy, pair[0])
        level, width = level + 1, -(-width // 2)
    graph["total"] = (np.sum, f"x{level}-0")
    return graph, float(sum(range(blocks)) * (BLOCK // 8))


def late(blocks: int) -> tuple[dict[str, Any], float]:
    """Every block waits until all are made."""
    graph: dict[str, Any] = {f"x{i}": (make, i) for i in range(blocks)}
    graph["made"] = (lambda *firsts: 0.0 * sum(firsts), *(f"first{i}" for i in range(blocks)))
    for i in range(blocks):
        graph[f"first{i}"] = (lambda x: float(x[0]), f"x{i}")
        graph[f"s{i}"] = (lambda x, made: float(x.sum()) + made, f"x{i}", "made")
    graph["total"] = (lambda *sums: sum(sums), *(f"s{i}" for i in range(blocks)))
    return graph, float(sum(range(blocks)) * (BLOCK // 8))


@contextmanager
def sampled(pack: Any) -> Iterator[list[tuple[float, ...]]]:
    """Note time, arena in memory, arena on disk, and proportional set size, in bytes, until the end."""
    samples: list[tuple[float, ...]] = []
    over = threading.Event()
    began, before = time.perf_counter(), proportional(pack)

    def sample() -> None:
        while not over.wait(0.01):
            figures = pack.arena.figures()
            samples.append(
                (time.perf_counter() - began, figures.in_memory, figures.on_disk, proportional(pack) - before)
            )

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def proportional(pack: Any) -> int:
    """Return the proportional set size of this process and the workers, in bytes."""
    total = 0
    for pid in (os.getpid(), *pack.pids):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", default="200MB", help="memory limit of the client")
    parser.add_argument("--times", type=float, default=3.0, help="what a graph makes, in limits")
    parser.add_argument("--out", type=Path, default=Path("out/bench"), help="folder of the plot and the figures")
    asked = parser.parse_args()
    limit = parse_bytes(asked.limit)
    blocks = int(asked.times * limit / BLOCK)
    asked.out.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    results: dict[str, Any] = {}
    for axis, (name, shape) in zip(axes, {"used up soon": soon, "all needed at once": late}.items(), strict=True):
        graph, wanted = shape(blocks)
        with wukong.Client(granules="processes", memory_limit=limit) as client:
            client.submit(np.ones, 1).result()
            pack = client._engine.processes.pack()
            began = time.perf_counter()
            with sampled(pack) as samples:
                found = client.get(graph, "total")
            seconds = time.perf_counter() - began
        assert found == wanted, f"{name}: {found} instead of {wanted}"
        table = np.array(samples).T
        peaks = {part: float(table[i].max()) for i, part in enumerate(("in memory", "on disk", "processes"), start=1)}
        results[name] = {"blocks": blocks, "made": blocks * BLOCK, "limit": limit, "seconds": seconds, "peaks": peaks}
        parts = ", ".join(f"{part} {nbytes / 1e6:.0f} MB" for part, nbytes in peaks.items())
        made = f"{blocks * BLOCK / 1e6:.0f} MB made under a limit of {limit / 1e6:.0f} MB in {seconds:.2f} s"
        print(f"{name}: {made}; peaks: {parts}")
        for i, label in enumerate(("arena in memory", "arena on disk", "client and workers (PSS)"), start=1):
            axis.plot(table[0], table[i] / 1e6, label=label)
        axis.axhline(limit / 1e6, color="grey", linestyle="--", label="limit")
        axis.set(title=f"{blocks * BLOCK / 1e6:.0f} MB of blocks, {name}", xlabel="seconds")
    axes[0].set_ylabel("MB")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(asked.out / "memory_limit.png", dpi=120)
    (asked.out / "memory_limit.json").write_text(json.dumps(results, indent=1))
    print(f"plot: {asked.out / 'memory_limit.png'}")


if __name__ == "__main__":
    main()
