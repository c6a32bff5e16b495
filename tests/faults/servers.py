"""Servers that can be killed, stopped and filled while jobs use them: one alone, or a cluster with replicas."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from tests import drivers
from tests.servers import free_ports, wait_for
from wukong.storage.address import parse
from wukong.storage.link import Link
from wukong.storage.server import find_server


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
