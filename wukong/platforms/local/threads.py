"""Thread-like granules: executors in threads of this process, sharing its memory.

The thread that asked for a job works on it like any other, so a task that computes something itself can never wait for
a worker: it is one. Helper threads are started as jobs need them and serve whichever job has tasks waiting; of one
job, the lowest task first, which is depth first.
"""

import os
import threading
from collections.abc import Mapping

from wukong.errors import JobStalled
from wukong.executor.context import Tally
from wukong.executor.driver import Driver
from wukong.executor.job import Job
from wukong.platforms.local.admission import Admission, having
from wukong.platforms.local.board import Posted
from wukong.platforms.local.placement import Placement
from wukong.platforms.local.processors import workers_here

#: How often, in seconds, an idle worker looks whether what it waits for can still come.
_LOOK = 1.0


class Crew:
    """The threads of this process that help with jobs."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._called = threading.Condition(self.lock)
        self._board: list[Posted] = []
        self._helpers = 0
        self._idle = 0

    @property
    def idle(self) -> int:
        """How many helpers have nothing to do."""
        return self._idle

    def post(
        self,
        workers: int,
        placement: Placement | None = None,
        needs: Mapping[int, int] | None = None,
        admission: Admission | None = None,
    ) -> Posted:
        """Return a place on the board; it has to be given its job, and taken down when the job is over."""
        return Posted(self, workers, placement or Placement(), needs, admission)

    def open(self, posted: Posted, job: Job) -> None:
        """Let helpers see a job."""
        posted.driver = Driver(job)
        with self.lock:
            self._board.append(posted)

    def take_down(self, posted: Posted) -> None:
        """Take a job off the board; executors still running notice at their next request."""
        with self.lock:
            self._board.remove(posted)
            posted.forget()
        if posted.admission is not None:
            posted.admission.leave(posted)

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
            If nothing is left to run and the results are not there, or no process begins to work.
        """
        while not posted.over:
            with self.lock:
                starts = posted.take()
                if not (starts or posted.working or posted.away or posted.needing or posted.over):
                    raise JobStalled(
                        f"job {posted.job.name} has no task to run and no executor at work, yet its results are not "
                        "complete; this is a fault of the scheduler, please report it with the graph"
                    )
                if starts:
                    posted.working += 1
            if starts:
                self._enter(posted, posted.driver, starts)
            else:
                self._wait(posted)
                posted.refuse_to_wait()
        if posted.error is not None:
            raise posted.error

    def _wait(self, posted: Posted) -> None:
        """Wait until a job is over, or there is something to take, or nobody left who could bring it."""

        def news() -> bool:
            return posted.over or posted.has_work_here() or not (posted.working or posted.away or posted.needing)

        posted.asking = True
        try:
            if posted.processes is None:
                with self.lock:
                    posted.changed.wait_for(news, _LOOK)
            else:
                posted.processes.wait(news, _LOOK)
        finally:
            posted.asking = False

    def _help(self) -> None:
        """Serve the jobs on the board, the one posted last first: it may be what another waits for."""
        while True:
            with self.lock:
                self._idle += 1
                # Others may have taken the memory that there was a moment ago.
                while (posted := self._choose()) is None or not (starts := posted.take()):
                    if posted is None:
                        self._called.wait()
                self._idle -= 1
                driver = posted.driver
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
            if posted.has_work_here() and posted.helping < posted.workers - 1:
                return posted
        return None

    def _enter(self, posted: Posted, driver: Driver, starts: list[int]) -> None:
        tally = Tally()
        try:
            if posted.needs and starts[0] in posted.needs:
                with having():
                    tally = driver.enter(starts)
            else:
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
            posted.left(starts)
            if posted.processes is not None:
                posted.processes.wake()


#: The crew of this process; a fork starts without the threads, so with a crew of its own.
crew = Crew()


def _new_crew() -> None:
    global crew
    crew = Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_crew)
