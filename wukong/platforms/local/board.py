"""One job on this machine: its waiting invocations, who works on it, how it ends. The platform, to its executors.

Some tasks belong in processes and some in threads of the client (`Placement` says which), so there are two heaps. Both
kinds of workers together are never more than the job may have. Tasks that need memory (`admission`) wait in a third
one, and each is the only one of its invocation, so that it is known when it is through.
"""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from time import monotonic
from typing import Final, Protocol

from wukong.errors import JobStalled
from wukong.executor.driver import Driver
from wukong.executor.job import Job
from wukong.platforms.local.admission import Admission
from wukong.platforms.local.placement import Placement

#: Seconds until a first process must be ready; to import pandas and more may take some of them.
PATIENCE: Final = 60.0


class Crew(Protocol):
    """What a posted job asks of the threads."""

    lock: threading.Lock

    @property
    def idle(self) -> int:
        """How many helpers have nothing to do."""

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
    needs : mapping of int to int, optional
        For tasks that need memory, how many bytes; nobody may go on to one of these, or from it, but by an invocation.
    admission : Admission, optional
        The books of that.
    """

    def __init__(
        self,
        crew: Crew,
        workers: int,
        placement: Placement,
        needs: Mapping[int, int] | None = None,
        admission: Admission | None = None,
    ) -> None:
        self.over = False
        self.error: BaseException | None = None
        self.failed: Hashable = None
        self.workers = workers
        self.working = 0
        self.helping = 0
        self.asking = False  # whether whoever asked for the job waits for something to do
        self.waiting: list[int] = []  # heaps: lowest number first is depth first
        self.away: list[int] = []
        self.needing: list[int] = []
        self.needs = needs or {}
        self.admission = admission
        self.placement = placement
        self.processes: Processes | None = None
        self.driver: Driver
        self.changed = threading.Condition(crew.lock)
        #: Of whoever asked: helpers see its context variables, such as NumPy's `errstate`, as in Dask's threads.
        self.context = copy_context()
        #: Called when the job is over, however it ends: tells workers in other processes.
        self.ended: Callable[[], None] = _nobody
        #: Called with its first error, and the key of the task, with no lock held.
        self.failing: Callable[[Hashable, BaseException], object] = _ignore
        #: Called when it is not over after all.
        self.resumed: Callable[[], None] = _nobody
        #: Called when its store knows nothing of the job, by whoever found out, with no lock held.
        self.forgotten: Callable[[], None] = _nobody
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
            if self.over:
                return
            if self.needs:
                for task in [task for task in tasks if task in self.needs]:
                    heappush(self.needing, task)
                tasks = [task for task in tasks if task not in self.needs]
            for task in tasks:
                heappush(self.away if away(task) else self.waiting, task)
            missing = self._tell()
        self._crew.enlist(missing)
        self._wake()

    def invoke_again(self, tasks: Sequence[int]) -> list[int]:
        """Put ready tasks on the board, but for those that are there; return the others."""
        with self.changed:
            there = {*self.waiting, *self.away, *self.needing}
        missing = [task for task in tasks if task not in there]
        self.invoke(missing, 1)
        return missing

    def busy(self) -> bool:
        """Whether invocations wait for a worker."""
        return bool(self.waiting or self.away or self.needing)

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until invocations wait for a worker; return whether they do."""
        with self.changed:
            return self.changed.wait_for(lambda: self.over or self.busy(), seconds)

    def finish(self) -> None:
        """Note that the results are ready."""
        with self.changed:
            self.over = True
            self.ended()
            self.changed.notify_all()
        self._wake()

    def fail(self, key: Hashable, error: BaseException) -> None:
        """Note that the job has failed; the first error stays."""
        with self.changed:
            failing = _ignore if self.over else self.failing
            if not self.over:
                self.error, self.failed, self.over = error, key, True
                self.ended()
                self.changed.notify_all()
        self._wake()
        failing(key, error)

    def gone(self) -> None:
        """Note that the store knows nothing of the job, which it should while the job goes on."""
        if not self.over:
            self.forgotten()

    def resume(self) -> None:
        """Go on with a job whose results seemed to be ready, unless it has failed."""
        with self.changed:
            self.over = self.error is not None
            if not self.over:
                self.resumed()

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
        return (bool(self.needing) and self._may_begin(False)) or self._has_others_here()

    def _has_others_here(self) -> bool:
        if not self.away:
            return bool(self.waiting)
        if not self.placement.may_stay or (self.processes is not None and self.processes.ready):
            # The lowest number goes first, wherever it belongs.
            return bool(self.waiting) and (self._nobody_idle() or self.waiting[0] < self.away[0])
        return True

    def take(self) -> list[int]:
        """Return the tasks of the next invocation in a thread. The lock must be held."""
        if self.over or self.working >= self.workers:
            return []
        if self.needing and self._begins(self.waiting, False):
            return [heappop(self.needing)]
        return self._share(self.waiting or self.away) if self._has_others_here() else []

    def take_away(self) -> list[int]:
        """Return the tasks of the next invocation in a process. The lock must be held."""
        if self.over or self.working >= self.workers:
            return []
        if self.needing and self._begins(self.away, True):
            return [heappop(self.needing)]
        return self._share(self.away) if self.away else []

    def left(self, starts: Sequence[int]) -> None:
        """Note that an invocation has ended, however it did. No lock is held."""
        need = self.needs.get(starts[0], 0) if self.needs else 0
        if need and self.admission is not None:
            self.admission.give_back(need)

    def stands(self) -> bool:
        """See `wukong.platforms.local.admission.Party`."""
        if self.over or not self.needing or self.working >= self.workers:
            return False
        if self.placement.away(self.needing[0]):
            return self.processes is not None and self.processes.idle > 0
        return self.asking or self._crew.idle > 0

    def look_again(self) -> None:
        """See `wukong.platforms.local.admission.Party`."""
        with self.changed:
            missing = 0 if self.over else self._tell()
        self._crew.enlist(missing)
        self._wake()

    def refuse_to_wait(self) -> None:
        """Raise if there is work for processes, and for long there has been none.

        Raises
        ------
        JobStalled
        """
        if not self.lacking() or self.processes is None or self.processes.ready:
            self._lacking = None
        elif self._lacking is None:
            self._lacking = monotonic()
        elif monotonic() - self._lacking > PATIENCE:
            left = len(self.away) + len(self.needing)
            raise JobStalled(
                f"job {self.job.name} has {left} tasks for processes; for {PATIENCE:.0f} s none has been ready: the "
                "machine seems to be overloaded, or a new process cannot import what the client has imported; "
                "try granules='threads'"
            )

    def forget(self) -> None:
        """Let go of everything, as the job is over. The lock must be held."""
        self.over = True
        self.resumed = self.forgotten = _nobody
        self.failing = _ignore
        self.ended, ended = _nobody, self.ended
        ended()
        self.waiting.clear()
        self.away.clear()
        self.needing.clear()
        # The job and its error know this place, so they would live until the next garbage collection.
        self.error = None
        del self.driver

    def lacking(self) -> bool:
        """Whether there is work for processes."""
        return bool(self.away or (self.needing and self.placement.away(self.needing[0])))

    def _may_begin(self, away: bool) -> bool:
        """Whether the next task that needs memory may begin here, or, if `away`, in a process."""
        task, admission = self.needing[0], self.admission
        return self._belongs(task, away) and admission is not None and admission.fits(self, self.needs[task])

    def _begins(self, others: Sequence[int], away: bool) -> bool:
        """Let the next task that needs memory begin, unless it is not its turn; return whether it does."""
        task, admission = self.needing[0], self.admission
        if admission is None or not self._belongs(task, away):
            return False
        if others and others[0] < task and not admission.urges(self):
            return False
        return admission.admit(self, self.needs[task])

    def _belongs(self, task: int, away: bool) -> bool:
        if self.placement.away(task) == away:
            return True
        return not away and self.placement.may_stay and not (self.processes is not None and self.processes.ready)

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
        wanted = len(self.waiting) + bool(self.needing)
        return self._crew.call(min(wanted, self.workers - 1), self.workers - 1)

    def _wake(self) -> None:
        if self.processes is not None:
            self.processes.wake()


def _nobody() -> None:
    return None


def _ignore(_key: Hashable, _error: BaseException) -> None:
    return None
