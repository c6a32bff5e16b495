"""Waiting for calls. Whoever waits for a call that nobody has begun runs it himself, if there is room.

So one call after the other costs no switch of threads. A call that waits for others gives up its place meanwhile, so
calls may wait for calls at any depth.
"""

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from time import monotonic

from wukong.errors import ClientClosed
from wukong.platforms.local.admission import within
from wukong.scheduler.futures.call import FINISHED, READY, WAITING, Call
from wukong.scheduler.futures.lanes import here

#: Calls that one thread may have on its stack by running what it waits for; deeper ones go to another thread.
_DEEPEST = 16


class Signal:
    """Something that one thread waits for and any other may give, once.

    Attributes
    ----------
    reader : Waiting or None
        Whose processes the waiting thread reads from meanwhile.
    """

    __slots__ = ("_lock", "given", "reader")

    def __init__(self) -> None:
        self.given = False
        self.reader: Waiting | None = None
        self._lock = Lock()
        self._lock.acquire()

    def give(self, call: Call) -> None:
        """Let the waiting thread go on, since this call is done."""
        self.given = True
        self._lock.release()
        # Those who end a call of its own see to this thread.
        if self.reader is not None and self.reader is not call.engine:
            self.reader.wake()

    def wait(self, timeout: float | None) -> bool:
        """Wait so many seconds, or until it is given; return whether it is."""
        return self._lock.acquire(timeout=-1 if timeout is None else max(timeout, 0))


class Waiting:
    """What an engine has for those who wait.

    Attributes
    ----------
    lock : Lock
        Guards every call that is not done.
    closed : str
        Why nothing runs any more; empty while it does.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.closed = ""

    def perform(self, call: Call) -> None:
        """Run a call in this thread."""
        raise NotImplementedError

    def failed(self, call: Call, error: BaseException) -> None:
        """Note that a call raised."""
        raise NotImplementedError

    def excuse(self, calls: Iterable[Call]) -> None:
        """Have calls, and what they need, wait for no memory: a task that has some waits for them."""
        needed, seen = list(calls), set[Call]()
        with self.lock:
            while needed:
                call = needed.pop()
                if call.state in (WAITING, READY) and call not in seen:
                    seen.add(call)
                    needed.extend(call.inputs)
                    need, call.need = call.need, 0
                    if need and call.state == READY:
                        call.lane.excuse(call)

    def check(self) -> None:
        """Raise if the client is closed.

        Raises
        ------
        ClientClosed
        """
        if self.closed:
            raise ClientClosed(f"{self.closed}; make a new one: wukong.Client()")

    def wait(
        self, calls: Collection[Call], timeout: float | None = None, first: bool = False, failing: bool = False
    ) -> bool:
        """Wait until calls are done, and meanwhile run those that nobody has begun.

        Parameters
        ----------
        calls : collection of Call
            What to wait for.
        timeout : float, optional
            Seconds; then nothing is run here, since nobody could interrupt it.
        first : bool
            Whether one of them will do; then nothing is run here either, since another may be done sooner.
        failing : bool
            Whether one will do that has no value; only within a call anything is run here then.

        Returns
        -------
        bool
            Whether they are done.
        """
        left = [call for call in calls if not call.done]
        if not left or (first and len(left) < len(calls)):
            return True
        self.check()
        if within():
            self.excuse(left)
        if timeout is None and not first and (not failing or here.call is not None):
            self.help(left)
            if left[0].done and len(left) == 1:
                return True
        signal, counting = Signal(), Lock()
        count = 1 if first else len(left)

        def tick(call: Call) -> None:
            nonlocal count
            with counting:
                count = 0 if failing and count > 0 and call.state != FINISHED else count - 1
                if count:
                    return
            signal.give(call)

        for call in left:
            self.watch(call, tick)
        try:
            return self.block(signal, timeout)
        finally:
            if first or failing or not signal.given:
                self.ignore(left, tick)

    def block(self, signal: Signal, timeout: float | None) -> bool:
        """Wait for a signal, or so many seconds; if it is a call that waits, its place is free meanwhile."""
        if signal.given:
            return True
        self.check()
        if here.call is None:
            return self.await_signal(signal, timeout)
        with aside():
            return self.await_signal(signal, timeout)

    def wake(self) -> None:
        """Have those who read from processes of this engine look whether they still wait."""

    def await_signal(self, signal: Signal, timeout: float | None) -> bool:
        """Wait for a signal, or so many seconds."""
        return signal.wait(timeout)

    def watch(self, call: Call, callback: Callable[[Call], None]) -> None:
        """Have `callback(call)` called when a call is done: by whoever ends it, or, if it is done, right here."""
        if not call.done:
            with call.engine.lock:
                if not call.done:
                    call.callbacks.append(callback)
                    return
        callback(call)

    def ignore(self, calls: Iterable[Call], callback: Callable[[Call], None]) -> None:
        """Undo `watch`."""
        for call in calls:
            with call.engine.lock:
                if callback in call.callbacks:
                    call.callbacks.remove(callback)

    def help(self, calls: list[Call]) -> None:
        """Run what is needed for these calls and can be run now, one after the other."""
        asyncio = sys.modules.get("asyncio")
        # A loop of asyncio must not find itself around a task.
        if here.depth >= _DEEPEST or (asyncio is not None and asyncio._get_running_loop() is not None):
            return
        needed = calls[::-1]
        seen: set[Call] = set()
        while needed:
            call = needed[-1]
            if call.state == READY and call.engine is self and call.lane.lends_itself:
                self._run_here(call)
            elif call.state == WAITING and call not in seen:
                seen.add(call)
                needed.extend(call.inputs)
                continue
            needed.pop()

    def _run_here(self, call: Call) -> None:
        outer = here.call
        if outer is not None and outer.engine is not self:
            with aside():
                self._run_in_place_of(None, call)
        else:
            self._run_in_place_of(outer, call)

    def _run_in_place_of(self, outer: Call | None, call: Call) -> None:
        with self.lock:
            # In one step, or another thread takes the place.
            if outer is not None:
                outer.lane.working -= 1
            granted = call.lane.claim(call)
            if not granted and outer is not None:
                outer.lane.working += 1
        if granted:
            try:
                self.perform(call)
            except KeyboardInterrupt as error:
                # If it came a step before or after the call itself, nobody else knows.
                self.failed(call, error)
                raise
            finally:
                with self.lock:
                    if outer is not None:
                        outer.lane.working += 1
                    call.lane.leave()


@contextmanager
def aside() -> Iterator[None]:
    """Give up the place of the call that runs in this thread, if one does, while it waits for others."""
    call = here.call
    if call is None:
        yield
        return
    with call.engine.lock:
        call.lane.leave()
    try:
        yield
    finally:
        with call.engine.lock:
            call.lane.come_back()


def remaining(deadline: float | None) -> float | None:
    """Return the seconds that are left until a time of `time.monotonic`; None if there is none."""
    return None if deadline is None else max(deadline - monotonic(), 0.0)
