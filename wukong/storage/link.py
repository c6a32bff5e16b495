"""A link to a store: connections for every thread, one node or many, and what happens when one breaks.

    call(key, ...) -> the node that has key's slot -> this thread's connection to it

A cluster is learnt from its own answers: a request goes to any node, which says ``MOVED slot host:port`` if another has
the key, and that is remembered. A request whose answer was lost is sent again over a new connection; that is safe for
the stores here, whose requests carry a nonce and a sequence number or may be repeated. A store that has answered
before may be away for some seconds, while it is started again or another node takes its place; then requests wait.
"""

import hashlib
import os
import threading
import time
import weakref
from binascii import crc_hqx
from collections.abc import Sequence
from contextlib import suppress
from copy import copy
from itertools import count
from math import inf
from operator import sub
from time import monotonic
from typing import Any, Self

from wukong.errors import StoreError, StoreFull, StoreUnavailable
from wukong.storage.address import Address
from wukong.storage.counters import Counters
from wukong.storage.resp import Argument, Buffer, Connection, ReplyError, command
from wukong.storage.room import Room

Node = tuple[str, int]

_REDIRECTIONS = 8  # of one request to a cluster, before it waits
_LARGEST = 512 * 1024 * 1024
_PAUSE, _LONGEST_PAUSE = 0.01, 0.25  # seconds between two tries
#: Codes of errors that go away: a server starts, a cluster settles, a primary has become a replica.
_PASSING = frozenset(("LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "BUSY", "READONLY"))
_FIRST_TRIES = 4  # at a store that has never answered
_ELSEWHERE = frozenset(("MOVED", "ASK"))
_NO_ROOM = frozenset(("OOM", "MISCONF"))
_ON_THE_WAY = 2.0  # seconds after which what a server has on its way from and to clients takes no memory of it any more
_CROWDED = "max number of clients"


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


class _Known:
    """What all views of a link know of the store."""

    def __init__(self) -> None:
        self.answered = False
        self.largest: int | None = None
        self.generation = 0
        self.rooms: dict[Node, Room] = {}
        self.servers: dict[Node, bytes] = {}  # which one was there last: each start of a server has a name of its own
        self.lost: set[Node] = set()  # to which a connection was lost since
        self.given_up = -inf  # when a request last waited in vain; until some time later none waits again


class Link:
    """Requests to a server or cluster, from any thread, also of a forked child.

    Parameters
    ----------
    address : Address
        Where.
    timeout : float, optional
        Seconds a server may take to answer, if not what the address says.
    """

    def __init__(self, address: Address, timeout: float | None = None) -> None:
        self.address = address
        self._timeout = address.timeout if timeout is None else timeout
        self._known = _Known()
        self._thread = _Thread()
        #: Of the link and of this view of it, by thread; a new thread goes on with that of one which had its number.
        self._tallies: tuple[dict[int, list[int]], ...] = ({},)
        self._open: weakref.WeakSet[Connection] = weakref.WeakSet()

    @property
    def counters(self) -> Counters:
        """What all threads have sent and received; of a view, through this view."""
        return Counters(*map(sum, zip((0, 0, 0), *list(self._tallies[-1].values()), strict=True)))

    @property
    def largest(self) -> int:
        """Bytes of the largest argument that servers take; Redis' own default, if they do not say."""
        if self._known.largest is None:
            found: list[Any] = []
            with suppress(ReplyError):
                found = self.call(b"", b"CONFIG", b"GET", b"proto-max-bulk-len")
            self._known.largest = int(found[1]) if found else _LARGEST
        return self._known.largest

    @property
    def generation(self) -> int:
        """A number that changes when the store may have forgotten something: a server was started, or took over."""
        return self._known.generation

    def room(self, key: bytes) -> Room | None:
        """Return the memory of the node that has `key`, as far as that was heard of; None if it says nothing."""
        return self._known.rooms.get(self._node_of(key))

    @property
    def evicts(self) -> str:
        """What the store removes when it is full, by its ``maxmemory-policy``; empty if nothing, as far as is known."""
        return next((room.evicts for room in self._known.rooms.copy().values() if room.evicts), "")

    def expect(self) -> None:
        """Wait for the store from the first request on: somebody else has had an answer from it."""
        self._known.answered = True

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
            If no answer came while the store may be away.
        StoreFull
            If it has no room.
        StoreError
            If the answer is an error.
        """
        return self._exchange(key, (command(*arguments),), patience)

    def pipeline(self, key: bytes, *commands: tuple[Argument, ...]) -> Any:
        """Send several such commands at once; return the reply to the last."""
        return self._exchange(key, [command(*arguments) for arguments in commands], 0.0)

    def evaluate(self, script: Script, keys: tuple[bytes, ...], *arguments: Argument) -> Any:
        """Run `script`, which the server is sent only if it does not know it; if it is full, again for a while.

        A server that is full refuses a script before its first write. What it counts includes values on their way from
        and to others, which may be more than is kept free for records.
        """
        rest = (b"%d" % len(keys), *keys, *arguments)
        how, what = b"EVALSHA", script.digest
        deadline = monotonic() + _ON_THE_WAY
        while True:
            try:
                return self.call(keys[0], how, what, *rest)
            except ReplyError as error:
                if error.code != "NOSCRIPT":
                    raise
                how, what = b"EVAL", script.source
            except StoreFull:
                if monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def primaries(self) -> list[Node]:
        """Return the nodes that have keys of their own."""
        return [self.address.nodes[0]]

    def call_node(self, node: Node, *arguments: Argument) -> Any:
        """Send one command to a certain node, whatever keys it has; see `call`. Once: nobody waits for a node."""
        return self._ask(node, (command(*arguments),), 0.0)

    def close(self) -> None:
        """Close the connections of all threads; a later request opens new ones."""
        for connection in list(self._open):
            connection.close()
        self._thread.connections.clear()

    def _exchange(self, key: bytes, commands: Sequence[list[Buffer]], patience: float) -> Any:
        """Deliver commands; while the store is away, or not ready, again and again."""
        known, began, pause = self._known, monotonic(), _PAUSE
        patient = began > known.given_up + self.address.away
        for tries in count(1):
            try:
                answer = self._deliver(key, commands, patience)
            except (ReplyError, StoreUnavailable) as error:
                left = began + self.address.away - monotonic()
                if not self._passes(error, tries):
                    raise
                if not patient or left <= 0:
                    known.given_up = monotonic()
                    raise self._gone(error, commands, monotonic() - began) from error
            else:
                known.answered = True
                return answer
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("unreachable")

    def _deliver(self, key: bytes, commands: Sequence[list[Buffer]], patience: float) -> Any:
        """Send commands to the node that has `key`."""
        return self._ask(self._node_of(key), commands, patience)

    def _node_of(self, key: bytes) -> Node:
        """Return where to ask for `key` first."""
        del key
        return self.address.nodes[0]

    def _passes(self, error: StoreError, tries: int) -> bool:
        """Whether what stands in a request's way, after so many tries, may be over soon."""
        if isinstance(error, ReplyError):
            return error.code in _PASSING or _CROWDED in str(error)
        cause = error.__cause__
        refused = isinstance(cause, ReplyError) and cause.code not in _ELSEWHERE
        if refused or not self._may_return():
            return False
        return self._known.answered or (tries < _FIRST_TRIES and not isinstance(error.__cause__, TimeoutError))

    def _may_return(self) -> bool:
        host, port = self.address.nodes[0]
        return bool(port) or os.path.isdir(os.path.dirname(host))  # that of an embedded server goes with it

    def _gone(self, error: StoreError, commands: Sequence[list[Buffer]], seconds: float) -> StoreUnavailable:
        name = bytes(commands[-1][0]).split(b"\r\n", 3)[2].decode(errors="replace")
        if _CROWDED in str(error):
            error = StoreError(f"it takes no more connections ({error}); raise its `maxclients`, or use fewer workers")
        return StoreUnavailable(f"the store {self.address} gave no answer to {name} for {seconds:.1f} s: {error}")

    def _ask(self, node: Node, commands: Sequence[list[Buffer]], patience: float) -> Any:
        """Exchange with one node, over a new connection if the old one turns out to be dead."""
        thread = self._thread
        if thread.process != os.getpid():
            thread.connections, thread.process = {}, os.getpid()
        while True:
            connection = thread.connections.get(node)
            new = connection is None
            if connection is None:
                connection = Connection(self.address, node, self._timeout, thread.tally)
                thread.connections[node] = connection
                self._open.add(connection)
            before = tuple(thread.tally)
            try:
                if node not in self._known.servers or (new and node in self._known.lost):
                    self._meet(node, connection)
                    before = tuple(thread.tally)  # that was no request of anybody
                return connection.call(*commands, patience=patience)
            except ReplyError as error:
                if error.code in _NO_ROOM:
                    raise self._full(connection, error) from error
                if error.code == "READONLY" or _CROWDED in str(error):
                    self._drop(node, connection)
                raise
            except BaseException as error:
                if not isinstance(error, OSError):
                    self._drop(node, connection)
                    raise
                said = connection.last_words() if new else None
                self._drop(node, connection)
                if said is not None:
                    raise said from error
                if isinstance(error, TimeoutError) or new:
                    raise StoreUnavailable(f"the store {self.address} gave no answer: {error}") from error
            finally:
                self._count(before)

    def _drop(self, node: Node, connection: Connection) -> None:
        self._known.lost.add(node)
        self._thread.connections.pop(node, None)
        connection.close()

    def _meet(self, node: Node, connection: Connection) -> None:
        """Note which server is there, whether it is another than before, and how much room it has."""
        lines: list[bytes] = []
        try:
            info = bytes(connection.call(command(b"INFO")))
            lines = info.splitlines()
            self._known.rooms[node] = Room(info)
        except ReplyError as error:
            # Not everybody may ask; then data that is gone still tells.
            if error.code != "NOPERM":
                raise
        server = next((line for line in lines if line.startswith(b"run_id:")), b"")
        known = self._known
        if known.servers.setdefault(node, server) != server:
            known.servers[node] = server
            known.generation += 1
        known.lost.discard(node)

    def _full(self, connection: Connection, error: ReplyError) -> StoreFull:
        used: Any = "unknown"
        limit: Any = "unknown"
        with suppress(OSError, StoreError):
            room = Room(bytes(connection.call(command(b"INFO", b"memory"))))
            used, limit = room.used, room.limit
        return StoreFull(
            f"the store {self.address} is full: {error} It uses {used} bytes of {limit}. "
            "Give it more memory or disk, or make fewer or smaller values; `wukong clean` removes what dead jobs left"
        )

    def _count(self, before: tuple[int, ...]) -> None:
        """Add what this thread's connections have carried since."""
        trips, sent, received = map(sub, self._thread.tally, before)
        me = threading.get_ident()
        for tallies in self._tallies:
            tally = tallies.get(me)
            if tally is None:
                tally = tallies[me] = [0, 0, 0]
            tally[0] += trips
            tally[1] += sent
            tally[2] += received


class ClusterLink(Link):
    """The same to a cluster, of which `address` names some nodes."""

    def __init__(self, address: Address, timeout: float | None = None) -> None:
        super().__init__(address, timeout)
        self._nodes = list(address.nodes)
        self._slots: dict[int, Node] = {}  # where to ask first
        self._owners: dict[int, Node] = {}  # where a request was answered last

    def _deliver(self, key: bytes, commands: Sequence[list[Buffer]], patience: float) -> Any:
        slot = slot_of(key)
        node = self._node_of(key)
        asking: tuple[list[Buffer], ...] = ()
        reason: Exception | None = None
        for attempt in range(_REDIRECTIONS):
            try:
                return self._ask(node, (*asking, *commands), patience)
            except ReplyError as error:
                asking, reason = (), error
                if error.code not in _ELSEWHERE:
                    raise
                node = self._named(str(error).split()[2], node)
                if error.code == "MOVED":
                    if self._owners.setdefault(slot, node) != node:
                        self._owners[slot] = node
                        self._known.generation += 1
                    self._slots[slot] = node
                else:
                    asking = (command(b"ASKING"),)
            except StoreUnavailable as error:
                # Another node may know who has the slot now.
                asking, reason = (), error
                self._slots.pop(slot, None)
                others = [other for other in self._nodes if other != node]
                self._nodes = [*others, node]
                if not others or isinstance(error.__cause__, TimeoutError):
                    raise
                node = others[attempt % len(others)]
        raise StoreUnavailable(f"the cluster {self.address} did not settle on a node for slot {slot}") from reason

    def _node_of(self, key: bytes) -> Node:
        return self._slots.get(slot_of(key), self._nodes[0])

    def primaries(self) -> list[Node]:
        """Return the nodes that have keys of their own."""
        found = []
        for line in bytes(self.call(b"", b"CLUSTER", b"NODES")).decode().splitlines():
            _, address, flags, *_ = line.split()
            if "master" in flags and "fail" not in flags.replace("fail?", ""):
                host, _, port = address.partition("@")[0].partition(",")[0].rpartition(":")
                found.append((host or self._nodes[0][0], int(port)))
        return found

    def _named(self, text: str, sender: Node) -> Node:
        host, _, port = text.rpartition(":")
        node = (host or sender[0], int(port))  # no host: the same as the sender's
        if node not in self._nodes:
            self._nodes.append(node)
        return node
