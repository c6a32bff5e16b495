"""Where calls run, in what order, and how many at once. Here: threads of this process.

Order: higher priority first; of equal priority, turns are taken fairly (start-time fair queueing): each group of calls,
such as one `map`, has a clock that ticks with each of its calls, and a group that comes late starts at the time of
those served now. So a call that comes after a thousand others of another group is one of the next to run. Calls that
need memory wait for it in a queue of their own, and those that need none pass them by.
"""

import threading
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from wukong.scheduler.futures.call import READY, RUNNING, Call

if TYPE_CHECKING:
    from wukong.scheduler.futures.engine import Engine


class Turn:
    """The clock of a group of calls that take turns with those of other groups."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = 0.0


class Ticks:
    """The time of a lane, by which groups that come late begin."""

    __slots__ = ("_now",)

    def __init__(self) -> None:
        self._now = 0.0

    def tick(self, call: Call) -> None:
        """Give a call its turn, at the end of its group."""
        turn = call.turn
        call.tag = turn.last = max(self._now, turn.last) + 1

    def served(self, call: Call) -> None:
        """Note that a call has had its turn."""
        self._now = max(self._now, call.tag)


class Queue:
    """Calls that are ready, the next one to run first. The engine's lock guards it."""

    def __init__(self, lane: "Lane", ticks: Ticks) -> None:
        self._lane = lane
        self._heap: list[tuple[float, float, int, Call]] = []
        self._ticks = ticks

    def push(self, call: Call) -> None:
        """Add a call, at the end of its group."""
        self._ticks.tick(call)
        self.put_back(call)

    def put_back(self, call: Call) -> None:
        """Add a call that had its turn before."""
        heappush(self._heap, (-call.priority, call.tag, call.number, call))

    def pop(self) -> Call | None:
        """Take the next call; those that are no longer ready, or went to another lane, are passed over."""
        heap = self._heap
        while heap:
            call = heappop(heap)[-1]
            if self._has(call):
                self._ticks.served(call)
                return call
        return None

    def first(self) -> tuple[float, float, int, Call] | None:
        """Return the next call, behind what it is ordered by."""
        return self._heap[0] if self else None

    def some(self) -> bool:
        """Whether there is any; asked without the lock, too."""
        return any(self._has(entry[-1]) for entry in list(self._heap))

    def __bool__(self) -> bool:
        heap = self._heap
        while heap and not self._has(heap[0][-1]):
            heappop(heap)
        return bool(heap)

    def __iter__(self) -> Iterator[Call]:
        return (entry[-1] for entry in sorted(self._heap) if self._has(entry[-1]))

    def _has(self, call: Call) -> bool:
        return call.state == READY and call.lane is self._lane


class Lane:
    """Threads that run calls.

    A thread that waits in a call for other calls does not count as at work, so another may run meanwhile: however deep
    calls wait for calls, some thread is free to run them.

    Parameters
    ----------
    engine : Engine
        Whose lock guards all of it.
    most : int
        How many calls run at once.
    name : str
        Of the threads.

    Attributes
    ----------
    lends_itself : bool
        Whether a thread that waits for a call may run it.
    working : int
        Calls that run and do not wait for others.
    """

    lends_itself = True

    def __init__(self, engine: "Engine", most: int, name: str) -> None:
        self.most = most
        self.working = 0
        self._engine = engine
        self._name = name
        ticks = Ticks()
        self._queue = Queue(self, ticks)
        self._needing = Queue(self, ticks)
        self._spare = 0  # threads that are on their way here, or wait here, for a call
        self._called = threading.Condition(engine.lock)
        self._closed = False

    def push(self, call: Call) -> None:
        """Have a call run when its turn comes. The lock must be held."""
        (self._needing if call.need else self._queue).push(call)
        self._summon()

    def put_back(self, call: Call) -> None:
        """Have a call run that has run before. The lock must be held."""
        (self._needing if call.need else self._queue).put_back(call)
        self._summon()

    def claim(self, call: Call) -> bool:
        """Let the asking thread run this call if it is ready and there is room. The lock must be held."""
        if call.state != READY or self.working >= self.most or self._closed:
            return False
        if call.need and not self._engine.admission.admit(self, call.need):
            return False
        self.working += 1
        call.state = RUNNING
        return True

    def withdraw(self, call: Call) -> bool:
        """Take a call back; return whether nobody had begun it. The lock must be held."""
        # In the queue it is passed over.
        return call.state == READY

    def where(self, call: Call) -> str:  # noqa: ARG002
        """Return where a call runs, for people."""
        return "a thread of this process"

    def take_out(self, kind: Any) -> list[Call]:
        """Return the calls of a kind that wait; each has to be given another lane. The lock must be held."""
        return list(dict.fromkeys(call for call in (*self._queue, *self._needing) if call.kind == kind))

    def leave(self) -> None:
        """Note that a call that runs begins to wait for others, or has ended. The lock must be held."""
        self.working -= 1
        self._summon()

    def come_back(self) -> None:
        """Note that a call that runs has done with waiting. The lock must be held."""
        self.working += 1

    def close(self) -> None:
        """Let the threads end, each after the call that it runs. The lock must be held."""
        self._closed = True
        self._called.notify_all()

    def excuse(self, call: Call) -> None:
        """Have a call that is ready wait for no memory any more. The lock must be held."""
        self.put_back(call)

    def stands(self) -> bool:
        """See `wukong.platforms.local.admission.Party`."""
        return not self._closed and self.working < self.most and self._needing.some()

    def look_again(self) -> None:
        """See `wukong.platforms.local.admission.Party`."""
        with self._engine.lock:
            self._summon()

    def _next(self) -> Call | None:
        """Take the next call that may begin."""
        needing = self._needing.first()
        if needing is not None:
            admission, other = self._engine.admission, self._queue.first()
            first = other is None or needing < other or admission.urges(self)
            if first and admission.admit(self, needing[-1].need):
                return self._needing.pop()
        return self._queue.pop()

    def _summon(self) -> None:
        """See to it that a thread comes for the next call, if one may run."""
        if self.working >= self.most or not (self._queue or self._needing) or self._closed:
            return
        if self._spare:
            self._called.notify()
        else:
            self._spare += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        lock, engine = self._engine.lock, self._engine
        while True:
            with lock:
                while self._closed or self.working >= self.most or (call := self._next()) is None:
                    if self._closed:
                        self._spare -= 1
                        return
                    self._called.wait()
                self._spare -= 1
                self.working += 1
                call.state = RUNNING
                self._summon()
            engine.perform(call)
            # A large value must not live on in a thread that has nothing to do.
            del call
            with lock:
                self._spare += 1
                self.working -= 1


class Here(threading.local):
    """What the present thread is at: the call that it runs, if any, how many are on its stack, whether it reads."""

    call: Any = None
    depth = 0
    reading = False


here = Here()
