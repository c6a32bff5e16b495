"""The engine of submitted calls: runs each when its inputs are there, and tells those who wait. Knows no client.

One lock guards every call that is not done.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial
from threading import Lock, current_thread, main_thread
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet, WeakValueDictionary

from wukong.cost import PROCESSES
from wukong.errors import ConfigError
from wukong.executor.effects import Raised
from wukong.platforms.local import admission as admissions
from wukong.platforms.local.admission import Admission
from wukong.scheduler.course import Course, Running, cancelled, present
from wukong.scheduler.futures.auto import Auto
from wukong.scheduler.futures.call import (
    CANCELLED,
    FAILED,
    FINISHED,
    READY,
    RUNNING,
    WAITING,
    Call,
)
from wukong.scheduler.futures.lanes import Lane, Turn, here
from wukong.scheduler.futures.later import Later
from wukong.scheduler.futures.outcome import outcome
from wukong.scheduler.futures.processes import Processes
from wukong.scheduler.futures.waiting import Signal, Waiting
from wukong.scheduler.left import Left
from wukong.scheduler.tries import said, tell_earlier

if TYPE_CHECKING:
    from wukong.platforms.local.pack import Pack

_CLOSED = "this client is closed"


class Cancelled(NamedTuple):
    """What came of cancelling: calls that had not begun, and what may still run."""

    spared: list[Call]
    left: list[Running]


class Engine(Waiting):
    """Calls, those who wait for them, and the lanes that run them.

    Parameters
    ----------
    workers : int
        How many calls run at once.
    start : callable
        Starts a pack of processes.
    granules : str
        Where calls run: ``threads``, ``processes``, or ``auto``.
    admission : Admission, optional
        The books of what calls need; the machine's if None.
    attempts : int
        How many processes may die at one call.

    Attributes
    ----------
    calls : mapping of key to Call
        Those that somebody still holds.
    undone : set of Call
        Those that are not done: a call runs even if nobody waits for it.
    courses : set of Course
        Computes that somebody waits for in his own thread.
    owner : callable
        Gives whose engine it is, or None.
    threads, jobs : Lane
        Where calls run in this process, and where whole graphs do, which have workers of their own.
    processes : Processes
        Where they run in others.
    auto : Auto or None
        Decides which of them.
    """

    def __init__(
        self,
        workers: int,
        start: "Callable[[], Pack] | None" = None,
        granules: str = "threads",
        admission: Admission | None = None,
        attempts: int = PROCESSES.attempts,
    ) -> None:
        super().__init__()
        self.granules = granules
        self.attempts = attempts
        self.admission = admission or admissions.machine
        self.owner: Callable[[], Any] = _nobody
        self.calls: WeakValueDictionary[Any, Call] = WeakValueDictionary()
        self.undone: set[Call] = set()
        self.courses: WeakSet[Course] = WeakSet()
        self.loose = Turn()
        self._later = Later()
        self.threads = Lane(self, workers, "wukong-call")
        self.jobs = Lane(self, max(workers, 4), "wukong-job")
        self.processes = Processes(self, start or _no_pack)
        self.auto = Auto(self) if granules == "auto" else None
        self._usual: Any = self.auto or (self.processes if granules == "processes" else self.threads)
        _engines.add(self)

    # --- in -----------------------------------------------------------------------------------------------------------

    def submit(self, calls: Iterable[Call], lane: Any = None, turn: Turn | None = None) -> None:
        """Have calls run, each when its inputs are there.

        Parameters
        ----------
        calls : iterable of Call
            New ones.
        lane : Lane, optional
            Where they run; where calls usually do if None.
        turn : Turn, optional
            Whom they take turns with: all other calls if None, or, within a call, the others of its group.

        Raises
        ------
        ClientClosed
        """
        done: list[Call] = []
        calls = list(calls)
        for call in calls:
            for read in call.inputs:
                if read.engine is not self and not read.done:
                    call.inputs = [self._stand_in(read) for read in call.inputs]
                    break
        if turn is None:
            turn = self.loose if here.call is None or here.call.engine is not self else here.call.turn
        with self.lock:
            self.check()
            for call in calls:
                call.turn, call.lane = turn, lane or self._usual
                self.calls[call.key] = call
                self.undone.add(call)
                for read in call.inputs:
                    if read.state > FINISHED:
                        self._end(call, read.state, done, cause=read)
                        break
                    if read.state != FINISHED:
                        read.readers.append(call)
                        call.missing += 1
                else:
                    if not call.missing:
                        self._ready(call, done)
            self._spread(done)
        self._tell(done)

    def _stand_in(self, call: Call) -> Call:
        """Return a call of this engine that ends as one of another does; that itself if it is of this one or done."""
        if call.engine is self or call.done:
            return call
        mine = Call(self, call.key, None)
        mine.lane = self.threads
        with self.lock:
            self.check()
            self.undone.add(mine)
        call.engine.watch(call, partial(self._follow, mine))
        return mine

    def _follow(self, mine: Call, call: Call) -> None:
        if call.state == CANCELLED:
            self.cancel([mine])
            return
        try:
            error = outcome(call)
            value = call.engine.open(call) if error is None else None
        except Exception as lost:  # its client was closed
            error = lost
        if error is None:
            self.finished(mine, value)
        else:
            self.failed(mine, error)

    def follow(self, course: Course) -> None:
        """Have a compute that somebody waits for end with this engine, unless it ends before.

        Raises
        ------
        ClientClosed
        """
        with self.lock:
            self.check()
            self.courses.add(course)

    def give(self, key: Any, value: Any) -> Call:
        """Return a call that is done: a value under a name."""
        call = Call(self, key, None)
        call.value, call.has_value, call.state = value, True, FINISHED
        with self.lock:
            self.check()
            self.calls[key] = call
        return call

    # --- run ----------------------------------------------------------------------------------------------------------

    def perform(self, call: Call) -> None:
        """Run a call in this thread."""
        outer = here.call
        here.call = call
        here.depth += 1
        watched = self.auto if call.kind is not None else None
        before = None if watched is None else watched.began(call)
        try:
            started, call.started = call.started, None
            course = None if call.context is None else call.context.get(present)
            if (started is not None and not started()) or (course is not None and course.ending):
                self.cancel([call])
                return
            value = call.perform() if call.context is None else call.context.run(call.perform)
        except BaseException as error:
            here.call = outer
            # Our own frames say nothing, and would keep what they refer to alive.
            trace = error.__traceback__
            self.failed(call, error.with_traceback((trace.tb_next and trace.tb_next.tb_next) if trace else None))
            # Ctrl-C is for whoever waits here, too. It comes to the main thread, and to no other.
            if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                raise
        else:
            here.call = outer
            self.finished(call, value)
        finally:
            here.call = outer
            here.depth -= 1
            if call.need:
                self.admission.give_back(call.need)
            if watched is not None:
                watched.ended(before)

    def finished(self, call: Call, value: Any = None, sealed: Any = None) -> None:
        """Note that a call is through and gave this value, or, if `sealed` is not None, what can be opened to it."""
        done: list[Call] = []
        if sealed is not None and call.readers and call.readers[0].lane is SELECT:
            try:
                value, sealed = self.processes.unseal(sealed), None
            except Exception as error:
                self.failed(call, error)
                return
        with self.lock:
            if call.done:
                return
            call.value, call.sealed, call.has_value = value, sealed, sealed is None
            self._end(call, FINISHED, done)
            self._spread(done)
        self._tell(done)

    def failed(self, call: Call, error: BaseException) -> None:
        """Note that a call raised; it runs again, after a pause, if it may."""
        done: list[Call] = []
        with self.lock:
            if call.done:
                return
            if call.retry is not None and call.retry.may(error, len(call.earlier)):
                call.earlier.append(said(error))
                call.state = WAITING
                self._later.call(call.retry.pause(len(call.earlier)), partial(self._again, call))
            else:
                tell_earlier(error, call.earlier)
                call.error, call.trace = error, error.__traceback__
                self._end(call, FAILED, done)
                self._spread(done)
        self._tell(done)

    def _again(self, call: Call) -> None:
        with self.lock:
            if call.done:
                return
            call.state = READY
            call.lane.put_back(call)
        self._tell([])

    def open(self, call: Call) -> Any:
        """Return the value of a call that is finished."""
        if not call.has_value:
            call.value = self.processes.unseal(call.sealed)
            call.has_value = True
        return call.value

    def _ready(self, call: Call, done: list[Call]) -> None:
        if call.lane is SELECT:
            value = call.inputs[0].value[call.part]
            if type(value) is Raised:
                call.error, call.trace = value.error, value.error.__traceback__
                self._end(call, FAILED, done)
            else:
                if type(value) is Left:
                    call.sealed = value.sealed
                else:
                    call.value, call.has_value = value, True
                self._end(call, FINISHED, done)
        else:
            call.state = READY
            call.lane.push(call)

    def _end(self, call: Call, state: int, done: list[Call], cause: Call | None = None) -> None:
        # Those who see the state without the lock rely on the rest.
        call.cause = cause
        call.state = state
        if state != FAILED:
            call.forget()
        self.undone.discard(call)
        if call.kind is not None and self.auto is not None:
            self.auto.gone(call)
        done.append(call)

    def _spread(self, done: list[Call]) -> None:
        """Go on with the readers of calls that are done, which may be done with them."""
        for call in done:
            readers, call.readers = call.readers, []
            for reader in readers:
                if reader.done:
                    continue
                if call.state != FINISHED:
                    self._end(reader, call.state, done, cause=call)
                    continue
                reader.missing -= 1
                if not reader.missing:
                    self._ready(reader, done)

    # --- out ----------------------------------------------------------------------------------------------------------

    def cancel(self, calls: Iterable[Call], begun: bool = True, why: str = "somebody cancelled it") -> Cancelled:
        """Cancel calls, and with them those that need them.

        Parameters
        ----------
        calls : iterable of Call
            Those to cancel; nothing happens to those that are done.
        begun : bool
            Whether to cancel those that run, too: they run on, but nobody will see what comes of them.
        why : str
            For those who compute what is cancelled.
        """
        done: list[Call] = []
        spared: list[Call] = []
        interrupted: list[Call] = []
        lessened: dict[Call, list[Call]] = {}
        with self.lock:
            for call in calls:
                if call.done:
                    continue
                # What parts of one whole share is needed as long as one of them is.
                whole = call.inputs[0] if call.lane is SELECT else call
                last = whole is call or all(part.done for part in whole.readers if part is not call)
                running = whole.state == RUNNING or (last and whole.state == READY and not whole.lane.withdraw(whole))
                if running and not begun:
                    continue
                if not running:
                    spared.append(call)
                self._end(call, CANCELLED, done)
                if last and not whole.done:
                    self._end(whole, CANCELLED, done)
                if last and running:
                    interrupted.append(whole)
                elif not last:
                    lessened.setdefault(whole, []).append(call)
            self._spread(done)
        left = [one for call in interrupted for one in call.interrupt(why)]
        left += [one for call, parts in lessened.items() if not call.done for one in call.lessen(parts)]
        self._tell(done)
        return Cancelled(spared, left)

    def wake(self) -> None:
        """Have those who read from processes of this engine look whether they still wait."""
        self.processes.wake()

    def await_signal(self, signal: Signal, timeout: float | None) -> bool:
        """Wait for a signal, or so many seconds, and read what comes from processes meanwhile."""
        if self.processes.started:
            signal.reader = self
            return self.processes.pack().wait(lambda: signal.given, timeout)
        return super().await_signal(signal, timeout)

    def _tell(self, done: list[Call]) -> None:
        """Hand over calls to processes, and call the callbacks of calls that are done. No lock is held."""
        if self.auto is not None:
            self.auto.begin()
        self.processes.begin()
        for call in done:
            callbacks, call.callbacks = call.callbacks, []
            for callback in callbacks:
                try:
                    callback(call)
                except Exception:
                    from logging import getLogger

                    getLogger("wukong").exception("a callback of the future of %r raised", call.key)
        if done:
            self.processes.look()

    # --- end ----------------------------------------------------------------------------------------------------------

    def close(self, why: str = _CLOSED) -> list[Running]:
        """Cancel every call, let the threads end, and end the processes; return what may still run, in threads."""
        with self.lock:
            if self.closed:
                return []
            self.closed = why
            self.threads.close()
            if self.auto is not None:
                self.auto.close()
            self.jobs.close()
            undone, courses = list(self.undone), list(self.courses)
        self._later.close()
        left = self.cancel(undone, why="its client was closed").left
        for course in courses:
            left += course.end(cancelled("its client was closed"))
        self.admission.leave(self.threads)
        self.processes.close()
        return [one for one in left if "worker process" not in one.where]


def _nobody() -> None:
    return None


def _no_pack() -> "Pack":
    raise ConfigError("there are no processes here")


#: Stands for a lane: the call is a part of the value of its input, and done with it.
SELECT: Any = object()

_engines: WeakSet[Engine] = WeakSet()


def _forked() -> None:
    """Refuse clients of the parent in a forked child: their threads and workers are not there."""
    for engine in list(_engines):
        engine.lock = Lock()
        engine.closed = f"this client was made in process {os.getppid()}, which this one was forked from"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
