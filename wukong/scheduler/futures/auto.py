"""granules="auto" for calls: they begin in threads, and move to processes by function, once that is known to pay.

The rules and the evidence are those of graphs (`wukong.scheduler.adaptive`), with one more: what is given to a call
directly, and not by a future, might be meant to be changed in place. So a list, a dictionary or an object of yours
among the arguments keeps the call here.
"""

import threading
from collections import Counter, deque
from functools import partial
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, Final

from wukong.cost import PROCESSES
from wukong.platforms.local.verdicts import worth
from wukong.purity import keeps
from wukong.scheduler.adaptive import called, name_of, verdicts
from wukong.scheduler.futures.call import READY, Call, fill

if TYPE_CHECKING:
    from wukong.scheduler.futures.engine import Engine

#: Seconds between two looks of the watcher, if there is nothing to be seen: at first, and at most.
_SOON: Final = 0.002
_RARELY: Final = 0.05


class Auto:
    """A lane that passes each call on to threads or to processes.

    Parameters
    ----------
    engine : Engine
        Whose lanes they are.

    Attributes
    ----------
    reasons : dict of str to str
        For each function about which anything was found out, why it is where it is.
    """

    working = 0
    lends_itself = False

    def __init__(self, engine: "Engine") -> None:
        self.reasons: dict[str, str] = {}
        self._engine = engine
        self._moves: set[Any] = set()
        self._stays: set[Any] = set()
        self._waiting: Counter[Any] = Counter()
        self._lasted: dict[Any, float] = {}
        self._at_work: dict[int, tuple[Any, Any, float]] = {}
        self._coming: deque[Call] = deque()
        self._called = threading.Condition(engine.lock)
        self._watching = False
        self._closed = False

    # As a lane; the engine's lock is held

    def push(self, call: Call) -> None:
        """Pass a call on; `begin` has to be called when the lock is released."""
        call.kind = kind = name_of((call.function,))
        if kind in self._moves:
            self._coming.append(call)
            return
        call.lane = self._engine.threads
        call.lane.push(call)
        if kind in self._stays or verdicts.holds(kind) is False:
            call.kind = None
        else:
            self._waiting[kind] += 1
            self._watch()

    def gone(self, call: Call) -> None:
        """Note that a call which was not decided about is done."""
        if call.lane is self._engine.threads:
            self._waiting[call.kind] -= 1
            if not self._waiting[call.kind]:
                del self._waiting[call.kind]

    def claim(self, _: Call) -> bool:
        """Refuse: where the call belongs is not decided yet."""
        return False

    def excuse(self, _: Call) -> None:
        """Do nothing: it has not come to where it would wait."""

    def withdraw(self, _: Call) -> bool:
        """Take a call back; nobody has begun it."""
        return True

    # No lock is held

    def begin(self) -> None:
        """Pass on the calls that have come and might move."""
        while self._coming:
            try:
                call = self._coming.popleft()
            except IndexError:  # another thread has it
                return
            self._pass_on(call, self._why_not(call) is None)

    def began(self, call: Call) -> Any:
        """Note that this thread begins a call that is not decided about; return what `ended` has to be given."""
        me = threading.get_ident()
        before = self._at_work.get(me)
        self._at_work[me] = call.kind, call.function, perf_counter()
        return before

    def ended(self, before: Any) -> None:
        """Note that this thread is through with it, and at what it was before."""
        me = threading.get_ident()
        kind, _, began = self._at_work.pop(me)
        self._lasted[kind] = perf_counter() - began
        if before is not None:
            self._at_work[me] = before

    def stay(self, call: Call) -> None:
        """Have a call run here that cannot travel."""
        with self._engine.lock:
            self._stays.add(call.kind)
            self._moves.discard(call.kind)
        self.reasons[called(call.function)] = "threads: it holds the interpreter, but what it needs cannot be pickled"
        self._pass_on(call, False)

    def close(self) -> None:
        """Let the watcher end. The lock must be held."""
        self._closed = True
        self._called.notify()

    def _pass_on(self, call: Call, moves: bool) -> None:
        engine = self._engine
        with engine.lock:
            if call.state != READY:
                return
            if not moves:
                call.kind = None
            call.lane = engine.processes if moves else engine.threads
            call.lane.push(call)
        engine.processes.begin()

    def _why_not(self, call: Call) -> str | None:
        """Return what keeps a call here though its function may move."""
        nothing = [None] * len(call.inputs)
        args, kwargs = fill(call.args, nothing), fill(call.kwargs, nothing)
        return keeps(partial(call.function, *args, **kwargs)) if call.function is not None else ""

    def _watch(self) -> None:
        if self._watching:
            self._called.notify()
        else:
            self._watching = True
            threading.Thread(target=self._run, name="wukong-watcher", daemon=True).start()

    def _run(self) -> None:
        pause = _SOON
        while True:
            with self._engine.lock:
                while not self._closed and not self._waiting:
                    self._called.wait()
                    pause = _SOON
                if self._closed:
                    return
            if verdicts.asks(self._kinds()):
                verdicts.look(self._kinds)
                pause = _SOON
            else:
                sleep(pause)
                pause = min(2 * pause, _RARELY)
            for kind, function, began in list(self._at_work.values()):
                if verdicts.holds(kind) and kind not in self._moves and kind not in self._stays:
                    self._decide(kind, function, perf_counter() - began)

    def _kinds(self) -> list[Any]:
        return [kind for kind, _, _ in list(self._at_work.values())]

    def _decide(self, kind: Any, function: Any, lasting: float) -> None:
        engine = self._engine
        lasts = max(self._lasted.get(kind, 0.0), lasting)
        why = keeps(function)
        if why is not None:
            self._stays.add(kind)
            self.reasons[called(function)] = f"threads: it holds the interpreter, but {why}"
        elif worth(lasts, 0, PROCESSES):
            saved = self._waiting[kind] * lasts * (1 - 1 / engine.threads.most)
            if engine.processes.started or saved > PROCESSES.start:
                self._move(kind)
                self.reasons[called(function)] = "processes: it holds the interpreter"

    def _move(self, kind: Any) -> None:
        """Have the calls of a kind that wait decided about anew, and those that come."""
        with self._engine.lock:
            self._moves.add(kind)
            for call in self._engine.threads.take_out(kind):
                self.gone(call)
                call.lane = self
                self._coming.append(call)
        self.begin()
