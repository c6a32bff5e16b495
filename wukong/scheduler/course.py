"""One compute while it runs, to whoever may end it from outside and to what its tasks do. Not what is cleaned up then.

    future.cancel(), client.close(), a spent budget --end--> Course --tell--> who runs it: a walk alone, or a job
    cancelling some of several futures             --drop-> Course --tell--> the same, of tasks that only these needed

The first reason stays. Who runs the compute sees to it that nothing more begins; a task at work goes on to its end.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wukong.errors import JobCancelled

if TYPE_CHECKING:
    # It knows Dask, which workers need not import.
    from wukong.scheduler.needed import Needed


#: Seconds between two looks where an end has to be looked up.
_LOOK: Final = 0.05
#: Tasks that a note names.
_SHOWN: Final = 5


class Running(NamedTuple):
    """Something that nobody could interrupt, so that it may still run.

    Attributes
    ----------
    key : key
        Of the task or the call.
    where : str
        The thread, or the worker process with its number.
    """

    key: Any
    where: str


def may_still_run(left: Sequence[Running]) -> str:
    """Return a note that names what may still run, and where."""
    shown = "; ".join(f"{one.key!r} in {one.where}" for one in left[:_SHOWN])
    more = f"; and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return f"wukong: nothing more begins; what had begun may still run: {shown}{more}"


class Reasons(list[BaseException]):
    """Why nothing more is to begin, where nobody tells: it is looked up whenever somebody wants to know."""

    def __init__(self, over: Callable[[], bool]) -> None:
        super().__init__()
        self._over = over

    def __bool__(self) -> bool:
        if not len(self) and self._over():
            self.append(cancelled("the job of the task that asked for it is over"))
        return len(self) > 0


class Course:
    """The course of one compute.

    Parameters
    ----------
    within : Course, optional
        That of the task that computes, if one does: what ends it ends this one, too.
    job : str, optional
        Name of its job, by which its records go; without, one is made up when it is needed.

    Attributes
    ----------
    why : list of BaseException
        Why nothing more is to begin; empty while there is no reason.
    retried : int
        How often tasks in this process were run again.
    size : int
        How many tasks there are.
    at_work : callable
        Returns what runs now, as a list of `Running`.
    done : callable
        Returns how many tasks are through.
    working : callable
        Returns how many workers are at it.
    dropped : set of keys
        Of tasks that nobody needs any more.
    """

    def __init__(self, within: "Course | None" = None, job: str = "") -> None:
        self.why: list[BaseException] = [] if within is None else within.reasons()
        self.retried = 0
        self.size = 0
        self.job = job
        self.at_work: Callable[[], list[Running]] = list
        self.done: Callable[[], int] = int
        self.working: Callable[[], int] = _one
        self.dropped: set[Hashable] = set()
        self._given_up: list[Hashable] = []
        self._find_out: Callable[[], Needed] | None = None
        self._needed: Needed | None = None
        self._droppers: list[Callable[[Collection[Hashable]], Any]] = []
        self._lock = Lock()
        self._listeners: list[Callable[[BaseException], Any]] = []
        self._within = within
        if within is not None:
            within.tell(self.end)

    def end(self, error: BaseException) -> list[Running]:
        """Let nothing more begin; return what may still run. If it is ending already, the first reason stays."""
        with self._lock:
            if self.why:
                return []
            listeners, self._listeners = self._listeners, []
            # Now, for whoever runs it lets go of everything once it hears of it.
            left = self.at_work()
            if left:
                with suppress(Exception):  # some errors can take no note
                    error.add_note(may_still_run(left))
            self.why.append(error)
        for tell in listeners:
            tell(error)
        return left

    def tell(self, listener: Callable[[BaseException], Any]) -> None:
        """Have ``listener(error)`` called when this is to end: by whoever ends it, or, if it is ending, right here."""
        with self._lock:
            if not self.why:
                self._listeners.append(listener)
                return
        listener(self.why[0])

    def begins(self, size: int, needed: "Callable[[], Needed]") -> None:
        """Note how many tasks there are, and what finds out who needs them; drop those of results given up already."""
        with self._lock:
            self.size = size
            self._find_out = needed
            given_up, self._given_up = self._given_up, []
        if given_up:
            self.drop(given_up)

    def drop(self, results: Iterable[Hashable]) -> list[Running]:
        """Give up some results: no task begins that only they need. Return those of these that may still run."""
        with self._lock:
            if self.why:
                return []
            if self._find_out is None:
                self._given_up.extend(results)
                return []
            if self._needed is None:
                self._needed = self._find_out()
            dropped = self._needed.drop(results)
            self.dropped.update(dropped)
            left = [running for running in self.at_work() if running.key in self.dropped]
            droppers = list(self._droppers)
        for tell in droppers:
            tell(dropped)
        return left

    def tell_dropped(self, listener: Callable[[Collection[Hashable]], Any]) -> None:
        """Have ``listener(keys)`` called when tasks are dropped, and at once for those that were."""
        with self._lock:
            self._droppers.append(listener)
            dropped = list(self.dropped)
        if dropped:
            listener(dropped)

    def reasons(self) -> list[BaseException]:
        """Return what a course within this one has for its own reasons: none yet, or how to look up one."""
        return [] if self._within is None else self._within.reasons()

    def watched(self) -> AbstractContextManager[None]:
        """Have listeners be told meanwhile also of an end that has to be looked up."""
        return nullcontext() if type(self.why) is list else self._watched()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        done = Event()

        def look() -> None:
            while not done.wait(_LOOK):
                if self.why:
                    with self._lock:
                        listeners, self._listeners = self._listeners, []
                    for tell in listeners:
                        tell(self.why[0])
                    return

        Thread(target=look, name="wukong-course", daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def check(self) -> None:
        """Raise the reason why nothing more is to begin, if there is one."""
        if self.why:
            raise self.why[0]

    @property
    def ending(self) -> bool:
        """Whether nothing more is to begin."""
        return bool(self.why)

    def again(self) -> bool:
        """Count that a task runs again; return whether it may."""
        if self.ending:
            return False
        with self._lock:
            self.retried += 1
        return True

    def over(self) -> None:
        """Let go of everything, as the compute has come to its end."""
        with self._lock:
            if len(self.why):
                # The traceback of the error leads here. What was begun may still ask whether it is over.
                self.why[:] = [cancelled("it is over")]
            self._listeners.clear()
            self._droppers.clear()
            self._find_out = self._needed = None
            self.at_work, self.done, self.working = list, int, _one
        if self._within is not None:
            self._within.ignore(self.end)
            self._within = None

    def ignore(self, listener: Callable[[BaseException], Any]) -> None:
        """Undo `tell`."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)


def cancelled(what: str) -> JobCancelled:
    """Return the error of a compute that somebody has cancelled."""
    return JobCancelled(f"the compute was cancelled: {what}")


def _one() -> int:
    return 1


#: Of the compute whose task runs in this context.
present: ContextVar[Any] = ContextVar("wukong_course", default=None)
