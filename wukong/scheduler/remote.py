"""Executors in a worker process: the op "enter". Records and values are the client's, or in the store of the job.

What an executor here asks and tells is answered by `wukong.scheduler.service` in the client.
"""

import os
import time
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

from wukong import failures
from wukong.cost import Costs, Estimates
from wukong.errors import JobCancelled
from wukong.executor.context import Tally
from wukong.executor.driver import Driver
from wukong.executor.effects import Framed, Packed
from wukong.executor.job import Job
from wukong.plan.view import PlanView
from wukong.platforms.local import output
from wukong.platforms.local.page import Seen
from wukong.platforms.local.placement import Note
from wukong.platforms.local.worker import Worker
from wukong.protocol import messages as m
from wukong.scheduler import stores
from wukong.scheduler.course import Course, Reasons, present
from wukong.storage.counters import Counters
from wukong.storage.values.arena import ArenaValueStore
from wukong.travel import check_travels

_jobs: dict[str, "_Opened"] = {}


def enter(
    worker: Worker,
    fds: Sequence[int],
    surroundings: tuple[bytes, bytes],
    name: str,
    starts: list[int],
    note: Note,
    others: Collection[str],
    nonce: str,
    granted: Sequence[m.Grant] | None,
) -> tuple[tuple[Any, ...], Sequence[int]]:
    """Run one executor from `starts` to its end; return what it did, how long tasks of each kind take, and when.

    Parameters
    ----------
    worker : Worker
        Where this is.
    fds : sequence of int
        None.
    surroundings : (digest, frame)
        Of the job.
    name : str
        Of the job.
    starts : list of int
        Ready tasks.
    note : Note
        What belongs in processes now.
    others : collection of str
        Jobs that are not over; what is kept here of the rest goes.
    nonce : str
        The name of the executor.
    granted : sequence of Grant or None
        What the client has claimed in its name.
    """
    del fds
    for over in _jobs.keys() - set(others):
        del _jobs[over]
    tally, seconds, spans = Tally(), {}, b""
    traffic: tuple[int, ...] = ()
    try:
        worker.surround(*surroundings)
        opened = _jobs.get(name)
        if opened is None:
            opened = _jobs[name] = _Opened(worker, name)
        opened.note = note
        tally = copy_context().run(opened.enter, starts, nonce, granted)
        seconds, (spans, traffic) = opened.driver.job.estimates.known(), opened.told()
    except BaseException as error:
        worker.tell("job.fail", name, None, failures.pack(error))
    output.flush()
    return (tally, seconds, spans, traffic), ()


class _Opened:
    """A job in this worker. Its invoker, too: what is to be started or noted goes to the client."""

    def __init__(self, worker: Worker, name: str) -> None:
        opened, (page,) = worker.ask("job.open", name)
        with os.fdopen(page):
            if opened is None:
                raise JobCancelled(f"job {name} was over before this worker could take part in it")
            opening, flag, number, dropped = opened
            self._seen = Seen(page, flag, number)
        self.note = Note()
        self.backlog: bool | None = None
        self._tell = worker.tell
        self._ask = worker.ask
        self._name = name
        self._remote = opening.store is not None
        self._counted = Counters()
        if opening.store is None:
            at = _at_the_client(self, worker, name, opening.costs)
        else:
            at = stores.at(opening.store, name, there=True)
        self._counters = at.counters
        self._apart = opening.apart
        self._plan = plan = PlanView(
            opening.manifest, stores.parts_of(name, at.values, lambda: worker.ask("job.publish", name))
        )
        estimates = Estimates(at.costs.unknown)
        # Who renews leases says how long they are.
        costs = at.costs.replace(lease=opening.costs.lease)
        job = Job(name, plan, at.control, at.values, costs, estimates, at.pack, at.unpack, self)
        job.belongs = self._belongs
        job.at_work = self._seen
        job.dropped = _Dropped(self._seen, dropped, partial(worker.ask, "job.dropped", name))
        if opening.observed:
            job.observer = _Observer(worker, name)
        self.driver = Driver(job)
        self._course = _Course(self._seen, partial(worker.tell, "job.retried", name))

    def enter(self, *given: Any) -> Tally:
        """Run one executor; see `Driver.enter`."""
        present.set(self._course)
        return self.driver.enter(*given)

    def told(self) -> tuple[bytes, tuple[int, ...]]:
        """Return what the client has not been told yet: when tasks ran, and the use of the store."""
        spans = self.driver.job.spans.take()
        if not self._remote:
            # The client counts what it is asked.
            return spans, ()
        before, self._counted = self._counted, self._counters()
        return spans, self._counted.since(before)

    def invoke(self, tasks: Sequence[int], per: int) -> None:
        """See `wukong.executor.job.Invoker`."""
        # Where the client has the records, it knows, and has done so already.
        if self._remote and not self.over:
            self._tell("job.invoke", self._name, tasks, per)

    @property
    def over(self) -> bool:
        """See `wukong.executor.job.Invoker`; as the client has left word, without a request."""
        return self._seen.over

    def busy(self) -> bool:
        """See `wukong.executor.job.Invoker`; as the client said with its last answer, where it has the records."""
        if self.backlog is not None:
            return self.backlog
        busy: bool = self._ask("job.busy", self._name)[0]
        return busy

    def pause(self, seconds: float) -> bool:
        """See `wukong.executor.job.Invoker`; does not end early."""
        time.sleep(seconds)
        return self.busy()

    def finish(self) -> None:
        """See `wukong.executor.job.Invoker`."""
        if self._remote:
            self._tell("job.ran", self._name, *self.told())
            self._tell("job.finish", self._name)

    def gone(self) -> None:
        """See `wukong.executor.job.Invoker`."""
        if self._remote and not self.over:
            self._tell("job.gone", self._name)

    def fail(self, key: Hashable, error: BaseException) -> None:
        """See `wukong.executor.job.Invoker`."""
        self._tell("job.fail", self._name, key, failures.pack(error))

    def _belongs(self, task: int) -> bool:
        note = self.note
        if task in self._apart:
            return False
        if note.everything:
            return True
        # The client sees to what is not loaded.
        return self._plan.loaded(task) and self._plan.kind(task) in note.kinds and task not in note.stuck


