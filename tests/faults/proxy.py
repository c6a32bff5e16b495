"""A TCP proxy that does harm: it cuts, delays, half-closes and swallows what passes, where a seed or a test says.

Not a model of a network: the ends are real sockets, and what they see of a fault is what they would see of a real one.
"""

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

CUT: Final = "cut"  # both ends are reset, at once
AFTER: Final = "cut after"  # the request is passed on, and both ends are reset before the answer comes
HALF: Final = "half-close"  # nothing more is sent this way, the other way stays open
DELAY: Final = "delay"  # the bytes come later
PART: Final = "part"  # some of the bytes are passed on, then both ends are reset
EVERY: Final = (CUT, AFTER, HALF, DELAY, PART)

#: Says what becomes of a chunk of bytes on its way to the server, or back: one of the above, or None.
Harm = Callable[[bool, bytes], str | None]


class Proxy:
    """A proxy before one server on loopback.

    Parameters
    ----------
    port : int
        Of the server.
    harm : callable
        Asked for each chunk, one at a time.
    delay : float
        Seconds of a delay.
    """

    def __init__(self, port: int, harm: Harm, delay: float = 0.2) -> None:
        self.harm: Harm = harm
        self.done: dict[str, int] = {}
        self._to = port
        self._delay = delay
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._listen)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that accepts is not woken by `close` alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()
        for thread in self._threads:
            thread.join(20.0)
            assert not thread.is_alive()

    def cut_all(self) -> None:
        """Reset every connection."""
        with self._lock:
            sockets = list(self._sockets)
        for each in sockets:
            _reset(each)

    def _start(self, what: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=what, args=args, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to), 5.0)
                server.settimeout(None)
            except OSError:
                _reset(client)
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            self._start(self._pass, client, server, True)
            self._start(self._pass, server, client, False)

    def _pass(self, source: socket.socket, target: socket.socket, there: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    what = self.harm(there, data)
                    if what is not None:
                        self.done[what] = self.done.get(what, 0) + 1
                if what == DELAY:
                    time.sleep(self._delay)
                elif what == PART:
                    target.sendall(data[: len(data) // 2])
                elif what == AFTER and there:
                    target.sendall(data)
                    time.sleep(0.005)
                if what in (CUT, AFTER, PART):
                    break
                if what == HALF:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
        for each in (source, target):
            _reset(each)
        with self._lock:
            self._sockets -= {source, target}


def at_random(seed: int, one_in: int, kinds: tuple[str, ...] = EVERY) -> Harm:
    """Return a harm that strikes one chunk in so many."""
    dice = random.Random(seed)
    return lambda *_: dice.choice(kinds) if dice.randrange(one_in) == 0 else None


def at_chunk(number: int, kind: str) -> Harm:
    """Return a harm that strikes one chunk on its way to the server, the first being 0, and no other."""
    seen = iter(range(1 << 62))
    return lambda there, _: kind if there and next(seen) == number else None


def none(*_: object) -> None:
    """Do no harm."""


@contextlib.contextmanager
def before(url: str, harm: Harm, delay: float = 0.2) -> Iterator[tuple[Proxy, str]]:
    """Put a proxy before the server at ``redis://host:port``; give it, and the URL that leads through it."""
    with Proxy(int(url.rpartition(":")[2]), harm, delay) as proxy:
        yield proxy, f"redis://127.0.0.1:{proxy.port}"


def _reset(each: socket.socket) -> None:
    """Close so that the other end sees a reset, and whoever reads here is woken."""
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.shutdown(socket.SHUT_RDWR)
    each.close()
