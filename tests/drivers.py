"""Every way to run a graph, as tests need them: over each store, with other costs, taken over in the middle.

Each is a context manager of a `get(graph, keys)`. When a graph is through, `idle` waits until nothing of it is left.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any
from unittest.mock import patch

import wukong
from wukong.cost import IN_PROCESS, PROCESSES, Costs
from wukong.platforms.local import threads
from wukong.platforms.local.packs import pack_of
from wukong.scheduler import adaptive, company, compiled, run, stores
from wukong.scheduler.dask import graphs
from wukong.scheduler.relay import Relay
from wukong.storage.address import parse
from wukong.storage.link import Link

Get = Callable[[Any, Any], Any]

#: Nothing is kept that can be invoked, and nothing lingers: as many executors, requests and races as there can be.
RESTLESS = Costs(round_trip=1e-6, bandwidth=1e15, invoke=1e-9, unknown=1e-3, copies=0)


class Sending(Costs):
    """Keeps no child but the one it becomes, whatever there is to ship."""

    __slots__ = ()

    def keep(self, *_: float) -> int:
        """One."""
        return 1


#: Every value is larger than what rides with a record, and dear to ship, so that children are kept where that is so.
CLUSTERED = Costs(round_trip=2e-4, bandwidth=1e4, invoke=1e-9, unknown=1e-3)
#: The same, but children are invoked, and values held rather than written where that is allowed.
HEAVY = Sending(round_trip=2e-4, bandwidth=1e4, invoke=1e-9, unknown=1e-3)
#: Every value is larger than what rides with a record, and none is ever waited for.
HASTY = Costs(round_trip=2e-4, bandwidth=1e4, invoke=1e-9, unknown=1e-3, copies=0)


@contextlib.contextmanager
def switching_often(seconds: float = 1e-5) -> Iterator[None]:
    """Let threads take turns far more often than usual."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


@contextlib.contextmanager
def in_process(workers: int, costs: Costs = IN_PROCESS, **options: Any) -> Iterator[Get]:
    """Executors in threads, records and values in memory."""
    with patch.object(stores, "IN_PROCESS", costs), switching_often():
        yield lambda graph, keys: wukong.get(graph, keys, granules="threads", workers=workers, **options)


@contextlib.contextmanager
def over(url: str, workers: int, costs: Costs | None = None, **options: Any) -> Iterator[Get]:
    """Executors in threads, records and values in the store at `url`; with `costs` other than those measured there."""
    granules = "threads" if workers > 1 else "inline"
    link, measured = stores._link(url)
    with patch.dict(stores._links, {url: (link, costs or measured)}), switching_often():
        yield lambda graph, keys: wukong.get(graph, keys, granules=granules, workers=workers, store=url, **options)


@contextlib.contextmanager
def taken_over(at: int, workers: int = 2, costs: Costs = IN_PROCESS, **options: Any) -> Iterator[Get]:
    """The client begins alone, and its walk is taken over while it runs task number `at`, counted from 0."""
    relays: list[Relay] = []
    ran = 0

    class Watched(Relay):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self._costs = IN_PROCESS.replace(invoke=0.0, task=0.0)
            relays.append(self)

    def evaluate(node: Any, values: Any, plainly: Any = run.evaluate) -> Any:
        nonlocal ran
        if ran == at and relays:
            relays[-1].look()
        ran += 1
        return plainly(node, values)

    with (
        patch.object(run, "Relay", Watched),
        patch.object(run, "evaluate", evaluate),
        patch.object(run._lookout, "watch", lambda _: None),
        patch.object(stores, "IN_PROCESS", costs),
        switching_often(),
    ):

        def get(graph: Any, keys: Any) -> Any:
            nonlocal ran
            ran = 0
            return wukong.get(graph, keys, granules="auto", workers=workers, **options)

        yield get


@contextlib.contextmanager
def in_processes(workers: int, costs: Costs = PROCESSES, store: str | None = None) -> Iterator[Get]:
    """Executors in processes; records with the client and values in shared memory, or both in a store."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(company, "PROCESSES", costs))
        if store is not None and costs is not PROCESSES:
            link, _ = stores._link(store)
            stack.enter_context(patch.dict(stores._links, {store: (link, costs)}))
        yield lambda graph, keys: wukong.get(graph, keys, granules="processes", workers=workers, store=store)


@contextlib.contextmanager
def handed_over(workers: int) -> Iterator[Get]:
    """The client has handed its walk over before its first task."""

    def get(graph: Any, keys: Any) -> Any:
        tasks = graphs.trace(graphs.merge(graph), graphs.flatten(keys))
        values: dict[Any, Any] = {}
        with compiled.Compiled(tasks, values, workers, None, None, granules="auto", packs=pack_of) as job:
            job.finish()
        return graphs.arrange(keys, values)

    yield get


@contextlib.contextmanager
def mixed(seed: int, workers: int, costs: Costs = PROCESSES) -> Iterator[Get]:
    """Executors in threads and in processes: kinds move at random, before the launch and while it runs."""
    random = Random(seed)

    class AtRandom(adaptive.Sorting):
        def sort_known(self) -> None:
            self._move_some(0.5)

        def sort(self, kind: int) -> None:
            if kind not in self.reasons and random.random() < 0.5:
                self.reasons[kind] = "chance"
                self._placement.move(kind)
                self._move_in()

        def _move_some(self, share: float) -> None:
            for kind in range(len(self._plan.columns.programs)):
                if random.random() < share:
                    self.sort(kind)

    class Watched(company.Company):
        def work(self) -> None:
            watch = threading.Thread(target=self._watch)
            watch.start()
            try:
                super().work()
            finally:
                watch.join()

        def _watch(self) -> None:
            while self.look():
                time.sleep(1e-3)

    with (
        patch.object(company, "PROCESSES", costs),
        patch.object(company, "Sorting", AtRandom),
        patch.object(compiled, "Company", Watched),
        switching_often(),
        handed_over(workers) as get,
    ):
        yield get


def keys_of(url: str) -> set[bytes]:
    """Return all keys of a server, or of all nodes of a cluster."""
    address = parse(url)
    if address.cluster:
        first = Link(parse("redis://{}:{}".format(*address.nodes[0])))
        lines = bytes(first.call(b"", b"CLUSTER", b"NODES")).decode().splitlines()
        first.close()
        urls = ["redis://" + line.split()[1].partition("@")[0] for line in lines]
    else:
        urls = [url]
    found: set[bytes] = set()
    for each in urls:
        link = Link(parse(each))
        found.update(map(bytes, link.call(b"", b"KEYS", b"*")))
        link.close()
    return found


def until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until something is so; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.001)


def idle() -> bool:
    """Whether no job is on the board and every helper waits for one."""
    with threads.crew.lock:
        return not threads.crew._board and threads.crew._idle == threads.crew._helpers
