"""What every value store does. A store belongs to one job; names are unique within it and values never change."""

from collections.abc import Sequence
from typing import Protocol

from wukong.storage.counters import Counters
from wukong.storage.resp import Argument, Buffer

#: A value ready to be stored: one buffer, or several that belong one after the other and are not copied together.
Frame = Argument


class ValueStore(Protocol):
    """The values of one job. Safe to use from any thread."""

    @property
    def counters(self) -> Counters:
        """Round trips, and bytes of values sent and received."""

    def put(self, name: str, frame: Frame) -> None:
        """Keep `frame` under `name`. The same name again is the same value again.

        Raises
        ------
        ValueTooLarge
            If the store cannot take it.
        StoreUnavailable
            If no answer came.
        """

    def get(self, names: Sequence[str]) -> list[Buffer | None]:
        """Return the values in the order of `names`, None for those that are not there."""

    def delete(self, names: Sequence[str]) -> None:
        """Forget values; those that are not there already are no error."""

    def clear(self) -> None:
        """Forget every value of the job."""

    def close(self) -> None:
        """Let go of connections. Values stay."""


def size_of(frame: Frame) -> int:
    """Return the bytes of a frame."""
    buffers = (frame,) if isinstance(frame, bytes | bytearray | memoryview) else frame
    return sum(memoryview(buffer).nbytes for buffer in buffers)