class _Dropped(set[int]):
    """The tasks that nobody needs any more; the client is asked for them when there is news."""

    def __init__(self, seen: Seen, known: tuple[int, list[int]], ask: Callable[[], Any]) -> None:
        super().__init__(known[1])
        self._seen = seen
        self._news = known[0]
        self._ask = ask

    def __contains__(self, task: object) -> bool:
        if self._seen.news != self._news:
            (self._news, tasks), _ = self._ask()
            self.update(tasks)
        return set.__contains__(self, task)


class _Course(Course):
    """The course of the compute, as far as it is known here."""

    def __init__(self, seen: Seen, told: Callable[[], None]) -> None:
        super().__init__()
        self._seen = seen
        self._told = told
        self.why = self.reasons()

    def again(self) -> bool:
        """See `Course`; the client counts."""
        if self.ending:
            return False
        self._told()
        return True

    def reasons(self) -> list[BaseException]:
        """See `Course`."""
        return Reasons(lambda: self._seen.over)


class _Observer:
    """Tells the client of each task; see `wukong.events.Observer`."""

    def __init__(self, worker: Worker, job: str) -> None:
        self._worker = worker
        self._job = job

    def started(self, key: Hashable) -> None:
        """Tell that a task is about to run."""
        self._worker.tell("job.started", self._job, key)

    def finished(self, key: Hashable, value: Any) -> None:
        """Tell that it ran."""
        wire = None
        with suppress(Exception):  # whoever packs it to be settled has more to say
            wire = self._worker.arena.seal(value)
        self._worker.tell("job.finished", self._job, key, wire)


class _Asked:
    """The control store of a job whose records are in the client's memory."""

    shards = 1

    def __init__(self, opened: _Opened, worker: Worker) -> None:
        self._opened = opened
        self._ask = worker.ask
        self._requests = 0

    @property
    def counters(self) -> Counters:
        """See `ControlStore`."""
        return Counters(self._requests)

    def apply(self, job: str, shard: int, request: m.Request) -> m.Reply:
        """See `ControlStore`."""
        self._requests += 1
        # So that the client knows of every task that its results needed.
        spans = self._opened.driver.job.spans.take()
        (reply, self._opened.backlog), _ = self._ask("job.apply", job, shard, request, spans)
        answer: m.Reply = reply
        return answer

    def wait(self, job: str, timeout: float) -> bool:
        """See `ControlStore`; only the client waits for a job."""
        raise NotImplementedError("only the client waits for the end of a job")

    def close(self) -> None:
        """See `ControlStore`."""


def _at_the_client(opened: _Opened, worker: Worker, job: str, costs: Costs) -> stores.Stores:
    control = _Asked(opened, worker)
    values = ArenaValueStore(worker.arena, job)

    def pack(value: Any) -> Packed:
        frame = check_travels(value, "the value of a task")
        if frame.nbytes <= costs.inline_limit:
            return Packed(True, frame.nbytes, Framed(bytes(frame)))
        return Packed(False, frame.nbytes, frame.parts)

    return stores.Stores(control, values, costs, pack, stores.opened, lambda: control.counters, "the client")
