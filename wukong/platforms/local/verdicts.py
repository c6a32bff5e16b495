"""Whether a function holds the interpreter while it runs: the evidence of `granules="auto"`. Moves nothing itself.

Whoever naps for a moment needs the interpreter to go on. While a Python loop runs in another thread, it is given only
after `sys.getswitchinterval()`; while NumPy computes, or a task sleeps or reads a file, at once. So a nap that ends
late is evidence against what ran meanwhile, and one that ends in time speaks for it. Where processors are short, a nap
may be late and nobody at fault: the napping thread may have waited for one (the kernel says for how long), and so may
the thread that has the interpreter (then the process used little processor time meanwhile).

    verdicts.look(at_work)            naps, and notes it for what was at work before and after
    nap = Nap(pause); ...wait...      the same for a thread that waits for its own reasons
    verdicts.saw(at_work, nap.end())

A function that holds the interpreter for moments only, one after the other, makes no nap late; `contention` sees it.

A late nap counts only if a single suspect was at work: one that is not known to be innocent, beside none that is known
to be guilty. So a sleeping task beside a loop is never judged by it. `granules="auto"` begins alone in the client,
where every nap can be attributed.

What was tried first, thread time against wall time, is no evidence on a machine that has other work: of two NumPy tasks
beside two foreign loops each gets 0.36 of a processor, the process 0.73; of two Python loops 0.33 and 0.69
(`benchmarks/verdicts.py` prints this too).
"""

import os
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from time import perf_counter, process_time, sleep
from typing import Final, NamedTuple

from wukong.cost import Costs

#: Length of a nap, in seconds. Longer ones cost less; shorter ones see more of a short task.
PAUSE: Final = 1e-3
_LATE: Final = 0.8  # of a switch interval
_BUSY: Final = 0.25  # of a nap: the process ran at least so much
_IDLE: Final = 1 / 3  # what a prompt nap counts if it did not
_ENOUGH: Final = 3
_MOSTLY: Final = 0.6
_SHORT: Final = 0.1  # of the delay: the napping thread waited so long for a processor


class Seen(NamedTuple):
    """What a nap saw.

    Attributes
    ----------
    held : float
        For how long, in seconds, the interpreter was not to be had when it should have ended; 0 if it ended in time.
    ran : bool
        Whether this process was at work meanwhile.
    """

    held: float
    ran: bool


class Nap:
    """One wait of a known length.

    Parameters
    ----------
    pause : float
        How long it is meant to last, in seconds.
    """

    __slots__ = ("_began", "_pause", "_ran")

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._ran = process_time()
        self._began = perf_counter()

    def end(self) -> Seen | None:
        """Return what it saw; None if it ended before its time."""
        took = perf_counter() - self._began
        if took < self._pause:
            return None
        late = took - self._pause
        held = late if late >= _LATE * sys.getswitchinterval() else 0.0
        return Seen(held, process_time() - self._ran >= _BUSY * took)


class Verdicts:
    """What is known of functions, by any hashable that stands for one. Safe to use from several threads.

    A verdict takes three naps that agree, or more that mostly do, and stays. Where processors are short, one that a
    function holds the interpreter takes six.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, bool] = {}
        self._prompt: defaultdict[Hashable, float] = defaultdict(float)
        #: Late naps, and for how long those who took them waited for a processor meanwhile.
        self._late: dict[Hashable, list[float]] = {}
        self._waited: defaultdict[Hashable, float] = defaultdict(float)
        self._accused: Counter[Hashable] = Counter()
        self._lock = threading.Lock()

    def holds(self, kind: Hashable) -> bool | None:
        """Whether functions of this kind hold the interpreter; None if that is not known yet."""
        return self._known.get(kind)

    def asks(self, kinds: Collection[Hashable]) -> bool:
        """Whether any of these kinds is not known yet, so that a nap may tell something."""
        return any(kind not in self._known for kind in kinds)

    def accuse(self, kind: Hashable) -> bool:
        """Note that tasks of this kind keep each other waiting, though no nap is late; return if that is decisive."""
        with self._lock:
            self._accused[kind] += 1
            if self._known.get(kind) or self._accused[kind] < _ENOUGH:
                return False
            self._known[kind] = True
            return True

    def saw(self, at_work: Collection[Hashable], seen: Seen | None) -> None:
        """Note a nap.

        Parameters
        ----------
        at_work : collection of hashables
            The kinds of the tasks that ran all the while.
        seen : Seen or None
            As `Nap.end` returns it.
        """
        if seen is None:
            return
        with self._lock:
            suspects = {kind for kind in at_work if self._known.get(kind) is not False}
            if seen.held and (len(suspects) != 1 or not seen.ran):
                return
            for kind in suspects.difference(self._known):
                self._judge(kind, seen)

    def look(self, at_work: Callable[[], Collection[Hashable]], pause: float = PAUSE) -> None:
        """Nap once and note it for the kinds that `at_work` returns both before and after."""
        _queue.open()
        before = set(at_work())
        nap = Nap(pause)
        sleep(pause)
        seen = nap.end()
        self.saw(before.intersection(at_work()), seen)

    def _judge(self, kind: Hashable, seen: Seen) -> None:
        late = self._late.setdefault(kind, [])
        if seen.held:
            late.append(seen.held)
        else:
            # It may sleep, or wait for a processor that others have.
            self._prompt[kind] += 1 if seen.ran else _IDLE
        naps = len(late) + self._prompt[kind]
        if len(late) >= max(_ENOUGH, _MOSTLY * naps):
            self._waited[kind] += _queue.waited()
            short = self._waited[kind] > _SHORT * sum(late)
            if sum(late) - self._waited[kind] < len(late) * _LATE * sys.getswitchinterval():
                late.clear()
                del self._waited[kind]
            elif len(late) >= (2 if short else 1) * _ENOUGH:
                self._known[kind] = True
        elif naps - 2 * len(late) >= _ENOUGH:
            self._known[kind] = False
        if kind in self._known:
            del self._late[kind]
            self._prompt.pop(kind, None)
            self._waited.pop(kind, None)


def worth(seconds: float, nbytes: float, costs: Costs) -> bool:
    """Whether a task that holds the interpreter is worth moving: it lasts longer than it takes to ship what it needs.

    Parameters
    ----------
    seconds : float
        How long it lasts.
    nbytes : float
        Of its inputs and its output, in bytes.
    costs : Costs
        Of processes, as `wukong.cost.PROCESSES`.
    """
    return seconds > costs.round_trip + nbytes / costs.bandwidth


class _Queue(threading.local):
    """For how long this thread has waited for a processor, from the kernel's books; 0 where it keeps none.

    Reading lets go of the interpreter, and to have it back may take as long again as a nap: so it is read before a
    verdict only, and all that was waited since the one before counts.
    """

    _file: int | None = None
    _read: int = 0

    def open(self) -> None:
        """Begin to keep count."""
        if self._file is None:
            try:
                self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
                self.waited()
            except OSError:
                self._file = -1

    def waited(self) -> float:
        """Return for how long, in seconds, since the last call."""
        if self._file in (None, -1):
            return 0.0
        before = self._read
        with suppress(OSError, IndexError, ValueError):
            self._read = int(os.pread(self._file, 64, 0).split()[1])
        return (self._read - before) / 1e9

    def __del__(self) -> None:
        if self._file not in (None, -1):
            os.close(self._file)


_queue = _Queue()
