"""Whether threads at work wait for each other: two functions that hold the interpreter by turns make no nap late.

A function that reads many small files, say, lets go of the interpreter so often that whoever wants it has it at once,
and yet two of them take twice as long as one. What tells is that several threads, all at work on tasks of one kind, run
together no longer than one processor can, while another has nothing to do. Where none is idle nothing can be told, and
nothing would be gained by processes.
"""

import sys
import threading
from collections.abc import Hashable, Iterable, Mapping
from time import perf_counter
from typing import Final, NamedTuple

from wukong.platforms.local.clock import idle, ran

#: Threads that share one interpreter run for so much of the time, together. If they run less, they sleep as well.
_SHARED: Final = (0.85, 1.2)
#: Of the time that they do not run, so much must be found idle.
_IDLE: Final = 0.5
#: Seconds between two looks; the kernel counts idle time in ticks of 10 ms.
_LEAST: Final = 0.02


class _Mark(NamedTuple):
    """One look: the time, the kind at work, how long each of its threads has run, and how long processors were idle."""

    at: float
    kind: Hashable
    threads: dict[int, float]
    idle: float


class Contention:
    """What looks at the threads of one job tell of its kinds of tasks."""

    def __init__(self) -> None:
        self._before: _Mark | None = None

    def look(self, at_work: Mapping[int, Hashable]) -> Hashable | None:
        """Return the kind whose tasks have kept each other waiting since the last look, if any have.

        Parameters
        ----------
        at_work : mapping of int to hashable
            For each thread at work now, by its number, what stands for the functions that it runs.
        """
        before, kinds = self._before, set(at_work.values())
        if len(at_work) < 2 or len(kinds) > 1:
            self._before = None
            return None
        (kind,) = kinds
        if before is not None and before.kind == kind and perf_counter() - before.at < _LEAST:
            return None
        threads = _ran(at_work)
        now = self._before = _Mark(perf_counter(), kind, threads, idle()) if threads else None
        if now is None or before is None or before.kind != kind or before.threads.keys() != threads.keys():
            return None
        took = now.at - before.at
        together = sum(threads.values()) - sum(before.threads.values())
        waited = len(threads) * took - together
        if not _SHARED[0] * took <= together <= _SHARED[1] * took or now.idle - before.idle < _IDLE * waited:
            return None
        return kind


def _ran(idents: Iterable[int]) -> dict[int, float]:
    """Return for how long each thread has run; nothing where that is not known."""
    if not sys.platform.startswith("linux"):
        return {}
    natives = {thread.ident: thread.native_id for thread in threading.enumerate()}
    try:
        return {ident: ran(natives[ident] or 0) for ident in idents}
    except (KeyError, OSError):
        # One has ended meanwhile.
        return {}
