"""Worker processes that run executors, the queue in the store they take tasks from, and one job through all of it.

Everything between processes goes through the store: the plan, the queue, records and values. What each of them has sent
and received is counted by its own connections, at the socket.
"""

import pickle
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Self

from benchmarks.ladder.rungs import step_on
from wukong.cost import Estimates
from wukong.executor.context import Tally
from wukong.executor.driver import Driver
from wukong.executor.job import Job
from wukong.ids import new_job
from wukong.plan.codec import encode
from wukong.plan.reading import Plan
from wukong.plan.view import PlanView
from wukong.protocol import messages as m
from wukong.scheduler import stores
from wukong.scheduler.launch import Client
from wukong.storage.counters import Counters

_QUEUE = b"ladder"
_MANIFEST = "manifest"
#: Seconds that a job may take, and a worker may be silent.
PATIENCE = 120.0


class Figures(NamedTuple):
    """What one job took: seconds, what went over the sockets of all processes, and what its executors did."""

    seconds: float
    round_trips: int
    bytes: int
    tally: Tally


class Queue:
    """The platform of a job, to its executors: the one queue, a list in the store."""

    #: Here the end of a job is seen with the next request.
    over = False

    def __init__(self, at: stores.Stores, job: str, rung: str) -> None:
        self._link = at.control.link
        self._control = at.control
        self._job = job
        self._rung = rung

    def invoke(self, tasks: Sequence[int], per: int) -> None:
        """Put ready tasks at the end of the queue, `per` together."""
        groups = [tasks[start : start + per] for start in range(0, len(tasks), per)]
        self._link.call(_QUEUE, b"RPUSH", _QUEUE, *(pickle.dumps((self._job, self._rung, group)) for group in groups))

    def busy(self) -> bool:
        """Whether tasks wait for a worker."""
        return bool(self._link.call(_QUEUE, b"LLEN", _QUEUE))

    def pause(self, seconds: float) -> bool:
        """Wait so long; return whether tasks wait for a worker."""
        time.sleep(seconds)
        return self.busy()

    def finish(self) -> None:
        """Nothing: the client waits at the store."""

    def gone(self) -> None:
        """Nothing: its client has what it came for."""

    def fail(self, key: Any, error: BaseException) -> None:
        """End the job in the store, where its client sees it."""
        self._control.apply(self._job, 0, m.Cancel(m.FAILED, f"{key!r}: {error!r}".encode()))


def job_on(rung: str, at: stores.Stores, name: str, plan: Any) -> Job:
    """Return a job as one process sees it."""
    queue = Queue(at, name, rung)
    estimates = Estimates(at.costs.unknown)
    return step_on(rung, Job(name, plan, at.control, at.values, at.costs, estimates, at.pack, at.unpack, queue))


def work(url: str, pipe: Connection) -> None:
    """Be a worker: run executors on what comes from the queue; at an empty token, say what that took."""
    link = stores.shared_link(url)
    name, driver, tally, since = "", None, Tally(executors=0), link.counters
    pipe.send("ready")
    while True:
        popped = link.call(_QUEUE, b"BLPOP", _QUEUE, b"5", patience=5.0)
        token = bytes(popped[1]) if popped else None
        if token == b"":
            pipe.send((minus(link.counters, since), tally))
            # The next token is another worker's until it has answered, too.
            if not pipe.recv():
                return
            tally, since = Tally(executors=0), link.counters
        elif token:
            job, rung, starts = pickle.loads(token)
            if job != name:
                name, at = job, stores.at(url, job)
                (manifest,) = at.values.get([_MANIFEST])
                driver = Driver(job_on(rung, at, job, PlanView(manifest, at.values.get)))
            try:
                tally.add(driver.enter(starts))
            except Exception as error:
                driver.job.invoker.fail(None, error)


def minus(after: Counters, before: Counters) -> Counters:
    """Return what was counted in between."""
    return Counters(*(a - b for a, b in zip(after, before, strict=True)))


class Pool:
    """Workers on one store; a context manager.

    Parameters
    ----------
    url : str
        The store.
    workers : int
        How many.
    """

    def __init__(self, url: str, workers: int) -> None:
        self._url = url
        context = get_context("spawn")
        pairs = [context.Pipe() for _ in range(workers)]
        self._pipes = [ours for ours, _ in pairs]
        self._processes = [context.Process(target=work, args=(url, theirs), daemon=True) for _, theirs in pairs]
        for process, (_, theirs) in zip(self._processes, pairs, strict=True):
            process.start()
            theirs.close()

    def __enter__(self) -> Self:
        self._answers()
        self._link = stores.shared_link(self._url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._report()
            for pipe in self._pipes:
                pipe.send(False)
        for process in self._processes:
            process.join(5.0 if error is None else 0.0)
            process.kill()
            process.join()

    def run(self, plan: Plan, rung: str) -> tuple[Any, Figures]:
        """Run a plan with one output on a rung; return its value and the figures, the plan's publication included.

        Raises
        ------
        JobStalled
            If a task failed.
        TimeoutError
            If the job takes too long, or a worker is gone.
        """
        name = new_job()
        at = stores.at(self._url, name)
        job = job_on(rung, at, name, plan)
        client, before, began = Client(job, plan), self._link.counters, perf_counter()
        try:
            encoded = encode(plan)
            for digest, frame in encoded.blobs.items():
                at.values.put(digest, frame.parts)
            at.values.put(_MANIFEST, encoded.manifest)
            client.launch()
            if not at.control.wait(name, PATIENCE):
                raise TimeoutError(f"a job on the rung {rung!r} is not done after {PATIENCE:.0f} s")
            (value,) = client.collect().values()
            seconds = perf_counter() - began
            counted, tally = self._report()
            for pipe in self._pipes:
                pipe.send(True)
            everyone = [minus(self._link.counters, before), *counted]
        finally:
            client.release()
            at.values.clear()
        return value, Figures(
            seconds,
            sum(each.round_trips for each in everyone),
            sum(each.bytes_sent + each.bytes_received for each in everyone),
            tally,
        )

    def _report(self) -> tuple[list[Counters], Tally]:
        """Return what all workers have counted, when they are through with everything in the queue."""
        self._link.call(_QUEUE, b"RPUSH", _QUEUE, *[b""] * len(self._pipes))
        answers, total = self._answers(), Tally(executors=0)
        for _, tally in answers:
            total.add(tally)
        return [counters for counters, _ in answers], total

    def _answers(self) -> list[Any]:
        """Return what each worker says next."""
        for pipe in self._pipes:
            if not pipe.poll(PATIENCE):
                raise TimeoutError(f"a worker has said nothing for {PATIENCE:.0f} s")
        return [pipe.recv() for pipe in self._pipes]


def compiled(collection: Any) -> Plan:
    """Return the plan of a Dask collection of one chunk."""
    import dask
    from dask.core import flatten

    from wukong.scheduler.dask.graphs import merge, trace
    from wukong.scheduler.dask.lower import lower

    (collection,) = dask.optimize(collection)
    (key,) = flatten(collection.__dask_keys__())
    walk = trace(merge(collection.__dask_graph__()), [key])
    return lower(dict(zip(walk.keys, walk.nodes, strict=True)), [key])
