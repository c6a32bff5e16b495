"""Worker processes that are killed, stopped and ended in the middle of jobs: each fault is counted.

    python -m tests.faults processes    prints the table

A job is right, or ends with a typed error, in bounded time; and when it has ended nothing of it is left.
"""

import ctypes
import gc
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np

import wukong
from tests.faults.stores import Row
from wukong.errors import WukongError
from wukong.executor import driver
from wukong.platforms.local.pack import Pack
from wukong.platforms.local.packs import pack_of

#: Seconds after which a job is taken to hang.
HANGS = 60.0
#: Seconds that workers of these jobs may be stopped.
LEASE = 0.3


# --- jobs -------------------------------------------------------------------------------------------------------------


def graph_of(seed: int, size: int = 30) -> tuple[dict[str, Any], list[str]]:
    """Return a random graph whose results depend on every input of every task, and its outputs."""
    rng = random.Random(seed)
    graph: dict[str, Any] = {}
    used: set[str] = set()
    for i in range(size):
        inputs = rng.sample(sorted(graph), min(len(graph), rng.choice([0, 1, 1, 2, 2, 3])))
        used.update(inputs)
        graph[f"t{i:03}"] = (mix, i, rng.choice([1, 1, 40_000]), rng.choice([0, 0, 2e-3]), *inputs)
    return graph, [key for key in graph if key not in used]


def mix(number: int, size: int, seconds: float, *inputs: Any) -> Any:
    """Return an array that depends on all of its inputs."""
    time.sleep(seconds)
    value = np.full(size, number + 1, dtype=np.int64)
    for i, each in enumerate(inputs):
        value = value * 31 + (i + 1) * int(each[0]) + int(each[-1])
    return value % 1_000_003


# --- faults, in the worker --------------------------------------------------------------------------------------------


