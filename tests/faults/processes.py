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
from tests import drivers, servers
from tests.faults.stores import Row
from wukong.errors import WukongError
from wukong.executor import driver
from wukong.platforms.local.pack import Pack
from wukong.platforms.local.packs import pack_of
from wukong.scheduler import stores

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


def left(pack: Pack, store: str | None = None, seconds: float = 10.0) -> list[str]:
    """Return what is still there of jobs that are over: in shared memory, on the board, in their store."""
    deadline = time.monotonic() + seconds
    while True:
        gc.collect()
        found = [
            f"block {each.id}: {each.extents} extents, readers {dict(each.readers)}"
            for each in list(pack.arena._pool.blocks.values())
            if each.extents or each.readers
        ]
        found += [f"names of job {job}: {sorted(names)}" for job, names in list(pack.arena._names.items())]
        found += [f"source {source!r}" for source in list(pack._sources)]
        found += [] if store is None else [f"key {key!r}" for key in sorted(drivers.keys_of(store))]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def leaves(row: Row, pack: Pack, store: str | None = None) -> None:
    """Count what is left."""
    found = left(pack, store)
    row.leftovers += len(found)
    row.last = "; ".join(found) or row.last


def _pack() -> Pack:
    pack = pack_of(2)
    assert pack is not None
    pack._watch.lease = LEASE
    return pack


def _named(fault: str, store: str | None) -> str:
    return fault if store is None else f"{fault}, over a server"


def at_steps(fault: Callable[[], None], steps: range, seed: int = 0, store: str | None = None) -> Row:
    """Let a worker die before and after each of these steps, one a job."""
    row = Row(_named(f"{fault.__name__} at each step", store))
    for step in steps:
        for after in (False, True):
            graph, outputs = graph_of(seed + step)
            right = dask.get(graph, outputs)
            with tempfile.TemporaryDirectory() as folder:
                graph = {key: armed(task, folder, step, fault, after) for key, task in graph.items()}
                run(row, graph, outputs, right, store=store)
                row.injected += Path(folder, "armed").exists()
            leaves(row, _pack(), store)
    return row


def _while_jobs_run(row: Row, seconds: float, seed: int, store: str | None) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seed += 1
        graph, outputs = graph_of(seed)
        run(row, graph, outputs, dask.get(graph, outputs), store=store)


def at_random(name: str, number: int, seconds: float, every: float, seed: int = 0, store: str | None = None) -> Row:
    """Do something to random workers for so long while jobs run."""
    row = Row(_named(f"{name} at random", store))
    pack = _pack()
    with Killer(pack, number, seed, every) as killer:
        _while_jobs_run(row, seconds, seed, store)
    row.injected = killer.times
    leaves(row, pack, store)
    return row


def continued(seconds: float, seed: int = 0, store: str | None = None) -> Row:
    """Stop random workers for less than their lease, and let them go on."""
    row = Row(_named("SIGSTOP and SIGCONT", store))
    pack = _pack()
    pack._watch.lease = 60.0
    with Killer(pack, signal.SIGSTOP, seed, 0.2) as killer, Killer(pack, signal.SIGCONT, seed + 1, 0.05):
        _while_jobs_run(row, seconds, seed, store)
    row.injected = killer.times
    for pid in pack.pids:
        os.kill(pid, signal.SIGCONT)
    leaves(row, pack, store)
    pack._watch.lease = LEASE
    return row


def keepers(number: int, times: int, seed: int = 0, store: str | None = None) -> Row:
    """Kill the keeper, and all workers with it, or stop it and kill one of them, in the middle of jobs."""
    row = Row(_named("kill -9 of the keeper" if number == signal.SIGKILL else "SIGSTOP of the keeper", store))
    for _ in range(times):
        seed += 1
        pack = _pack()
        graph, outputs = graph_of(seed, 60)

        def strike(pack: Pack = pack) -> None:
            os.kill(pack.keeper, number)
            if number == signal.SIGSTOP:
                os.kill(pack.pids[0], signal.SIGKILL)

        timer = threading.Timer(0.02, strike)
        timer.start()
        run(row, graph, outputs, dask.get(graph, outputs), store=store)
        timer.join()
        row.injected += 1
        leaves(row, _pack(), store)
    return row


def rows(times: int = 3, seed: int = 0) -> Iterator[Row]:
    """Return a row for each fault: over the memory of the client, and over a server."""
    steps = range(1, 10 * times)
    with servers.redis_over_tcp() as server:
        for store in (None, server):
            for fault in (end_by_kill, end_by_exit, end_by_crash):
                yield at_steps(fault, steps, seed, store)
            yield at_steps(stop, range(1, 2 * times), seed, store)
            yield at_random("kill -9", signal.SIGKILL, 5.0 * times, 0.25, seed, store)
            yield at_random("SIGSTOP beyond the lease", signal.SIGSTOP, 5.0 * times, 2.0, seed, store)
            yield continued(2.0 * times, seed, store)
            yield keepers(signal.SIGKILL, 2 * times, seed, store)
            yield keepers(signal.SIGSTOP, 2 * times, seed, store)
        stores.close()
