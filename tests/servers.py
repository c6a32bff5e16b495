"""Servers for tests, on loopback or Unix sockets, started and ended by fixtures of `tests/conftest.py`."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time

from wukong.errors import StoreError
from wukong.storage.address import parse
from wukong.storage.link import Link
from wukong.storage.server import find_server


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for(condition, what, seconds=20.0):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(StoreError):
            if condition():
                return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def started(binary, port, *options):
    """A server on 127.0.0.1:port, in a directory of its own."""
    directory = tempfile.mkdtemp(prefix="wukong-test-")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--logfile", "log"]
    process = subprocess.Popen([*command, "--save", "", "--appendonly", "no", *options], stdin=subprocess.DEVNULL)
    link = Link(parse(f"redis://127.0.0.1:{port}"))
    try:
        wait_for(lambda: link.call(b"", b"PING") == b"PONG", f"{binary} answers on port {port}")
        yield link
    finally:
        link.close()
        process.kill()
        process.wait()
        shutil.rmtree(directory)


@contextlib.contextmanager
def redis_over_tcp():
    binary = shutil.which("redis-server")
    assert binary, "these tests need redis-server 7 on PATH: apt-get install redis-server"
    (port,) = free_ports(1)
    with started(binary, port):
        yield f"redis://127.0.0.1:{port}"


@contextlib.contextmanager
def cluster_of_three():
    binary = find_server()
    ports = free_ports(6)
    nodes = ports[:3]
    with contextlib.ExitStack() as stack:
        links = [
            stack.enter_context(started(binary, port, "--cluster-enabled", "yes", "--cluster-port", str(bus)))
            for port, bus in zip(nodes, ports[3:], strict=True)
        ]
        bounds = (0, 5461, 10923, 16384)
        for i, link in enumerate(links):
            link.call(b"", b"CLUSTER", b"SET-CONFIG-EPOCH", b"%d" % (i + 1))
            link.call(b"", b"CLUSTER", b"ADDSLOTSRANGE", b"%d" % bounds[i], b"%d" % (bounds[i + 1] - 1))
            meet = (b"CLUSTER", b"MEET", b"127.0.0.1", b"%d" % nodes[0], b"%d" % ports[3])
            link.call(b"", *meet)
        for link in links:
            wait_for(lambda link=link: b"cluster_state:ok" in link.call(b"", b"CLUSTER", b"INFO"), "the cluster forms")
            wait_for(
                lambda link=link: b"cluster_slots_ok:16384" in link.call(b"", b"CLUSTER", b"INFO"), "it has all slots"
            )
        yield f"redis+cluster://127.0.0.1:{nodes[0]}"
