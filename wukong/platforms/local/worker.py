"""A worker: a forked process that does what the client pushes to it, one thing after the other. Not what that is.

    client -- (op, *args) --> worker                  the op runs, and what it returns goes back:
    client <-- ("returned", *reply) -- worker
    client <-- ("ask", op, args) -- worker            meanwhile it may ask, and wait for the answer,
    client -- ("answer", reply) --> worker
    client <-- ("tell", op, args) -- worker           or tell, and not wait; all of it arrives in order

An op that raises is a fault of this program and ends the worker; what tasks raise, ops send back like a result.
"""

import os
import random
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wukong.platforms.local import output
from wukong.platforms.local.known import Known
from wukong.platforms.local.surroundings import applied
from wukong.storage.channel import Channel

if TYPE_CHECKING:
    from wukong.storage.holder import Holder

#: What may be pushed: for each op the function `f(worker, fds, *args) -> reply | (reply, fds)`, a reply being a tuple,
#: which is imported when it is first needed.
OPS: Final = {
    "calls": "wukong.platforms.local.called:run",
    "enter": "wukong.scheduler.remote:enter",
    "echo": "wukong.platforms.local.worker:echo",
}

Op: TypeAlias = Callable[..., tuple[tuple[Any, ...], Sequence[int]]]

#: The worker that this process is; None everywhere else, in what a worker has forked, too.
current: "Worker | None" = None


class Worker:
    """This process, to the ops that run in it.

    Parameters
    ----------
    channel : Channel
        To the client.
    tickets : int
        Descriptor of a semaphore that client and worker share; see `called`.

    Attributes
    ----------
    known : Known
        What it was sent and still has.
    """

    def __init__(self, channel: Channel, tickets: int) -> None:
        self.tickets = tickets
        self.known = Known()
        self._channel = channel
        self._asking = Lock()
        self._pushed: deque[tuple[Any, list[int]]] = deque()
        self._ops: dict[str, Op] = {}
        self._arena: Holder | None = None
        self._at_work = False

    @property
    def arena(self) -> "Holder":
        """The arena as this worker sees it."""
        if self._arena is None:
            from wukong.storage.holder import Holder

            self._arena = Holder(self.ask, self.tell)
        return self._arena

    def ask(self, op: str, *args: Any, fds: Sequence[int] = ()) -> tuple[Any, list[int]]:
        """Ask the client and wait for the answer; the descriptors that come with it are the caller's.

        For the thread that runs ops. Raises what the handler in the client raised.
        """
        with self._asking:
            self._channel.send(("ask", op, args), fds)
            while True:
                (kind, *answer), received = self._channel.receive()
                if kind == "answer":
                    return answer[0], received
                if kind == "raised":
                    raise answer[0]
                self._pushed.append(((kind, *answer), received))

    def tell(self, op: str, *args: Any, fds: Sequence[int] = ()) -> None:
        """Tell the client, from any thread."""
        self._channel.send(("tell", op, args), fds)

    def surround(self, digest: bytes, frame: bytes) -> None:
        """Make what code finds around it what it was in the client, which sent the surroundings by `Known.send`.

        Raises
        ------
        OSError
            If the client's working directory is not there.
        """
        applied.apply(digest, self.known.receive(digest, frame))

    def serve(self) -> None:
        """Do what is pushed until the client closes its end."""
        while True:
            try:
                message, fds = self._pushed.popleft() if self._pushed else self._channel.receive()
            except EOFError:
                return
            self._at_work = True
            reply, fds_back = self._op(message[0])(self, fds, *message[1:])
            self._at_work = False
            if self._arena is not None:
                self._arena.flush()
            self._channel.send(("returned", *reply), fds_back)
            # A large value must not live on in a worker that has nothing to do.
            del message, reply

    def interrupted(self, *_: object) -> None:
        """Take an interrupt as Python does, but only while a task may run: elsewhere it could lose a message."""
        if self._at_work and not self._asking.locked():
            raise KeyboardInterrupt

    def forget(self) -> None:
        """Close what a process forked by a task must not hold."""
        self._channel.close()
        os.close(self.tickets)

    def _op(self, name: str) -> Op:
        op = self._ops.get(name)
        if op is None:
            module, _, function = OPS[name].partition(":")
            op = self._ops[name] = getattr(import_module(module), function)
        return op


def main(fd: int, tickets: int) -> None:
    """Be a worker, in a process just forked from the keeper, until the client closes its end."""
    global current
    current = Worker(Channel(socket.socket(fileno=fd)), tickets)
    signal.signal(signal.SIGINT, current.interrupted)
    os.register_at_fork(after_in_child=_not_a_worker)
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    output.begin(current.tell)
    current.serve()


def echo(_: Worker, fds: Sequence[int], *args: Any) -> tuple[tuple[Any, ...], Sequence[int]]:
    """Send back what was sent."""
    return args, fds


def _not_a_worker() -> None:
    global current
    if current is not None:
        output.end()
        current.forget()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        current = None
