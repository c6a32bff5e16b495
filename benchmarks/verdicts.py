"""Does the evidence of granules="auto" judge right? Functions whose nature is known, alone and in company.

    python benchmarks/verdicts.py [--rounds 10] [--foreign 2] [--graphs] [--shares]

Each round runs a function three times (its samples), beside nothing, itself, a sleeper or a Python loop, while naps are
taken; the table counts the verdicts: that it holds the interpreter, that it does not, and none yet. `--foreign` keeps
so many other processes busy meanwhile. `--graphs` judges every kind of task of benchmarks/numpy_bound.py, none of which
may be found to hold the interpreter. `--shares` shows why thread time against wall time is no evidence.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np
import pandas as pd

import wukong
from wukong.platforms.local.verdicts import Seen, Verdicts

Function = Callable[[], Any]

_SQUARE = np.random.default_rng(1).standard_normal((700, 700))
_LARGE = np.random.default_rng(2).random((1500, 1500))
_OBJECTS = pd.Series([f"abc {i} def" for i in range(60_000)], dtype=object)
_RECORDS = json.dumps([{"a": i, "b": [1, 2, 3], "c": "text"} for i in range(20_000)])
_TABLE = pd.DataFrame({"k": np.arange(400_000) % 1000, "v": np.random.default_rng(3).random(400_000)})
_FILE = Path(tempfile.gettempdir()) / f"wukong-verdicts-{os.getpid()}"


def _loop(milliseconds: float) -> None:
    began, total = time.thread_time(), 0
    while time.thread_time() - began < milliseconds / 1e3:
        for i in range(2000):
            total += i * i


def loop_20ms() -> None:
    """A Python loop."""
    _loop(20)


def loop_5ms() -> None:
    """A short Python loop."""
    _loop(5)


def strings() -> Any:
    """Methods of strings over a column of objects."""
    return _OBJECTS.str.split().str.len()


def mapped() -> Any:
    """A Python function over a column."""
    return _OBJECTS.map(lambda text: text[::-1])


def parse() -> Any:
    """JSON."""
    return json.loads(_RECORDS)


def small_arrays() -> Any:
    """A Python loop over arrays of ten numbers."""
    x = np.ones(10)
    for _ in range(20_000):
        x = x * 1.0 + 0.0
    return x


def gemm() -> Any:
    """A product of matrices."""
    return _SQUARE @ _SQUARE


def add() -> Any:
    """A sum with a transpose."""
    return (_LARGE + _LARGE.T).sum()


def draw() -> Any:
    """Random numbers."""
    return np.random.default_rng(1).standard_normal(700_000)


def qr() -> Any:
    """A QR decomposition."""
    return np.linalg.qr(_SQUARE[:, :300])


def concatenate() -> Any:
    """Copies of arrays."""
    return np.concatenate([_LARGE[:, :700], _LARGE[:, 700:]], axis=1)


def group() -> Any:
    """A group-by over numbers."""
    return _TABLE.groupby("k").v.mean()


def nap() -> None:
    """Sleep."""
    time.sleep(0.02)


def read() -> bytes:
    """A file of 20 MB."""
    return _FILE.read_bytes()


HOLD = (loop_20ms, loop_5ms, strings, mapped, parse, small_arrays)
FREE = (gemm, add, draw, qr, concatenate, group, nap, read)
COMPANY: dict[str, Callable[[Function], Function | None]] = {
    "alone": lambda _: None,
    "with itself": lambda function: function,
    "beside a nap": lambda _: nap,
    "beside a loop": lambda _: loop_20ms,
}


def judge(function: Function, companion: Function | None, samples: int) -> tuple[bool | None, float]:
    """Run a function so many times, naps being taken; return the verdict, and after which run it came."""
    verdicts, at_work, over = Verdicts(), Counter[Function](), threading.Event()
    if companion in (nap, loop_20ms) and companion is not function:
        # In a graph it would have been judged before, in the client, alone.
        for _ in range(3):
            verdicts.saw({companion}, Seen(0.02 * (companion is loop_20ms), ran=True))

    def accompany() -> None:
        assert companion is not None
        at_work[companion] += 1
        while not over.is_set():
            companion()
        at_work[companion] -= 1

    def watch() -> None:
        while not over.is_set():
            verdicts.look(lambda: [kind for kind in list(at_work) if at_work[kind]])

    threads = [threading.Thread(target=watch)]
    if companion is not None:
        threads.append(threading.Thread(target=accompany))
    for thread in threads:
        thread.start()
    came = float("inf")
    try:
        for sample in range(samples):
            at_work[function] += 1
            function()
            at_work[function] -= 1
            if verdicts.holds(function) is not None:
                came = min(came, sample + 1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return verdicts.holds(function), came


def table(rounds: int, samples: int) -> int:
    """Print the verdicts; return how many of those that run free were found to hold."""
    wrong = 0
    print(f"{'':14}{'':8}" + "".join(f"{company:>24}" for company in COMPANY))
    print(f"{'':22}" + f"{'holds free none':>24}" * len(COMPANY))
    for function in (*HOLD, *FREE):
        cells = []
        for company in COMPANY.values():
            found: Counter[bool | None] = Counter()
            for _ in range(rounds):
                found[judge(function, company(function), samples)[0]] += 1
            cells.append(f"{found[True]:>14}{found[False]:>5}{found[None]:>5}")
            wrong += found[True] if function in FREE else 0
        nature = "holds" if function in HOLD else "free"
        print(f"{function.__name__:14}{nature:8}" + "".join(cells), flush=True)
    return wrong


def shares(rounds: int) -> None:
    """Print thread time and process time over wall time, of two of a kind at once: medians."""
    print(f"\n{'two of a kind':16}{'thread / wall':>14}{'process / wall':>16}")
    for function in (*HOLD, *FREE):
        rows: list[tuple[float, float]] = []

        def run(function: Function = function, rows: list[tuple[float, float]] = rows) -> None:
            for _ in range(rounds):
                clocks = [clock() for clock in (time.perf_counter, time.thread_time, time.process_time)]
                function()
                wall, thread, process = (
                    clock() - began
                    for clock, began in zip(
                        (time.perf_counter, time.thread_time, time.process_time), clocks, strict=True
                    )
                )
                rows.append((thread / wall, process / wall))

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        thread_share, process_share = (median(column) for column in zip(*rows, strict=True))
        print(f"{function.__name__:16}{thread_share:14.2f}{process_share:16.2f}")


def graphs(workers: int) -> int:
    """Judge the kinds of tasks of the NumPy-bound graphs; return how many were found to hold the interpreter."""
    import dask.callbacks
    from dask.utils import key_split
    from numpy_bound import WORKLOADS

    class AtWork(dask.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kinds: Counter[str] = Counter()

        def _pretask(self, key: Any, *_: Any) -> None:
            self.kinds[key_split(key)] += 1

        def _posttask(self, key: Any, *_: Any) -> None:
            self.kinds[key_split(key)] -= 1

    wrong = 0
    for make in WORKLOADS:
        verdicts, at_work, over = Verdicts(), AtWork(), threading.Event()

        def watch(verdicts: Verdicts = verdicts, at_work: Any = at_work, over: threading.Event = over) -> None:
            while not over.is_set():
                verdicts.look(lambda: [kind for kind in list(at_work.kinds) if at_work.kinds[kind] > 0])

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            with at_work:
                wukong.compute(make(), granules="threads" if workers > 1 else "inline", workers=workers)
        finally:
            over.set()
            thread.join()
        found = {kind: verdicts.holds(kind) for kind in at_work.kinds}
        wrong += sum(verdict is True for verdict in found.values())
        print(f"{make.__name__:16}{workers} at once  " + ", ".join(f"{k}: {_WORDS[v]}" for k, v in found.items()))
    return wrong


_WORDS = {True: "HOLDS", False: "free", None: "no verdict"}


@contextmanager
def foreign(processes: int) -> Any:
    """Keep other processes busy meanwhile."""
    others = [multiprocessing.Process(target=_loop, args=(1e9,), daemon=True) for _ in range(processes)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.join()


def main() -> None:
    """Run the experiment and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--foreign", type=int, default=0, help="other processes that are kept busy")
    parser.add_argument("--graphs", action="store_true", help="judge the tasks of benchmarks/numpy_bound.py too")
    parser.add_argument("--shares", action="store_true", help="show thread and process time over wall time")
    options = parser.parse_args()
    _FILE.write_bytes(bytes(20_000_000))
    try:
        with foreign(options.foreign):
            wrong = table(options.rounds, options.samples)
            if options.shares:
                shares(options.rounds)
            if options.graphs:
                wrong += graphs(1) + graphs(2)
    finally:
        _FILE.unlink()
    print(f"\n{wrong} verdicts that a function holds the interpreter which does not")


if __name__ == "__main__":
    main()
