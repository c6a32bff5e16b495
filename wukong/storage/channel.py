"""Messages between two processes of one machine, with the descriptors that belong to them. Not what they say.

A Unix `SEQPACKET` socket, one of a pair that was passed on: there is no path and no port. One message is one packet, a
pickle; what is too long for a packet travels as a descriptor of memory, and descriptors beyond what a packet can carry
go ahead in packets of their own.
"""

import os
import pickle
import socket
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock
from typing import Any, Final

#: Bytes of a packet; two fit into the buffer of a socket as Linux gives it to everybody.
PACKET: Final = 96 * 1024
#: Descriptors that the kernel lets one packet carry.
DESCRIPTORS: Final = 253

# A pickle begins with 0x80.
_AHEAD: Final = b"d"
_LONG: Final = b"m"

_CLOSE_ON_EXEC: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
# As a plain number: what `enum` makes of it is slow.
_LOST: Final = int(socket.MSG_CTRUNC)
_INT: Final = array("i").itemsize
_ROOM: Final = socket.CMSG_SPACE(DESCRIPTORS * _INT) if hasattr(socket, "CMSG_SPACE") else 0


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a new connection; neither is inherited by programs this process starts."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end.

    Any thread may send. If the socket does not block, what it will not take at once waits here, in order, for `flush`.

    Parameters
    ----------
    sock : socket
        One of a `pair`; the channel's from now on.

    Attributes
    ----------
    unsent : deque
        Packets that wait.
    """

    __slots__ = ("_came_ahead", "_sending", "_socket", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = Lock()
        self._came_ahead: list[int] = []
        self.unsent: deque[tuple[bytes, list[int]]] = deque()

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed."""
        return self._socket.fileno()

    def send(self, message: tuple[Any, ...], fds: Sequence[int] = ()) -> None:
        """Send a message.

        Parameters
        ----------
        message : tuple
            Anything that `pickle` takes.
        fds : sequence of int
            Descriptors that go with it. They stay the caller's.

        Raises
        ------
        OSError
            If nobody will ever receive it.
        Exception
            Whatever pickling raises; nothing was sent then.
        """
        data = pickle.dumps(message, 5)
        if len(data) <= PACKET and not fds and not self.unsent:
            with self._sending, suppress(BlockingIOError):
                # Another thread may have had to leave something.
                if not self.unsent:
                    self._socket.send(data)
                    return
        self._send_packets(data, list(fds))

    def _send_packets(self, data: bytes, fds: list[int]) -> None:
        memory = -1
        if len(data) > PACKET:
            memory = _memory(data)
            data, fds = _LONG + str(len(data)).encode(), [memory, *fds]
        try:
            *ahead, last = [fds[i : i + DESCRIPTORS] for i in range(0, len(fds), DESCRIPTORS)] or [[]]
            with self._sending:
                for packet in (*((_AHEAD, some) for some in ahead), (data, last)):
                    if self.unsent or not self._try(*packet):
                        # The caller may close his at once.
                        self.unsent.append((packet[0], [os.dup(fd) for fd in packet[1]]))
        finally:
            if memory >= 0:
                os.close(memory)

    def _try(self, data: bytes, fds: list[int]) -> bool:
        try:
            if fds:
                self._socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))])
            else:
                self._socket.send(data)
        except BlockingIOError:
            return False
        return True

    def flush(self) -> bool:
        """Send what waits, as far as the socket takes it; return whether nothing waits any more.

        Raises
        ------
        OSError
            If nobody will ever receive it.
        """
        with self._sending:
            while self.unsent and self._try(*self.unsent[0]):
                _close(self.unsent.popleft()[1])
            return not self.unsent

    def receive(self) -> tuple[Any, list[int]]:
        """Return the next message and its descriptors, which are the caller's. One thread at a time may receive.

        Raises
        ------
        EOFError
            If the other end is closed, and everything it sent has been received.
        BlockingIOError
            If nothing is there and the socket does not block.
        """
        while (packet := self._packet())[0] == _AHEAD:
            self._came_ahead += packet[1]
        data, fds = packet
        if self._came_ahead:
            fds, self._came_ahead = [*self._came_ahead, *fds], []
        if data.startswith(_LONG):
            memory = fds.pop(0)
            try:
                data = _read(memory, int(data[1:]))
            finally:
                os.close(memory)
        return pickle.loads(data), fds

    def _packet(self) -> tuple[bytes, list[int]]:
        while True:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(PACKET, _ROOM, _CLOSE_ON_EXEC)
            except ConnectionResetError:
                # Said once, if the other end had not read everything; what it sent before comes after.
                continue
            break
        fds = array("i")
        for _, _, some in ancillary:
            fds.frombytes(some[: len(some) - len(some) % _INT])
        if flags & _LOST:
            _close(fds)
            raise OSError("descriptors were lost on their way: this process may open no more; raise `ulimit -n`")
        if not data:
            raise EOFError("the other end is closed")
        return data, fds.tolist()

    def close(self) -> None:
        """Close this end. May be called again."""
        self._socket.close()
        _close(self._came_ahead)
        self._came_ahead.clear()
        while self.unsent:
            _close(self.unsent.popleft()[1])


def _memory(data: bytes) -> int:
    fd = os.memfd_create("wukong-message", os.MFD_CLOEXEC)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def _read(fd: int, nbytes: int) -> bytes:
    parts, at = [], 0
    while at < nbytes:
        parts.append(os.pread(fd, nbytes - at, at))
        at += len(parts[-1])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
