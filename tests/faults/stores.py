"""Stores that fail in the middle of jobs: real servers that are killed, filled and cut off. Each fault is counted.

    python -m tests.faults stores       prints the table

A job is right, or ends with a typed error, in bounded time; and when it has ended nothing of it is in the store.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults import proxy
from tests.faults.jobs import HANGS, WAITS, Row, clean, forget, run, settle
from tests.faults.pressure import crowded, no_room, silence, slowness
from tests.faults.servers import Server, cluster_with_replicas
from tests.servers import free_ports, wait_for
from wukong.storage.open import connect

__all__ = ["WAITS", "Row", "Server", "connect", "crowded", "forget", "silence"]

TLS = Path(__file__).parents[1] / "storage" / "tls"


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


def partition(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Stop a primary of a cluster until its replica is promoted; then let it go on, with what was sent to it."""
    row = Row("cluster: primary stopped, replica promoted, both go on")
    for number in range(seed, seed + times):
        with cluster_with_replicas() as (url, nodes):
            victim, replica = nodes[number % 3], nodes[number % 3 + 3]

            def stop(victim: Server = victim, replica: Server = replica) -> None:
                os.kill(victim.process.pid, signal.SIGSTOP)
                wait_for(lambda: replica.ask(b"ROLE")[0] == b"master", "the replica is promoted")
                os.kill(victim.process.pid, signal.SIGCONT)

            run(row, url + "?timeout=0.5&away=20", number, stop, 0.1, granules, leaves=48)
            settle(row, lambda nodes=nodes: set().union(*(node.content() for node in nodes)))  # type: ignore[misc]
    yield row


def encrypted(times: int, seed: int = 0, granules: str = "threads") -> Iterator[Row]:
    """Cut and tear connections that speak TLS, one in fifty chunks of what passes: each begins with many."""
    (port,) = free_ports(1)
    files = ("--tls-cert-file", str(TLS / "cert.pem"), "--tls-key-file", str(TLS / "key.pem"))
    binary = shutil.which("redis-server")
    assert binary, "these need redis-server 7 with TLS on PATH: apt-get install redis-server"
    with Server("--tls-port", str(port), "--tls-auth-clients", "no", *files, binary=binary) as server:
        for kind in proxy.EVERY:
            row = Row(f"TLS: {kind}")
            for number in range(seed, seed + times):
                with proxy.Proxy(port, proxy.at_random(number, 50, (kind,)), 0.05) as between:
                    url = f"rediss://localhost:{between.port}{WAITS}&ssl_ca_certs={TLS / 'cert.pem'}"
                    run(row, url, number, int, HANGS, granules, leaves=12)
                    row.injected += sum(between.done.values())
            settle(row, server.content)
            yield row


def rows(times: int = 3, seed: int = 0, granules: tuple[str, ...] = ("threads", "processes")) -> Iterator[Row]:
    """Return a row for each fault, with so many jobs of each kind of granules."""
    kinds = (connections, encrypted, restarts, fail_over, partition, no_room, crowded, silence, slowness)
    for fault in kinds:
        together: dict[str, Row] = {}
        for each in granules:
            for row in fault(times, seed, each):
                together.setdefault(row.fault, Row(row.fault)).add(row)
        yield from together.values()
    yield from every_request(range(20 * times))