def end_by_kill() -> None:
    """As the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def end_by_exit() -> None:
    """As a library does that has given up."""
    os._exit(3)


def end_by_crash() -> None:
    """As native code does."""
    ctypes.string_at(0)


def stop() -> None:
    """Be silent until somebody kills this."""
    os.kill(os.getpid(), signal.SIGSTOP)


def armed(task: Any, folder: str, step: int, fault: Callable[[], None], after: bool) -> Any:
    """Return a task that lets its worker die at the so-manieth effect after it, once in all workers together."""
    function, *operands = task
    return (_arm, folder, step, fault, after, function, *operands)


def _arm(
    folder: str, step: int, fault: Callable[[], None], after: bool, function: Callable[..., Any], *operands: Any
) -> Any:
    if _claims(folder):
        _at(step, fault, after)
    return function(*operands)


def _claims(folder: str) -> bool:
    """Whether this is the first to come here."""
    try:
        os.close(os.open(Path(folder, "armed"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _at(step: int, fault: Callable[[], None], after: bool) -> None:
    left = [step]

    def carry_out(kind: type) -> Callable[[Any, Any], Any]:
        truly = driver._CARRY_OUT[kind]

        def carry(it: Any, effect: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                fault()
            answer = truly(it, effect)
            if left[0] == 0 and after:
                fault()
            return answer

        return carry

    driver._CARRY_OUT.update({kind: carry_out(kind) for kind in driver._CARRY_OUT})


# --- faults, from outside ---------------------------------------------------------------------------------------------


class Killer:
    """A thread that does something to a random worker of a pack, again and again."""

    def __init__(self, pack: Pack, number: int, seed: int, every: float) -> None:
        self.times = 0
        self._pack, self._number, self._every = pack, number, every
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Killer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(self._every * self._random.uniform(0.5, 1.5)):
            pids = self._pack.pids
            # On a machine that is busy, who dies more often than work is done never gets anywhere.
            if pids and not self._pack.deaths:
                try:
                    os.kill(self._random.choice(pids), self._number)
                    self.times += 1
                except ProcessLookupError:
                    pass


# --- what comes of it -------------------------------------------------------------------------------------------------


def run(row: Row, graph: dict[str, Any], outputs: list[str], right: Any, **options: Any) -> None:
    """Run a graph in processes and count what comes of it."""
    began = time.monotonic()
    try:
        with dask.config.set(scheduler=None):
            found = wukong.get(graph, outputs, granules="processes", workers=2, **options)
    except WukongError as error:
        row.errors += 1
        row.last = f"{type(error).__name__}: {error}"
    else:
        same = all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))
        row.right += same
        row.wrong += not same
    seconds = time.monotonic() - began
    row.slowest = max(row.slowest, seconds)
    row.hangs += seconds > HANGS


def left(pack: Pack) -> int:
    """Return how many blocks of shared memory hold something of a job, and how many jobs are remembered."""
    deadline = time.monotonic() + 10
    while True:
        gc.collect()
        blocks = sum(1 for block in list(pack.arena._pool.blocks.values()) if block.extents or block.readers)
        count = blocks + len(pack.arena._names) + len(pack._sources)
        if not count or time.monotonic() > deadline:
            return count
        time.sleep(0.01)


def _pack() -> Pack:
    pack = pack_of(2)
    assert pack is not None
    pack._watch.lease = LEASE
    return pack


def at_steps(fault: Callable[[], None], steps: range, seed: int = 0) -> Row:
    """Let a worker die before and after each of these steps, one a job."""
    row = Row(f"{fault.__name__} at each step")
    for step in steps:
        for after in (False, True):
            graph, outputs = graph_of(seed + step)
            right = dask.get(graph, outputs)
            with tempfile.TemporaryDirectory() as folder:
                graph = {key: armed(task, folder, step, fault, after) for key, task in graph.items()}
                run(row, graph, outputs, right)
                row.injected += Path(folder, "armed").exists()
            row.leftovers += left(_pack())
    return row


def at_random(name: str, number: int, seconds: float, every: float, seed: int = 0) -> Row:
    """Do something to random workers for so long while jobs run."""
    row = Row(f"{name} at random")
    pack = _pack()
    deadline = time.monotonic() + seconds
    with Killer(pack, number, seed, every) as killer:
        while time.monotonic() < deadline:
            seed += 1
            graph, outputs = graph_of(seed)
            run(row, graph, outputs, dask.get(graph, outputs))
    row.injected = killer.times
    row.leftovers += left(pack)
    return row


def continued(seconds: float, seed: int = 0) -> Row:
    """Stop random workers for less than their lease, and let them go on."""
    row = Row("SIGSTOP and SIGCONT")
    pack = _pack()
    pack._watch.lease = 60.0
    deadline = time.monotonic() + seconds
    with Killer(pack, signal.SIGSTOP, seed, 0.2) as killer, Killer(pack, signal.SIGCONT, seed + 1, 0.05):
        while time.monotonic() < deadline:
            seed += 1
            graph, outputs = graph_of(seed)
            run(row, graph, outputs, dask.get(graph, outputs))
    row.injected = killer.times
    for pid in pack.pids:
        os.kill(pid, signal.SIGCONT)
    row.leftovers += left(pack)
    pack._watch.lease = LEASE
    return row


def keepers(times: int, seed: int = 0) -> Row:
    """Kill the keeper, and all workers with it, in the middle of jobs."""
    row = Row("kill -9 of the keeper")
    for _ in range(times):
        seed += 1
        pack = _pack()
        graph, outputs = graph_of(seed, 60)
        timer = threading.Timer(0.02, lambda pid=pack.keeper: os.kill(pid, signal.SIGKILL))
        timer.start()
        run(row, graph, outputs, dask.get(graph, outputs))
        timer.join()
        row.injected += 1
        row.leftovers += left(_pack())
    return row


def rows(times: int = 3, seed: int = 0) -> Iterator[Row]:
    """Return a row for each fault."""
    steps = range(1, 10 * times)
    for fault in (end_by_kill, end_by_exit, end_by_crash):
        yield at_steps(fault, steps, seed)
    yield at_steps(stop, range(1, 2 * times), seed)
    yield at_random("kill -9", signal.SIGKILL, 5.0 * times, 0.25, seed)
    yield at_random("SIGSTOP beyond the lease", signal.SIGSTOP, 5.0 * times, 2.0, seed)
    yield continued(2.0 * times, seed)
    yield keepers(2 * times, seed)
