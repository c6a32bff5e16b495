"""For how long a thread has been at work, told to another thread. Knows nothing of graphs.

A thread that neither runs nor sleeps waits for a processor; it sleeps of its own accord, for a disk or another machine,
if the kernel has not taken the processor from it meanwhile.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from time import perf_counter

#: A thread that waits for a processor loses it at least once in so many seconds of waiting. With none to eight loops
#: beside it on two processors it was once in 0.2 to 80 ms; a thread that sleeps, once in 200 ms or never (2026-11).
_TAKEN_EVERY = 0.1


class ThreadClock:
    """How long the thread that makes it has worked since: the time it ran, and the time it slept of its own accord.

    Where the kernel does not say how often a thread has lost its processor, an eighth of the time that it did not run
    counts: it may have slept, and then others could have worked, or waited for a processor, and then they could not.
    """

    __slots__ = ("_began", "_lost", "_ran", "_run", "_status")

    def __init__(self) -> None:
        self._run = _processor_time()
        self._began = perf_counter()
        self._ran = self._run()
        self._status = f"/proc/self/task/{threading.get_native_id()}/status"
        self._lost: int | None = None

    def worked(self) -> float:
        """Return for how long it has worked so far, in seconds. Raises OSError if the thread has ended."""
        ran = self._run() - self._ran
        waited = max(perf_counter() - self._began - ran, 0.0)
        return ran + (waited if waited > ran and self._slept(waited) else waited / 8)

    def _slept(self, waited: float) -> bool:
        try:
            with open(self._status, "rb") as status:
                # The last line counts how often others were given its processor.
                lost = int(status.read().rsplit(b"nonvoluntary_ctxt_switches:", 1)[1])
        except (OSError, IndexError, ValueError):
            return False
        if self._lost is None:
            # Not when the clock is made: most walks are over before anybody asks.
            self._lost = lost
            return False
        return (lost - self._lost) * _TAKEN_EVERY < waited


def _processor_time() -> Callable[[], float]:
    """Return a clock that tells any thread how many seconds this one has run; where there is none, the time."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return perf_counter
    return partial(time.clock_gettime, time.pthread_getcpuclockid(threading.get_ident()))
