"""Thread-like granules: executors in threads of this process, sharing its memory.

The thread that asked for a job works on it like any other, so a task that computes something itself can never wait for
a worker: it is one. Helper threads are started as jobs need them and serve whichever job has tasks waiting; of one
job, the lowest task first, which is depth first.
"""

import os
import threading
from collections.abc import Sequence
from contextvars import copy_context
from heapq import heappop, heappush

from wukong.errors import JobStalled
from wukong.executor.context import Tally
from wukong.executor.driver import Driver
from wukong.executor.job import Job

#: How often, in seconds, an idle worker looks whether what it waits for can still come.
_LOOK = 1.0


class Posted:
    """A job on the board of a crew: its waiting invocations and who works on it. Its platform, to its executors.

    Those who wait for something of this job wait for its own condition, idle helpers for the crew's, so that nobody is
    woken in another's place.

    Parameters
    ----------
    crew : Crew
        Whose lock guards all of it.
    workers : int
        How many may work on it at once, the asking thread included.
    """

    def __init__(self, crew: "Crew", workers: int) -> None:
        self.over = False
        self.error: BaseException | None = None
        self.failed: int | None = None
        self.workers = workers
        self.working = 0
        self.helping = 0
        self.waiting: list[int] = []
        self.driver: Driver
        self.changed = threading.Condition(crew.lock)
        #: Of whoever asked: helpers see its context variables, such as NumPy's `errstate`, as in Dask's threads.
        self.context = copy_context()
        self._crew = crew

    def invoke(self, tasks: Sequence[int], per: int) -> None:  # noqa: ARG002 - see `take`
        """Put ready tasks on the board; how many a worker takes is decided when it comes for them."""
        with self.changed:
            for task in tasks:
                heappush(self.waiting, task)
            self.changed.notify_all()
            missing = self._crew.call(min(len(self.waiting), self.workers - 1), self.workers - 1)
        self._crew.enlist(missing)

    def busy(self) -> bool:
        """Whether invocations wait for a worker."""
        return bool(self.waiting)

    def pause(self, seconds: float) -> bool:
        """Wait so long, or until invocations wait for a worker; return whether they do."""
        with self.changed:
            return self.changed.wait_for(lambda: self.over or bool(self.waiting), seconds)

    def finish(self) -> None:
        """Note that the results are ready."""
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def fail(self, task: int | None, error: BaseException) -> None:
        """Note that the job has failed; the first error stays."""
        with self.changed:
            if not self.over:
                self.error, self.failed, self.over = error, task, True
                self.changed.notify_all()

    def take(self) -> list[int]:
        """Return the tasks of the next invocation, lowest first: a fair share of those waiting, if they are short."""
        waiting = self.waiting
        if not waiting:
            return []
        job = self.driver.job
        short = job.costs.batch(job.estimates.seconds(job.plan.kind(waiting[0]) if job.plan.loaded(waiting[0]) else -1))
        share = min(short, -(-len(waiting) // self.workers))
        return [heappop(waiting) for _ in range(share)]


class Crew:
    """The threads of this process that help with jobs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._called = threading.Condition(self.lock)
        self._board: list[Posted] = []
        self._helpers = 0
        self._idle = 0

    def post(self, workers: int) -> Posted:
        """Return a place on the board; it has to be given its job, and taken down when the job is over."""
        return Posted(self, workers)

    def open(self, posted: Posted, job: Job) -> None:
        """Let helpers see a job."""
        posted.driver = Driver(job)
        with self.lock:
            self._board.append(posted)

    def take_down(self, posted: Posted) -> None:
        """Take a job off the board; executors still running notice at their next request."""
        with self.lock:
            posted.over = True
            posted.waiting.clear()
            self._board.remove(posted)
            # The job and its error know this place, so they would live until the next garbage collection.
            posted.error = None
            del posted.driver

    def call(self, wanted: int, most: int) -> int:
        """Wake so many idle helpers, and return how many more threads that takes. The lock must be held.

        Parameters
        ----------
        wanted : int
            How many could find work now.
        most : int
            How many there may be; never fewer than there are processors.
        """
        self._called.notify(wanted)
        missing = max(0, min(wanted - self._idle, max(most, workers_here()) - self._helpers))
        self._helpers += missing
        return missing

    def enlist(self, helpers: int) -> None:
        """Start so many helper threads."""
        for _ in range(helpers):
            threading.Thread(target=self._help, name="wukong-helper", daemon=True).start()

    def work(self, posted: Posted) -> None:
        """Work on one job until it is over; raise what it failed with.

        Raises
        ------
        BaseException
            The error of the task that failed.
        JobStalled
            If nothing is left to run and the results are not there.
        """
        while not posted.over:
            with self.lock:
                starts = posted.take()
                if not starts:
                    if not posted.working and not posted.over:
                        raise JobStalled(
                            f"job {posted.driver.job.name} has no task to run and no executor at work, yet its results "
                            "are not complete; this is a fault of the scheduler, please report it with the graph"
                        )
                    posted.changed.wait_for(lambda: posted.over or posted.waiting or not posted.working, _LOOK)
                    continue
                posted.working += 1
            self._enter(posted, posted.driver, starts)
        if posted.error is not None:
            raise posted.error

    def _help(self) -> None:
        """Serve the jobs on the board, the one posted last first: it may be what another waits for."""
        while True:
            with self.lock:
                self._idle += 1
                while (posted := self._choose()) is None:
                    self._called.wait()
                self._idle -= 1
                starts, driver = posted.take(), posted.driver
                posted.working += 1
                posted.helping += 1
            try:
                posted.context.copy().run(self._enter, posted, driver, starts)
            finally:
                with self.lock:
                    posted.helping -= 1
            # A large value, or a whole job, must not live on in a helper that has nothing to do.
            del posted, driver, starts

    def _choose(self) -> Posted | None:
        for posted in reversed(self._board):
            if posted.waiting and not posted.over and posted.helping < posted.workers - 1:
                return posted
        return None

    def _enter(self, posted: Posted, driver: Driver, starts: list[int]) -> None:
        tally = Tally()
        try:
            tally = driver.enter(starts)
        except BaseException as error:
            posted.fail(None, error)
        finally:
            with self.lock:
                posted.working -= 1
                driver.job.tally.add(tally)
                if not posted.working:
                    posted.changed.notify_all()
                elif posted.waiting:
                    # There is room for one more, and this one may go to another job.
                    self._called.notify()


def workers_here() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


#: The crew of this process; a fork starts without the threads, so with a crew of its own.
crew = Crew()


def _new_crew() -> None:
    global crew
    crew = Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_crew)
