"""How much memory a server has left for values, as it said last. The last tenth is kept for the records of jobs.

A server that is full refuses records as well, and without those no job comes to an end. So values have to stop before.
"""

from time import monotonic
from typing import Final

#: Share of its memory that values may fill.
SHARE: Final = 0.9
#: Seconds for which what a server said is good enough.
_FRESH: Final = 1.0
#: Part of what was left, after which that is not good enough any more.
_PART: Final = 1 / 64


class Room:
    """The memory of one server.

    Attributes
    ----------
    used, limit : int
        Bytes, as far as is known; no limit is 0.
    evicts : str
        What the server removes to make room, as its ``maxmemory-policy`` says; empty if it refuses to take more.
    """

    def __init__(self, info: bytes) -> None:
        self.note(info)

    def note(self, info: bytes) -> None:
        """Take in what the server answers to ``INFO memory``; what it does not say is 0."""
        figures = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
        self.used, self.limit = (int(figures.get(name, 0)) for name in (b"used_memory", b"maxmemory"))
        policy = figures.get(b"maxmemory_policy", b"noeviction").decode()
        self.evicts = policy if self.limit and policy != "noeviction" else ""
        self._when, self._then = monotonic(), self.used

    @property
    def old(self) -> bool:
        """Whether it is time to ask again: others may have put as much since as this process has."""
        left = SHARE * self.limit - self._then
        return monotonic() - self._when > _FRESH or (self.limit > 0 and self.used - self._then > left * _PART)

    def fits(self, nbytes: int) -> bool:
        """Whether so many bytes more leave enough for records."""
        return not self.limit or self.used + nbytes <= SHARE * self.limit
