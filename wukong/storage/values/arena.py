"""Values in the arena, for the client and for its workers. Within one machine; nothing is copied on read."""

from collections.abc import Sequence
from threading import Lock
from typing import Protocol

from wukong.storage.counters import Counters
from wukong.storage.resp import Buffer
from wukong.storage.values.base import Frame, size_of


class Side(Protocol):
    """The arena as one process sees it: `arena.Arena` in the client, `holder.Holder` in a worker."""

    def put(self, job: str, name: str, frame: Frame) -> None:
        """Keep a frame under a name."""

    def get(self, job: str, names: Sequence[str]) -> list[Buffer | None]:
        """Open frames by name."""

    def delete(self, job: str, names: Sequence[str]) -> None:
        """Forget frames."""

    def clear(self, job: str) -> None:
        """Forget every frame of a job."""


class ArenaValueStore:
    """The values of one job in an arena.

    Parameters
    ----------
    side : Side
    job : str
    """

    def __init__(self, side: Side, job: str) -> None:
        self._side = side
        self._job = job
        self._tally = [0, 0, 0]
        self._lock = Lock()

    @property
    def counters(self) -> Counters:
        """See `ValueStore`; a round trip is one call."""
        return Counters(*self._tally)

    def put(self, name: str, frame: Frame) -> None:
        """See `ValueStore`.

        Raises
        ------
        MemoryLimitReached
            If there is room neither in memory nor on disk. Of a worker's small value, whoever gets it is told instead.
        """
        self._side.put(self._job, name, frame)
        self._count(sent=size_of(frame))

    def get(self, names: Sequence[str]) -> list[Buffer | None]:
        """See `ValueStore`. Large values are writable views of shared memory; what is written is private."""
        frames = self._side.get(self._job, names)
        self._count(received=sum(size_of(frame) for frame in frames if frame is not None))
        return frames

    def delete(self, names: Sequence[str]) -> None:
        """See `ValueStore`."""
        self._side.delete(self._job, names)
        self._count()

    def clear(self) -> None:
        """See `ValueStore`."""
        self._side.clear(self._job)
        self._count()

    def close(self) -> None:
        """See `ValueStore`; the arena is not this store's."""

    def _count(self, sent: int = 0, received: int = 0) -> None:
        with self._lock:
            self._tally[0] += 1
            self._tally[1] += sent
            self._tally[2] += received
