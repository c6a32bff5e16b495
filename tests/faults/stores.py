"""Stores that fail in the middle of jobs: real servers that are killed, filled and cut off. Each fault is counted.

    python -m tests.faults stores       prints the table

A job is right, or ends with a typed error, in bounded time; and when it has ended nothing of it is in the store.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import wukong
from tests import drivers
from tests.faults import proxy
from tests.servers import free_ports, wait_for
from wukong.errors import StoreError, WukongError
from wukong.scheduler import stores as links
from wukong.storage import leftovers
from wukong.storage.address import parse
from wukong.storage.link import Link
from wukong.storage.open import connect
from wukong.storage.resp import Connection, command
from wukong.storage.server import find_server

#: How long links of these jobs wait for an answer, and for a store that is away.
WAITS = "?timeout=2&away=8"
#: Seconds after which a job is taken to hang: far beyond what its link may wait.
HANGS = 60.0


@dataclass
class Row:
    """What came of one kind of fault."""

    fault: str
    injected: int = 0
    right: int = 0
    errors: int = 0
    wrong: int = 0
    hangs: int = 0
    leftovers: int = 0
    slowest: float = 0.0
    last: str = ""

    def add(self, other: "Row") -> None:
        """Add the counts of another."""
        for name in ("injected", "right", "errors", "wrong", "hangs", "leftovers"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest = max(self.slowest, other.slowest)
        self.last = other.last or self.last


class Server:
    """A server on loopback that can be killed and started again where it was."""

    def __init__(self, *options: str, binary: str | None = None, port: int = 0) -> None:
        self.port = port or free_ports(1)[0]
        self.url = f"redis://127.0.0.1:{self.port}"
        self.directory = tempfile.mkdtemp(prefix="wukong-faults-")
        self._options = options
        self._binary = binary or find_server()
        self.process: subprocess.Popen[bytes]
        self.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start it, with what it finds in its directory."""
        where = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.directory, "--logfile", "log")
        program = [self._binary, *where, "--save", "", *self._options]
        self.process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(lambda: self.ask(b"PING") == b"PONG", "the server answers")

    def kill(self) -> None:
        """Kill it, as a machine that fails would."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGCONT)
        self.process.kill()
        self.process.wait(20.0)

    def ask(self, *words: bytes) -> Any:
        """Send one command over a connection of its own."""
        link = Link(parse(self.url))
        try:
            return link.call(b"", *words)
        finally:
            link.close()

    def content(self) -> set[bytes]:
        """Return what is in it."""
        return drivers.keys_of(self.url)


# --- jobs -------------------------------------------------------------------------------------------------------------


def make(number: int, size: int, seconds: float) -> Any:
    """Make an array, and take a moment for it."""
    time.sleep(seconds)
    return np.full(size, number, dtype=np.int64)


def add(seconds: float, *arrays: Any) -> Any:
    """Add arrays, and take a moment for it."""
    time.sleep(seconds)
    return sum(arrays)


def graph(seed: int, leaves: int = 24, size: int = 40_000, seconds: float = 0.004) -> tuple[dict[str, Any], str, int]:
    """Return a random graph of arrays, half of them too large to ride with records; its output; and what that holds."""
    dice = random.Random(seed)
    tasks: dict[str, Any] = {}
    value: dict[str, int] = {}
    for i in range(leaves):
        tasks[f"leaf{i}"] = (make, i, size, seconds)
        value[f"leaf{i}"] = i
    open_ends = list(value)
    while len(open_ends) > 1:
        width = min(len(open_ends), dice.choice((2, 3)))
        inputs = [open_ends.pop(dice.randrange(len(open_ends))) for _ in range(width)]
        if dice.random() < 0.3:
            inputs.append(dice.choice(list(value)))
        inputs = list(dict.fromkeys(inputs))
        name = f"sum{len(tasks)}"
        tasks[name] = (add, seconds, *inputs)
        value[name] = sum(value[each] for each in inputs)
        open_ends.append(name)
    return tasks, open_ends[0], value[open_ends[0]]


def run(row: Row, url: str, seed: int, inject: Callable[[], Any], wait: float, granules: str, **of: Any) -> None:
    """Run one job, do something harmful after a while, and note what became of it."""
    tasks, output, expected = graph(seed, **of)
    ended = threading.Event()
    struck: list[bool] = []
    outcome: list[Any] = []

    def strike() -> None:
        if not ended.wait(wait):
            inject()
            struck.append(True)

    def compute() -> None:
        try:
            found = wukong.get(tasks, output, store=url, granules=granules, workers=2)
            outcome.append(bool((np.asarray(found) == expected).all()))
        except BaseException as error:
            outcome.append(error)
        finally:
            ended.set()

    began = time.monotonic()
    threads = [threading.Thread(target=each, daemon=True) for each in (compute, strike)]
    for thread in threads:
        thread.start()
    threads[0].join(HANGS)
    row.slowest = max(row.slowest, time.monotonic() - began)
    threads[1].join(HANGS)
    row.injected += len(struck)
    if not outcome:
        row.hangs += 1
    elif isinstance(outcome[0], WukongError):
        row.errors += 1
        row.last = f"{type(outcome[0]).__name__}: {outcome[0]}"
    elif outcome[0] is True:
        row.right += 1
    else:
        row.wrong += 1
        row.last = repr(outcome[0])
    forget(url)


def forget(url: str) -> None:
    """Close the link of a job that is over, so that the next one begins with a new one."""
    known = links._links.pop(url, None)
    if known is not None:
        known[0].close()


def settle(row: Row, keys: Callable[[], set[bytes]]) -> None:
    """Note what is left in a store once those who were still at work have noticed the end."""
    try:
        drivers.until(lambda: not keys(), "the store is empty", 5.0)
    except AssertionError:
        row.leftovers += len(keys())


def clean(row: Row, server: Server) -> None:
    """Note what is left after `wukong clean`: a store that answers nobody keeps what it has until then."""
    # What was sent before it fell silent may still be carried out.
    time.sleep(0.2)
    link = connect(server.url)
    for left in leftovers.find(link):
        leftovers.remove(link, left)
    link.close()
    settle(row, server.content)


# --- faults -----------------------------------------------------------------------------------------------------------


def connections(times: int, seed: int = 0, granules: str = "threads", waits: str = WAITS) -> Iterator[Row]:
    """Cut, delay and half-close connections, one in twelve chunks of what passes."""
    with Server() as server:
        for kind in proxy.EVERY:
            row = Row(f"connections: {kind}")
            for number in range(seed, seed + times):
                with proxy.before(server.url, proxy.at_random(number, 12, (kind,)), 0.05) as (between, url):
                    run(row, url + waits, number, int, HANGS, granules, leaves=12)
                    row.injected += sum(between.done.values())
            settle(row, server.content)
            yield row


def every_request(points: range, granules: str = "threads") -> Iterator[Row]:
    """Cut the connection at the first request of a job, at the second, and so on: before it, and before its answer."""
    with Server() as server:
        for kind in (proxy.CUT, proxy.AFTER, proxy.PART):
            row = Row(f"request n: {kind}")
            for point in points:
                with proxy.before(server.url, proxy.at_chunk(point, kind)) as (between, url):
                    run(row, url + WAITS, point, int, HANGS, granules, leaves=6, seconds=0.001)
                    row.injected += sum(between.done.values())
            settle(row, server.content)
            yield row


def restarts(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Kill the server and start it again: with all its data, with none, and with what it had a while ago."""

    def again(server: Server) -> None:
        server.kill()
        time.sleep(0.1)
        server.start()

    rows = {
        "killed, restarted with its data": ("--appendonly", "yes", "--appendfsync", "always"),
        "killed, restarted without data": ("--appendonly", "no"),
        "killed, restarted with old data": ("--dbfilename", "old.rdb"),
    }
    for fault, options in rows.items():
        row = Row(fault)
        with Server(*options) as server:
            for number in range(seed, seed + times):
                dice = random.Random(number)

                def strike(server: Server = server, dice: random.Random = dice) -> None:
                    if "old.rdb" in server._options:
                        server.ask(b"SAVE")
                        time.sleep(dice.uniform(0.0, 0.05))
                    again(server)

                run(row, server.url + WAITS, number, strike, dice.uniform(0.02, 0.12), granules)
            if "old.rdb" in options:
                # It may have forgotten that a job had ended.
                clean(row, server)
            else:
                settle(row, server.content)
        yield row


