"""What is sent to a worker once and named from then on: functions, surroundings. Not values, which the arena keeps.

Both ends keep the same books without a word between them: each thing sent is entered, and the oldest go when there is
too much. Messages arrive in order, so the sender knows what the receiver has.
"""

from typing import Any, Final, NamedTuple

#: Bytes of frames that a worker keeps; one that is larger is kept until the next comes.
MOST: Final = 64 << 20


class Parcel(NamedTuple):
    """A thing by the digest of its frame; without its frame where the receiver has it."""

    digest: bytes
    frame: bytes


class Known:
    """One end's books."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._nbytes = 0
        self._kept: dict[bytes, tuple[int, Any]] = {}

    def send(self, parcel: Parcel) -> Parcel:
        """Return what to send, at the sender's end; it has to be sent."""
        if parcel.digest in self._kept:
            return Parcel(parcel.digest, b"")
        self._enter(parcel, None)
        return parcel

    def receive(self, parcel: Parcel) -> bytes:
        """Return the frame, at the receiver's end."""
        if parcel.frame:
            self._enter(parcel, parcel.frame)
            return parcel.frame
        frame: bytes = self._kept[parcel.digest][1]
        return frame

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._kept

    def _enter(self, parcel: Parcel, frame: bytes | None) -> None:
        self._kept[parcel.digest] = len(parcel.frame), frame
        self._nbytes += len(parcel.frame)
        while self._nbytes > self._most and len(self._kept) > 1:
            nbytes, _ = self._kept.pop(next(iter(self._kept)))
            self._nbytes -= nbytes
