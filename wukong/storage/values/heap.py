"""Values in the memory of this process: nothing is copied but what has to become one buffer."""

from collections.abc import Sequence
from threading import Lock

from wukong.storage.counters import Counters
from wukong.storage.resp import Buffer
from wukong.storage.values.base import Frame, size_of


class HeapValueStore:
    """A value store in this process, for executors that share its memory."""

    def __init__(self) -> None:
        self._values: dict[str, Buffer] = {}
        self._lock = Lock()
        self._tally = [0, 0, 0]

    @property
    def counters(self) -> Counters:
        """See `ValueStore`; a round trip is one call."""
        return Counters(*self._tally)

    def put(self, name: str, frame: Frame) -> None:
        """See `ValueStore`."""
        value: Buffer = frame if isinstance(frame, bytes | bytearray | memoryview) else b"".join(frame)
        with self._lock:
            self._values[name] = value
            self._count(sent=size_of(value))

    def get(self, names: Sequence[str]) -> list[Buffer | None]:
        """See `ValueStore`."""
        with self._lock:
            values = [self._values.get(name) for name in names]
            self._count(received=sum(size_of(value) for value in values if value is not None))
        return values

    def delete(self, names: Sequence[str]) -> None:
        """See `ValueStore`."""
        with self._lock:
            for name in names:
                self._values.pop(name, None)
            self._count()

    def clear(self) -> None:
        """See `ValueStore`."""
        with self._lock:
            self._values.clear()
            self._count()

    def close(self) -> None:
        """See `ValueStore`."""

    def _count(self, sent: int = 0, received: int = 0) -> None:
        self._tally[0] += 1
        self._tally[1] += sent
        self._tally[2] += received
