"""A link to a store: connections for every thread, one node or many, and what happens when one breaks.

    call(key, ...) -> the node that has key's slot -> this thread's connection to it

A cluster is learnt from its own answers: a request goes to any node, which says ``MOVED slot host:port`` if another has
the key, and that is remembered. A request whose answer was lost is sent once more over a new connection; that is safe
for the stores here, whose requests carry a nonce and a sequence number or may be repeated.
"""

import hashlib
import os
import threading
import time
import weakref
from binascii import crc_hqx
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

from wukong.errors import StoreError, StoreUnavailable
from wukong.storage.address import Address
from wukong.storage.counters import Counters
from wukong.storage.resp import Argument, Buffer, Connection, ReplyError, command

Node = tuple[str, int]

_ATTEMPTS = 8  # redirections and waits of one request to a cluster: about 3 s while a slot is nobody's


class Script:
    """A Lua script, known to servers by its digest."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.digest = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()


def slot_of(key: bytes) -> int:
    """Return the cluster slot of `key`: what is between its first braces decides, if anything is."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1)
    if start >= 0 and end > start + 1:
        key = key[start + 1 : end]
    return crc_hqx(key, 0) % 16384


class _Thread(threading.local):
    """What one thread has of a link: connections by node, and what they have carried."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.connections: dict[Node, Connection] = {}
        self.tally = [0, 0, 0]


class Link:
    """Requests to a server or cluster, from any thread, also of a forked child.

    Parameters
    ----------
    address : Address
        Where.
    timeout : float
        Seconds a server may take to answer.
    """

    def __init__(self, address: Address, timeout: float = 10.0) -> None:
        self.address = address
        self._timeout = timeout
        self._nodes = list(address.nodes)
        self._slots: dict[int, Node] = {}
        self._thread = _Thread()
        #: Of the link and of this view of it, by thread; a new thread goes on with that of one which had its number.
        self._tallies: tuple[dict[int, list[int]], ...] = ({},)
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()

    @property
    def counters(self) -> Counters:
        """What all threads have sent and received; of a view, through this view."""
        return Counters(*map(sum, zip((0, 0, 0), *list(self._tallies[-1].values()), strict=True)))

    def view(self) -> Self:
        """Return the same link with counters of its own, which begin at zero."""
        view = copy(self)
        view._tallies = (*self._tallies, {})
        return view

    def call(self, key: bytes, *arguments: Argument, patience: float = 0.0) -> Any:
        """Send one command whose keys all have the slot of `key`, and return its reply.

        Parameters
        ----------
        key : bytes
            Decides the node.
        *arguments : bytes-like, or several to be sent as one
            The command's name and arguments.
        patience : float
            Seconds the command itself may block.

        Raises
        ------
        StoreUnavailable
            If no answer came.
        StoreError
            If the answer is an error.
        """
        return self._exchange(key, (command(*arguments),), patience)

    def pipeline(self, key: bytes, *commands: tuple[Argument, ...]) -> Any:
        """Send several such commands at once; return the reply to the last."""
        return self._exchange(key, [command(*arguments) for arguments in commands], 0.0)

    def evaluate(self, script: Script, keys: tuple[bytes, ...], *arguments: Argument) -> Any:
        """Run `script`, which the server is sent only if it does not know it."""
        rest = (b"%d" % len(keys), *keys, *arguments)
        try:
            return self.call(keys[0], b"EVALSHA", script.digest, *rest)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return self.call(keys[0], b"EVAL", script.source, *rest)

    def close(self) -> None:
        """Close the connections of all threads; a later request opens new ones."""
        for connection in list(self._open):
            connection.close()
        self._thread.connections.clear()

    def _exchange(self, key: bytes, commands: Sequence[list[Buffer]], patience: float) -> Any:
        del key
        return self._ask(self.address.nodes[0], commands, patience)

    def _ask(self, node: Node, commands: Sequence[list[Buffer]], patience: float) -> Any:
        """Exchange with one node, over a new connection if the old one turns out to be dead."""
        thread = self._thread
        if thread.process != os.getpid():
            thread.connections, thread.process = {}, os.getpid()
        for again in (True, False):
            connection = thread.connections.get(node)
            if connection is None:
                connection = Connection(self.address, node, self._timeout, thread.tally)
                thread.connections[node] = connection
                self._open.add(connection)
            before = tuple(thread.tally)
            try:
                return connection.call(*commands, patience=patience)
            except ReplyError as error:
                if error.code != "OOM":
                    raise
                raise StoreError(
                    f"the store {self.address} is full: {error} Give it more memory, or make fewer or smaller values"
                ) from error
            except BaseException as error:
                thread.connections.pop(node, None)
                connection.close()
                if not isinstance(error, OSError):
                    raise
                if isinstance(error, TimeoutError) or not again:
                    raise StoreUnavailable(f"the store {self.address} gave no answer: {error}") from error
            finally:
                self._count(before)
        raise AssertionError("unreachable")

    def _count(self, before: tuple[int, ...]) -> None:
        """Add what this thread's connections have carried since."""
        for tallies in self._tallies:
            tally = tallies.setdefault(threading.get_ident(), [0, 0, 0])
            for i, (was, now) in enumerate(zip(before, self._thread.tally, strict=True)):
                tally[i] += now - was


class ClusterLink(Link):
    """The same to a cluster, of which `address` names some nodes."""

    def __init__(self, address: Address, timeout: float = 10.0) -> None:
        super().__init__(address, timeout)
        self._nodes = list(address.nodes)
        self._slots: dict[int, Node] = {}

    def _exchange(self, key: bytes, commands: Sequence[list[Buffer]], patience: float) -> Any:
        slot = slot_of(key)
        node = self._slots.get(slot, self._nodes[0])
        asking: tuple[list[Buffer], ...] = ()
        reason: Exception | None = None
        for attempt in range(_ATTEMPTS):
            try:
                return self._ask(node, (*asking, *commands), patience)
            except ReplyError as error:
                asking, reason = (), error
                if error.code in ("MOVED", "ASK"):
                    node = self._named(str(error).split()[2], node)
                    if error.code == "MOVED":
                        self._slots[slot] = node
                    else:
                        asking = (command(b"ASKING"),)
                elif error.code in ("TRYAGAIN", "CLUSTERDOWN", "LOADING"):
                    time.sleep(0.025 * 2**attempt)
                else:
                    raise
            except StoreUnavailable as error:
                # Another node may know who has the slot now.
                asking, reason = (), error
                self._slots.pop(slot, None)
                others = [known for known in self._nodes if known != node]
                if not others:
                    raise
                node = others[attempt % len(others)]
        raise StoreUnavailable(f"the cluster {self.address} did not settle on a node for slot {slot}") from reason

    def _named(self, text: str, sender: Node) -> Node:
        host, _, port = text.rpartition(":")
        node = (host or sender[0], int(port))  # no host: the same as the sender's
        if node not in self._nodes:
            self._nodes.append(node)
        return node
