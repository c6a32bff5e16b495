"""Memory that tasks say they need: who may begin, so that there is enough for those at work. Nobody measures it.

A party is whoever has tasks to begin: a job, the threads that run calls, the processes that do. It asks when a worker
is at hand, so that nothing is kept for a task that no worker has, and no worker waits with a task that may not begin.

First come, first served: whoever was refused stands in line, and others are let in only where there is room for him,
too, unless he has no worker just now. What a task computes, submits or waits for inside of itself is part of it, and
neither asks nor counts: so nobody who has memory waits for memory.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from threading import Lock
from typing import Protocol

from wukong.storage.memory import memory_here

_within: ContextVar[bool] = ContextVar("within", default=False)


class Party(Protocol):
    """Somebody who has tasks to begin."""

    def stands(self) -> bool:
        """Whether a worker is at hand that would begin its next one. Asked with any lock held, so it takes none."""

    def look_again(self) -> None:
        """Note that memory was given back. No lock is held."""


class Admission:
    """The books of what tasks at work need.

    Parameters
    ----------
    limit : int, optional
        Bytes for all of them; what this process may use, if None.

    Attributes
    ----------
    held : int
        Bytes that those at work need.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.held = 0
        self._limit = limit
        self._lock = Lock()
        self._line: dict[Party, int] = {}

    @property
    def limit(self) -> int:
        """Bytes for all of them."""
        if self._limit is None:
            self._limit = memory_here()
        return self._limit

    def fits(self, who: Party, need: int) -> bool:
        """Whether a task may begin; if not, who asks stands in line from now on."""
        with self._lock:
            return self._fits(who, need)

    def admit(self, who: Party, need: int) -> bool:
        """Let a task begin, if it may; `give_back` has to be called when it has ended, however it did."""
        with self._lock:
            if not self._fits(who, need):
                return False
            self.held += need
            self._line.pop(who, None)
            return True

    def urges(self, who: Party) -> bool:
        """Whether others wait for one who stands in line, and nobody else is at work: he has to begin now."""
        return not self.held and who in self._line

    def give_back(self, need: int) -> None:
        """Note that a task has ended. No lock may be held."""
        with self._lock:
            self.held -= need
        self._call()

    def leave(self, who: Party) -> None:
        """Note that somebody has nothing to begin any more. No lock may be held."""
        with self._lock:
            stood = self._line.pop(who, None)
        if stood is not None:
            self._call()

    def _fits(self, who: Party, need: int) -> bool:
        wanted = self.held + need
        for other, its in self._line.items():
            if other is who:
                break
            if other.stands():
                wanted += its
        if wanted > self.limit:
            self._line[who] = need
            return False
        return True

    def _call(self) -> None:
        with self._lock:
            line = list(self._line)
        for party in line:
            party.look_again()


def within() -> bool:
    """Whether this is inside of a task that has memory already."""
    return _within.get()


@contextmanager
def having() -> Iterator[None]:
    """Be inside of a task that has memory."""
    token = _within.set(True)
    try:
        yield
    finally:
        _within.reset(token)


def context_of(need: int) -> Context:
    """Return the present context, for a task that needs so much memory."""
    context = copy_context()
    if need:
        context.run(_within.set, True)
    return context


#: Of graphs that are computed without a client, and of clients without a limit: the memory of the machine is one.
machine = Admission()


def _forget() -> None:
    global machine
    machine = Admission()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
