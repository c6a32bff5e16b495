"""What is sent to a worker once and named from then on: functions, surroundings. Not values, which the arena keeps.

Both ends keep the same books without a word between them: each thing sent is entered, and the oldest go when there is
too much. Messages arrive in order, so the sender knows what the receiver has.
"""

from typing import Final, NamedTuple

#: Bytes of frames that a worker keeps; one that is larger is kept until the next comes.
MOST: Final = 64 << 20


class Parcel(NamedTuple):
    """A thing that may be sent, named by the digest of its frame."""

    digest: bytes
    frame: bytes


class Known:
    """One end's books."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._nbytes = 0
        self._kept: dict[bytes, tuple[int, bytes]] = {}

    def send(self, parcel: Parcel) -> tuple[bytes, bytes]:
        """Return what to send, at the sender's end: the digest, and the frame if it is needed. It has to be sent."""
        digest, frame = parcel
        if digest in self._kept:
            return digest, b""
        self._enter(digest, len(frame), b"")
        return digest, frame

    def receive(self, digest: bytes, frame: bytes) -> bytes:
        """Return the frame, at the receiver's end, of what was sent."""
        if frame:
            self._enter(digest, len(frame), frame)
            return frame
        return self._kept[digest][1]

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._kept

    def _enter(self, digest: bytes, nbytes: int, frame: bytes) -> None:
        self._kept[digest] = nbytes, frame
        self._nbytes += nbytes
        while self._nbytes > self._most and len(self._kept) > 1:
            self._nbytes -= self._kept.pop(next(iter(self._kept)))[0]
