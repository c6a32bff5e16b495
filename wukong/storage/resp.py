"""One connection to a Redis or Valkey that speaks RESP2: commands out, replies in. One thread at a time.

A client library of its own because the two things executors need most are what general clients are worst at: a small
script call at the cost of its system calls, and a large value received straight into the memory it will live in. (It
also spares every cold executor the import of one, 150 ms of redis-py.) It neither retries nor pools nor decodes.
"""

import socket
from collections.abc import Sequence
from typing import Any

from wukong.errors import StoreError, StoreUnavailable
from wukong.storage.address import Address

Buffer = bytes | bytearray | memoryview
#: One argument of a command: a buffer, or several that are sent as one.
Argument = Buffer | Sequence[Buffer]

_SMALL = 16384  # what is smaller is joined with its neighbours before it is sent
_RECEIVE = 65536
_SEND = 4 * 1024 * 1024


class ReplyError(StoreError):
    """The server answered with an error; its first word is the code."""

    @property
    def code(self) -> str:
        """Return the kind of error, such as ``NOSCRIPT``; of a transaction, of what it was discarded for."""
        code, _, rest = str(self).partition(" ")
        if code == "EXECABORT" and (why := rest.partition(": ")[2]):
            return why.partition(" ")[0]
        return code


def command(*arguments: Argument) -> list[Buffer]:
    """Return a command as buffers to send one after the other; large arguments are not copied."""
    parts: list[Buffer] = []
    small = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        if isinstance(argument, bytes) and len(argument) < _SMALL:
            small.append(b"$%d\r\n%b\r\n" % (len(argument), argument))
            continue
        buffers = [memoryview(b).cast("B") for b in (argument if isinstance(argument, list | tuple) else (argument,))]
        small.append(b"$%d\r\n" % sum(map(len, buffers)))
        for buffer in buffers:
            if len(buffer) < _SMALL:
                small.append(bytes(buffer))
            else:
                parts += (b"".join(small), buffer)
                small = []
        small.append(b"\r\n")
    parts.append(b"".join(small))
    return parts


class Connection:
    """A connection to one node, made by the constructor.

    Parameters
    ----------
    address : Address
        How to be let in.
    node : (str, int)
        Which node.
    timeout : float
        Seconds that connecting, and each wait for the server, may take.
    tally : list of int
        Where round trips, bytes sent and bytes received are counted.

    Raises
    ------
    StoreUnavailable
        If nobody answers or the credentials are refused.
    """

    def __init__(self, address: Address, node: tuple[str, int], timeout: float, tally: list[int]) -> None:
        self._tally = tally
        self._timeout = timeout
        self._data = b""
        self._at = 0
        try:
            self._socket = _connect(address, node, timeout)
        except OSError as error:
            raise StoreUnavailable(f"the store {address} cannot be reached: {error}. Is it running?") from error
        try:
            if address.password:
                user = (address.username.encode(),) if address.username else ()
                self.call(command(b"AUTH", *user, address.password.encode()))
            if address.db:
                self.call(command(b"SELECT", b"%d" % address.db))
        except ReplyError as error:
            self.close()
            raise StoreUnavailable(f"the store {address} refused the connection: {error}") from error
        except BaseException:
            self.close()
            raise

    def call(self, *commands: Sequence[Buffer], patience: float = 0.0) -> Any:
        """Send commands together and return the reply to the last; for a blocking one, wait `patience` seconds longer.

        After any error but `ReplyError` an answer may still be on its way: close the connection.

        Raises
        ------
        ReplyError
            If that is the answer to one of them.
        OSError
            If the connection is lost or too slow.
        """
        send = self._socket.sendall
        for parts in commands:
            for part in parts:
                # The time-out is for all that one call sends, so a large value is sent by several.
                for start in range(0, len(part), _SEND):
                    send(part[start : start + _SEND] if len(part) > _SEND else part)
                self._tally[1] += len(part)
        self._tally[0] += 1
        if patience:
            self._socket.settimeout(self._timeout + patience)
        replies = [self._read() for _ in commands]
        if patience:
            self._socket.settimeout(self._timeout)
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
        return replies[-1]

    def last_words(self) -> ReplyError | None:
        """Return the error that the server sent before it closed the connection, if it did."""
        try:
            self._socket.settimeout(0.0)
            said = self._read()
        except (OSError, ValueError):
            return None
        return said if isinstance(said, ReplyError) else None

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __del__(self) -> None:
        # Its thread has ended.
        if hasattr(self, "_socket"):
            self._socket.close()

    def _read(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self._bulk(int(rest))
        if kind == b"*":
            return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"-":
            return ReplyError(rest.decode(errors="replace"))
        raise ConnectionError(f"not a Redis server: it says {line[:40]!r}")

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            self._data = self._data[self._at :] + self._receive()
            self._at = 0
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    def _bulk(self, size: int) -> Buffer:
        start, end = self._at, self._at + size
        if len(self._data) >= end + 2:
            self._at = end + 2
            return self._data[start:end]
        # A large value goes from the socket to its place; as a bytearray, for whoever wants to change it there.
        value = bytearray(size)
        have = min(size, len(self._data) - start)
        value[:have] = self._data[start : start + have]
        rest = self._data[start + have :]
        self._data, self._at = b"", 0
        with memoryview(value) as view:
            while have < size:
                count = self._socket.recv_into(view[have:])
                if not count:
                    raise ConnectionError("the server closed the connection")
                have += count
                self._tally[2] += count
        while len(rest) < 2:
            rest += self._receive()
        self._data = rest[2:]
        return value

    def _receive(self) -> bytes:
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._tally[2] += len(data)
        return data


def _connect(address: Address, node: tuple[str, int], timeout: float) -> socket.socket:
    host, port = node
    if not port:
        plain = socket.socket(socket.AF_UNIX)
        try:
            plain.settimeout(timeout)
            plain.connect(host)
        except BaseException:
            plain.close()
            raise
        return plain
    plain = socket.create_connection((host, port), timeout)
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not address.tls:
            return plain
        import ssl  # only here: it takes longer than all of this package

        context = ssl.create_default_context(cafile=address.authorities)
        if not address.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise
