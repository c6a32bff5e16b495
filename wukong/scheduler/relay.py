"""Handing a walk over to the crew in the middle: what `granules="auto"` does when tasks prove long enough.

The client begins alone. A lookout thread comes by now and then, more and more rarely; if the client has been in one
task for long, or tasks take long on average, it takes the baton: what is not done yet is compiled and launched, values
at hand are supplied as given, and the client, when it is through with its task, supplies that one too and joins in.

The baton is in its list exactly while a task runs, so having it also says that everything before that task is done.
"""

import sys
import threading
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self

from wukong.cost import Costs
from wukong.errors import JobStalled
from wukong.events import Observer, Run
from wukong.executor.alone import Taken, Walk
from wukong.platforms.local.admission import Admission
from wukong.platforms.local.clock import ThreadClock
from wukong.scheduler.adaptive import lasted
from wukong.scheduler.company import Packs
from wukong.scheduler.compiled import Compiled
from wukong.scheduler.course import Course
from wukong.scheduler.dask.graphs import shares_memory
from wukong.scheduler.dask.nodes import functions_of
from wukong.scheduler.recovery import USUAL, Terms

#: A walk with fewer tasks left is not worth handing over.
_FEW = 3
#: So many of its tasks are looked up.
_SAMPLE = 16


class Relay:
    """One walk that may be handed over.

    Parameters
    ----------
    walk : Walk
        The tasks.
    values : dict
        Values at hand; the walk keeps it up to date.
    costs : Costs
        Decides when a walk is worth handing over.
    workers : int
        How many work on it from then on.
    observer : Observer or None
        Told of each task.
    packs : Packs, optional
        Where processes come from, if functions may move there.
    admission : Admission, optional
        The books of what annotated tasks need.
    course : Course, optional
        How somebody else may end it.
    baton : list, optional
        Of the walk.
    terms : Terms, optional
        What is started again if processes die or straggle.
    """

    def __init__(
        self,
        walk: Walk,
        values: dict[Any, Any],
        costs: Costs,
        workers: int,
        observer: Observer | None,
        packs: Packs | None = None,
        admission: Admission | None = None,
        course: Course | None = None,
        baton: list[int] | None = None,
        terms: Terms = USUAL,
    ) -> None:
        self.baton: list[int] = [] if baton is None else baton
        self._course = course or Course()
        self._walk = walk
        self._size = len(walk)
        self._values = values
        self._costs = costs
        self._workers = workers
        self._observer = observer
        self._packs = packs
        self._admission = admission
        self._terms = terms
        # The lookout takes over in its own thread, in the client's name.
        self._context = copy_context()
        self._over = False
        self._taking = threading.Lock()
        self._clock = ThreadClock()
        self._seen = -1
        self._seen_at = 0.0
        self._launched = threading.Event()
        self._compiled: Compiled | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # The lookout may still be launching what was left of a walk that failed.
        with self._taking:
            self._over = True
        if self._compiled is not None:
            self._compiled.__exit__(kind, error, traceback)
        self._compiled = None
        # The lookout may keep this for a while yet.
        del self._walk, self._values

    def look(self) -> bool:
        """Look in on the client and take over if that is worth it; return whether to come again.

        Then, look in on those who took over.
        """
        compiled = self._compiled
        if compiled is not None:
            try:
                return compiled.look()
            except Exception as error:
                # It would be lost here, and with it this thread.
                compiled.fail(error)
                return False
        try:
            index = self.baton[-1]
            worked = self._clock.worked()
        except (IndexError, OSError):
            # It is between two tasks, or its thread has ended and the clock with it.
            return not self._over
        if index != self._seen:
            self._seen, self._seen_at = index, worked
        costs = self._costs
        if worked - self._seen_at < costs.patience and worked / (index + 1) < costs.patience / 2:
            return not self._over
        with self._taking:
            # A task that raised leaves the baton where it is.
            if self._over or self._size - index < _FEW:
                return False
            if not costs.hand_over(worked, self._size - index, self._expected(index)):
                return True
            course = self._course
            before, running = course.at_work, course.at_work()
            # From now on the baton does not tell.
            course.at_work = lambda: running
            try:
                index = self.baton.pop()
            except IndexError:
                course.at_work = before
                return True
            tasks, values = self._walk, self._values
        try:
            # Nobody waits for this whose task fails, or is interrupted, meanwhile.
            compiled = self._context.run(self._compile, tasks, values, index)
            with self._taking:
                if not self._over:
                    self._compiled = compiled
                    compiled.follow(self._course)
                    self._context.run(compiled.start)
        except BaseException as error:
            self._error = error
        finally:
            self._launched.set()
        return self._compiled is not None

    def _expected(self, index: int) -> float:
        """Return how long, in seconds, the tasks after `index` last, if all are like the middle one of some of them.

        That is what earlier jobs know of it: nothing, if half of them are short or unknown.
        """
        left = self._size - index - 1
        sample = self._walk.nodes[index + 1 :: max(1, left // _SAMPLE)]
        known = sorted(lasted(functions_of(node)) or 0.0 for node in sample)
        return known[len(known) // 2] * left

    def hand_over(self) -> None:
        """Hand over a walk that nobody has begun: its tasks say that they have to be told apart."""
        self._compiled = self._compile(self._walk, self._values, -1)
        self._compiled.follow(self._course)
        self._compiled.start()
        self._launched.set()

    def _compile(self, tasks: Walk, values: dict[Any, Any], index: int) -> Compiled:
        packs = None if shares_memory(tasks) else self._packs
        return Compiled(
            tasks,
            values,
            self._workers,
            None,
            self._observer,
            index,
            "auto",
            packs,
            self._admission,
            self._course.job,
            self._terms,
        )

    def join(self, taken: Taken | None = None) -> Run:
        """Add the value of the task that ran when the walk was taken over, if any, and work on the rest to its end."""
        patience = 60.0 + 1e-3 * self._size
        if not self._launched.wait(patience):
            raise JobStalled(
                f"a walk of {self._size} tasks was taken over, but not launched for {patience:.0f} s; "
                "the machine seems to be overloaded"
            )
        if self._error is not None:
            raise self._error
        assert self._compiled is not None
        return self._compiled.finish(taken and taken.give())


class Lookout:
    """A thread that looks in on relays: first after `patience` seconds, then at intervals that double to `rarely`."""

    def __init__(self, patience: float, rarely: float = 0.05) -> None:
        self._patience = patience
        self._rarely = rarely
        self._relays: list[Relay] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def forget(self) -> None:
        """Begin anew: in a forked child the thread is not there, and may have held the lock."""
        self._relays = []
        self._changed = threading.Condition()
        self._thread = None

    def watch(self, relay: Relay) -> None:
        """Look in on this relay from now on."""
        with self._changed:
            self._relays.append(relay)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="wukong-lookout", daemon=True)
                self._thread.start()
            elif len(self._relays) == 1:
                self._changed.notify()

    def _run(self) -> None:
        pause = self._patience
        known = 0
        while True:
            with self._changed:
                while not self._relays:
                    self._changed.wait()
                    pause = self._patience
                if len(self._relays) != known:
                    pause = self._patience
                self._changed.wait(pause)
                relays = list(self._relays)
            gone = [relay for relay in relays if not _look(relay)]
            with self._changed:
                for relay in gone:
                    self._relays.remove(relay)
                known = len(self._relays)
            pause = min(2 * pause, self._rarely)
            del relays, gone


def _look(relay: Relay) -> bool:
    """Look in on a relay; one that fails is left to its client, and those of others go on."""
    try:
        return relay.look()
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return False
