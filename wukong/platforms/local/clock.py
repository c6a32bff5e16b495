"""For how long a thread has been at work, told to another thread. Knows nothing of graphs.

A thread that neither runs nor sleeps waits for a processor; it sleeps of its own accord, for a disk, another machine or
a lock, if the kernel has not taken the processor from it meanwhile.
"""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Final

#: A thread that waits for a processor loses it at least once in so many seconds of waiting. With none to eight loops
#: beside it on two processors it was once in 0.2 to 80 ms; a thread that sleeps, once in 200 ms or never (2026-11).
TAKEN_EVERY: Final = 0.1


def preempted(native: int) -> int | None:
    """Return how often a thread, by its number in the kernel, has lost its processor to others; None if not known."""
    try:
        with open(f"/proc/self/task/{native}/status", "rb") as status:
            return int(status.read().rsplit(b"nonvoluntary_ctxt_switches:", 1)[1])
    except (OSError, IndexError, ValueError):
        return None


def ran(native: int) -> float:
    """Return for how many seconds a thread, by its number in the kernel, has run. Linux. OSError if it has ended."""
    # As `time.pthread_getcpuclockid` computes it, which must not be called for a thread that may have ended.
    return time.clock_gettime(~native << 3 | 6)


def idle() -> float:
    """Return for how many seconds our processors had nothing to do, in ticks of mostly 10 ms; 0 if not known."""
    try:
        with open("/proc/stat", "rb") as stat:
            lines = stat.read().split(b"cpu")[2:]
        ours = os.sched_getaffinity(0)
        fields = [line.split() for line in lines]
        return sum(int(field[4]) for field in fields if int(field[0]) in ours) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        return 0.0


class ThreadClock:
    """How long the thread that makes it has worked since: the time it ran, and the time it slept of its own accord.

    Where the kernel does not say how often a thread has lost its processor, an eighth of the time that it did not run
    counts: it may have slept, and then others could have worked, or waited for a processor, and then they could not.
    """

    __slots__ = ("_began", "_lost", "_native", "_ran", "_run")

    def __init__(self) -> None:
        self._run = _processor_time()
        self._began = perf_counter()
        self._ran = self._run()
        self._native = threading.get_native_id()
        self._lost: int | None = None

    def worked(self) -> float:
        """Return for how long it has worked so far, in seconds. Raises OSError if the thread has ended."""
        run = self._run() - self._ran
        waited = max(perf_counter() - self._began - run, 0.0)
        return run + (waited if waited > run and self._slept(waited) else waited / 8)

    def _slept(self, waited: float) -> bool:
        lost = preempted(self._native)
        if lost is None:
            return False
        if self._lost is None:
            # Not when the clock is made: most walks are over before anybody asks.
            self._lost = lost
            return False
        return (lost - self._lost) * TAKEN_EVERY < waited


def _processor_time() -> Callable[[], float]:
    """Return a clock that tells any thread how many seconds this one has run; where there is none, the time."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return perf_counter
    return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))
