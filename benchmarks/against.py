"""This tree beside another revision of itself: what a change costs where nothing goes wrong.

    python benchmarks/against.py REVISION [--rounds 15] [--only NAME]

Each revision runs in a process of its own, from sources without the other's; the rounds are interleaved. Time, CPU of
the process with all its workers and servers, and round trips to the store, as medians; of these the ratios. CPU of the
same code differs from run to run, by its quartiles (also printed).
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, sleep
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def tree() -> Any:
    """Sum 1,024 numbers, two by two: 1,023 tasks of no work."""
    import operator

    from dask import delayed

    add = delayed(operator.add)
    level: list[Any] = [add(i, i + 1) for i in range(512)]
    while len(level) > 1:
        level = [add(a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def svd() -> Any:
    """Singular values of a tall matrix, 96 MB in 16 blocks: some 80 tasks of NumPy."""
    import dask.array as da

    tall = da.random.default_rng(7).random((120_000, 100), chunks=(7_500, 100))
    return da.linalg.svd(tall)[1].sum()


GRAPHS: dict[str, Callable[[], Any]] = {"tree": tree, "SVD": svd}
PLACES: dict[str, dict[str, Any]] = {
    "threads, Valkey": {"granules": "threads", "store": "embedded"},
    "processes": {"granules": "processes"},
    "processes, Valkey": {"granules": "processes", "store": "embedded"},
}
CASES = {f"{graph}, {place}": (graph, place) for graph in GRAPHS for place in PLACES}


def burnt() -> float:
    """Return the CPU seconds of this process and all under it."""
    import psutil

    me = psutil.Process()
    times = [me.cpu_times()]
    for process in me.children(recursive=True):
        try:
            times.append(process.cpu_times())
        except psutil.NoSuchProcess:
            continue
    return sum(t.user + t.system for t in times)


def contestant() -> None:
    """Run what is asked for, by name and how many times, and answer with figures."""
    import wukong

    graphs = {name: make() for name, make in GRAPHS.items()}
    for line in sys.stdin:
        case, times = json.loads(line)
        graph, place = CASES[case]
        before, began = burnt(), perf_counter()
        for _ in range(times):
            wukong.compute(graphs[graph], workers=2, **PLACES[place])
        seconds = perf_counter() - began
        sleep(0.02)  # what goes on behind the call counts as well
        run = wukong.last_run()
        assert run is not None
        print(json.dumps([seconds / times, (burnt() - before) / times, run.round_trips]), flush=True)


class Contestant:
    """A process with one revision's sources."""

    def __init__(self, sources: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(sources)}
        command = [sys.executable, str(Path(__file__).resolve()), "--contestant"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=sources
        )

    def run(self, case: str, times: int) -> list[float]:
        """Return seconds, CPU seconds and round trips of one compute, from so many one after the other."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([case, times]) + "\n")
        self._process.stdin.flush()
        return list(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def unpack(revision: str, folder: str) -> None:
    """Write the sources of a revision into a folder."""
    archive = subprocess.run(
        ["git", "archive", revision, "wukong"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as sources:
        sources.extractall(folder, filter="data")


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", nargs="?", default="HEAD", help="what `git archive` takes; HEAD if not given")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    parser.add_argument("--contestant", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contestant()
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(options.revision, folder)
        both = [Contestant(Path(folder)), Contestant(ROOT)]
        print(f"{'this tree / ' + options.revision:32}{'time':>8}{'CPU':>8}{'quartiles of CPU':>20}{'round trips':>24}")
        for case in CASES:
            if options.only not in case:
                continue
            times = 8 if case.startswith("tree") else 2
            figures: list[list[list[float]]] = [[], []]
            for turn in range(options.rounds + 2):
                for which in (0, 1) if turn % 2 else (1, 0):
                    found = both[which].run(case, times)
                    if turn > 1:  # the first rounds warm up
                        figures[which].append(found)
            before, now = (list(zip(*rows, strict=True)) for rows in figures)
            time, cpu = (median(now[i]) / median(before[i]) for i in (0, 1))
            low, _, high = quantiles([a / b for a, b in zip(now[1], before[1], strict=True)], n=4)
            trips = f"{median(now[2]):.0f} / {median(before[2]):.0f}"
            print(f"{case:32}{time:8.3f}{cpu:8.3f}{f'{low:.3f} .. {high:.3f}':>20}{trips:>24}", flush=True)
        for one in both:
            one.close()


if __name__ == "__main__":
    main()