def no_room(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Fill the server's memory, break its disk, and send what is too large for it."""
    with Server("--maxmemory-policy", "noeviction") as server:
        row = Row("memory full (maxmemory)")
        for number in range(seed, seed + times):

            def fill(server: Server = server) -> None:
                server.ask(b"CONFIG", b"SET", b"maxmemory", b"2mb")

            run(row, server.url + WAITS, number, fill, random.Random(number).uniform(0.01, 0.1), granules)
            settle(row, server.content)
            server.ask(b"CONFIG", b"SET", b"maxmemory", b"0")
        yield row

        row = Row("value larger than the store takes")
        server.ask(b"CONFIG", b"SET", b"proto-max-bulk-len", b"1mb")
        for number in range(seed, seed + times):
            run(row, server.url + WAITS, number, int, 0.0, granules, leaves=4, size=200_000)
        settle(row, server.content)
        yield row

    with Server("--stop-writes-on-bgsave-error", "yes") as server:
        row = Row("disk of the server full (MISCONF)")
        for number in range(seed, seed + times):

            def spoil(server: Server = server) -> None:
                # A server that has told its clients to save, and cannot, takes no more writes.
                server.ask(b"CONFIG", b"SET", b"save", b"3600 1")
                shutil.rmtree(server.directory)
                with contextlib.suppress(StoreError):
                    server.ask(b"SAVE")
                server.ask(b"BGSAVE")

            run(row, server.url + WAITS, number, spoil, random.Random(number).uniform(0.01, 0.1), granules)
            os.makedirs(server.directory, exist_ok=True)
            server.ask(b"CONFIG", b"SET", b"save", b"")
            # It let go of nothing either, as long as it could not save.
            clean(row, server)
        yield row


def crowded(times: int, seed: int = 0, granules: str = "threads", waits: str = WAITS) -> Iterator[Row]:
    """Let the server take no more connections than it has, every second time for a while only."""
    with Server() as server:
        row = Row("connections refused (maxclients)")
        for number in range(seed, seed + times):
            control = Connection(parse(server.url), ("127.0.0.1", server.port), 10.0, [0, 0, 0])
            clients = bytes(control.call(command(b"INFO", b"clients"))).split(b"connected_clients:")[1].split()[0]
            control.call(command(b"CONFIG", b"SET", b"maxclients", clients))

            def let_in(control: Connection = control) -> None:
                control.call(command(b"CONFIG", b"SET", b"maxclients", b"1000"))

            # Some of these jobs find room in time.
            run(row, server.url + waits, number, let_in, 0.5 if number % 2 == 0 else HANGS, granules)
            row.injected = number - seed + 1
            let_in()
            control.close()
        settle(row, server.content)
        yield row


def silence(times: int, seed: int = 0, granules: str = "threads", waits: str = "?timeout=2&away=3") -> Iterator[Row]:
    """Stop the server for a while, less than links wait, and for longer."""
    with Server() as server:
        for fault, seconds in (("silent for 1 s", 1.0), ("silent for ever", HANGS)):
            row = Row(fault)
            for number in range(seed, seed + times):
                over = threading.Event()

                def stop(server: Server = server, seconds: float = seconds, over: threading.Event = over) -> None:
                    os.kill(server.process.pid, signal.SIGSTOP)
                    if seconds < HANGS:
                        over.wait(seconds)
                        os.kill(server.process.pid, signal.SIGCONT)

                run(row, server.url + waits, number, stop, 0.05, granules)
                os.kill(server.process.pid, signal.SIGCONT)
            if seconds < HANGS:
                settle(row, server.content)
            else:
                clean(row, server)
            yield row


def slowness(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Let the server take half a second for each answer."""
    with Server() as server:
        row = Row("slow: 0.5 s for each answer")

        def slowly(there: bool, data: bytes) -> str | None:
            # Of a large value, its last part.
            return proxy.DELAY if there and len(data) < 10_000 else None

        with proxy.before(server.url, slowly, 0.5) as (between, url):
            for number in range(seed, seed + times):
                run(row, url + WAITS, number, int, HANGS, granules, leaves=3)
            row.injected += sum(between.done.values())
        settle(row, server.content)
        yield row


def rows(times: int = 3, seed: int = 0, granules: tuple[str, ...] = ("threads", "processes")) -> Iterator[Row]:
    """Return a row for each fault, with so many jobs of each kind of granules."""
    for fault in (connections, restarts, fail_over, no_room, crowded, silence, slowness):
        together: dict[str, Row] = {}
        for each in granules:
            for row in fault(times, seed, each):
                together.setdefault(row.fault, Row(row.fault)).add(row)
        yield from together.values()
    yield from every_request(range(20 * times))


@contextlib.contextmanager
def cluster_with_replicas(primaries: int = 3) -> Iterator[tuple[str, list[Server]]]:
    """A cluster in which each primary has a replica; give its URL, and the primaries."""
    count = 2 * primaries
    ports = free_ports(2 * count)
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(
                Server(
                    *("--cluster-enabled", "yes", "--cluster-port", str(ports[count + i])),
                    *("--cluster-node-timeout", "1000", "--cluster-replica-validity-factor", "0"),
                    *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
                    port=ports[i],
                )
            )
            for i in range(count)
        ]
        bounds = [16384 * i // primaries for i in range(primaries + 1)]
        for i, node in enumerate(nodes):
            node.ask(b"CLUSTER", b"SET-CONFIG-EPOCH", b"%d" % (i + 1))
            node.ask(b"CLUSTER", b"MEET", b"127.0.0.1", b"%d" % nodes[0].port, b"%d" % ports[count])
            if i < primaries:
                node.ask(b"CLUSTER", b"ADDSLOTSRANGE", b"%d" % bounds[i], b"%d" % (bounds[i + 1] - 1))
        for node in nodes:
            wait_for(
                lambda node=node: node.ask(b"CLUSTER", b"NODES").count(b"127.0.0.1") == count, "all nodes are known"
            )
        for i, replica in enumerate(nodes[primaries:]):
            name = bytes(nodes[i].ask(b"CLUSTER", b"MYID"))
            wait_for(lambda r=replica, n=name: r.ask(b"CLUSTER", b"REPLICATE", n) == b"OK", "a replica has its primary")
        for node in nodes:
            wait_for(lambda node=node: b"cluster_state:ok" in node.ask(b"CLUSTER", b"INFO"), "the cluster forms")
        for replica in nodes[primaries:]:
            wait_for(lambda r=replica: b"master_link_status:up" in r.ask(b"INFO", b"replication"), "replicas follow")
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        yield f"redis+cluster://{hosts}", nodes


def fail_over(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Kill a primary of a cluster in the middle of a job: its replica is promoted, and may lack the last writes."""
    row = Row("cluster: primary killed, replica promoted")
    for number in range(seed, seed + times):
        with cluster_with_replicas() as (url, nodes):
            victim = nodes[number % 3]
            run(row, url + "?timeout=2&away=20", number, victim.kill, 0.1, granules, leaves=48)
            living = [node for node in nodes if node is not victim]
            settle(row, lambda living=living: set().union(*(node.content() for node in living)))  # type: ignore[misc]
    yield row
