"""One job on this machine: its waiting invocations, who works on it, how it ends. The platform, to its executors.

Some tasks belong in processes and some in threads of the client (`Placement` says which), so there are two heaps. Both
kinds of workers together are never more than the job may have.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import Final, Protocol

from wukong.errors import JobStalled
from wukong.executor.driver import Driver
from wukong.executor.job import Job
from wukong.platforms.local.placement import Placement

#: Seconds until a first process must be ready; to import pandas and more may take some of them.
PATIENCE: Final = 60.0


class Crew(Protocol):
    """What a posted job asks of the threads."""

    lock: threading.Lock

    def call(self, wanted: int, most: int) -> int: ...
    def enlist(self, helpers: int) -> None: ...


class Processes(Protocol):
    """What a posted job asks of the processes."""

    @property
    def ready(self) -> bool:
        """Whether any is there to work."""

    @property
    def idle(self) -> int:
        """How many have nothing to do."""

    def wake(self) -> None:
        """Offer work to those that are idle, and let those who wait look again."""

    def wait(self, ready: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is so, and serve the processes meanwhile."""


class Posted:
    """A job on the board of a crew, and, if it has a placement, of a pack of processes.

    Those who wait for something of this job wait for its own condition, idle helpers for the crew's, so that nobody is
    woken in another's place.

    Parameters
    ----------
    crew : Crew
        Whose lock guards all of it.
    workers : int
        How many may work on it at once, the asking thread included.
    placement : Placement
        Where its tasks belong.
    """

    def __init__(self, crew: Crew, workers: int, placement: Placement) -> None:
        self.over = False
        self.error: BaseException | None = None
        self.failed: Hashable = None
        self.workers = workers
        self.working = 0
        self.helping = 0
        self.waiting: list[int] = []  # heaps: lowest number first is depth first
        self.away: list[int] = []
        self.placement = placement
        self.processes: Processes | None = None
        self.driver: Driver
        self.changed = threading.Condition(crew.lock)
        #: Of whoever asked: helpers see its context variables, such as NumPy's `errstate`, as in Dask's threads.
        self.context = copy_context()
        self._crew = crew
        self._lacking: float | None = None

    @property
    def job(self) -> Job:
        """The job."""
        return self.driver.job

    def invoke(self, tasks: Sequence[int], per: int) -> None:  # noqa: ARG002 - see `take`
        """Put ready tasks on the board; how many a worker takes is decided when it comes for them."""
        away = self.placement.away
        with self.changed:
            for task in tasks:
                heappush(self.away if away(task) else self.waiting, task)
            missing = self._tell()
        self._crew.enlist(missing)
        self._wake()

    def busy(self) -> bool:
        """Whether invocations wait for a worker."""
        return bool(self.waiting or self.away)

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until invocations wait for a worker; return whether they do."""
        with self.changed:
            return self.changed.wait_for(lambda: self.over or self.busy(), seconds)

    def finish(self) -> None:
        """Note that the results are ready."""
        with self.changed:
            self.over = True
            self.changed.notify_all()
        self._wake()

    def fail(self, key: Hashable, error: BaseException) -> None:
        """Note that the job has failed; the first error stays."""
        with self.changed:
            if not self.over:
                self.error, self.failed, self.over = error, key, True
                self.changed.notify_all()
        self._wake()

    def sort_again(self) -> None:
        """Sort waiting invocations anew, because the placement has changed."""
        with self.changed:
            tasks = [*self.waiting, *self.away]
            self.away = [task for task in tasks if self.placement.away(task)]
            self.waiting = [task for task in tasks if not self.placement.away(task)]
            heapify(self.away)
            heapify(self.waiting)
            missing = self._tell()
        self._crew.enlist(missing)
        self._wake()

    def has_work_here(self) -> bool:
        """Whether a thread could take something now. The lock must be held."""
        if self.over or self.working >= self.workers:
            return False
        if not self.away:
            return bool(self.waiting)
        if not self.placement.may_stay or (self.processes is not None and self.processes.ready):
            # The lowest number goes first, wherever it belongs.
            return bool(self.waiting) and (self._nobody_idle() or self.waiting[0] < self.away[0])
        return True

    def take(self) -> list[int]:
        """Return the tasks of the next invocation in a thread. The lock must be held."""
        if not self.has_work_here():
            return []
        return self._share(self.waiting or self.away)

    def take_away(self) -> list[int]:
        """Return the tasks of the next invocation in a process. The lock must be held."""
        if self.over or self.working >= self.workers or not self.away:
            return []
        return self._share(self.away)

    def refuse_to_wait(self) -> None:
        """Raise if there is work for processes, and for long there has been none.

        Raises
        ------
        JobStalled
        """
        if not self.away or self.processes is None or self.processes.ready:
            self._lacking = None
        elif self._lacking is None:
            self._lacking = monotonic()
        elif monotonic() - self._lacking > PATIENCE:
            left = len(self.away)
            raise JobStalled(
                f"job {self.job.name} has {left} tasks for processes; for {PATIENCE:.0f} s none has been ready: the "
                "machine seems to be overloaded, or a new process cannot import what the client has imported; "
                "try granules='threads'"
            )

    def forget(self) -> None:
        """Let go of everything, as the job is over. The lock must be held."""
        self.over = True
        self.waiting.clear()
        self.away.clear()
        # The job and its error know this place, so they would live until the next garbage collection.
        self.error = None
        del self.driver

    def _share(self, waiting: list[int]) -> list[int]:
        """Take from a heap, lowest first: a fair share of those waiting, if they are short."""
        job = self.job
        short = job.costs.batch(job.estimates.seconds(job.plan.kind(waiting[0]) if job.plan.loaded(waiting[0]) else -1))
        share = min(short, -(-len(waiting) // self.workers))
        return [heappop(waiting) for _ in range(share)]

    def _nobody_idle(self) -> bool:
        return self.processes is None or not self.processes.idle

    def _tell(self) -> int:
        """Wake whoever could take something in this process; return how many helpers are missing."""
        self.changed.notify_all()
        return self._crew.call(min(len(self.waiting), self.workers - 1), self.workers - 1)

    def _wake(self) -> None:
        if self.processes is not None:
            self.processes.wake()
