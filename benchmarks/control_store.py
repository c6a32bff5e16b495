"""What a request to each control store costs: round trips, outcomes in batches, and a fan-in of 100,000.

    python benchmarks/control_store.py [--json FILE]

One executor settles a binary tree, every small value inline with its record, so that an outcome is a commit of a task,
an edge, two uses and every other time a grant: what a tree reduction asks of a store. Rounds of the stores are
interleaved; figures are medians. Server time is the CPU time of the server's main thread.
"""

import argparse
import json
import shutil
import socket
import statistics
from collections.abc import Callable
from contextlib import ExitStack, closing
from time import perf_counter

from wukong.ids import new_job
from wukong.protocol import messages as m
from wukong.storage.control.base import ControlStore
from wukong.storage.control.memory import MemoryControlStore
from wukong.storage.control.redis import RedisControlStore
from wukong.storage.open import connect
from wukong.storage.server import EmbeddedServer

LEAVES = 2048
WIDTH = 100_000
BATCHES = (1, 8, 64)
LEASE = 60.0


def stores(stack: ExitStack) -> dict[str, ControlStore]:
    """Return every store there is on this machine; servers end with `stack`."""
    found: dict[str, ControlStore] = {"memory": MemoryControlStore()}
    embedded = stack.enter_context(EmbeddedServer())
    found["valkey, unix"] = RedisControlStore(stack.enter_context(closing(connect(embedded.url))))
    redis = shutil.which("redis-server")
    if redis:
        server = stack.enter_context(EmbeddedServer(redis))
        found["redis 7, unix"] = RedisControlStore(stack.enter_context(closing(connect(server.url))))
        link = found["redis 7, unix"].link
        link.call(b"", b"CONFIG", b"SET", b"bind", b"127.0.0.1")
        link.call(b"", b"CONFIG", b"SET", b"port", b"%d" % free_port())
        (_, port) = link.call(b"", b"CONFIG", b"GET", b"port")
        found["redis 7, tcp"] = RedisControlStore(
            stack.enter_context(closing(connect(f"redis://127.0.0.1:{int(port)}")))
        )
    return found


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Client:
    """One nonce's requests to shard 0 of one new job."""

    def __init__(self, store: ControlStore) -> None:
        self.store, self.job, self.seq = store, new_job(), 0

    def tell(self, kind: Callable[..., m.Request], *args: object, **kwargs: object) -> m.Reply:
        """Send a request with the next number."""
        self.seq += 1
        return self.store.apply(self.job, 0, kind("bench", self.seq, LEASE, *args, **kwargs))

    def open(self, leaves: range) -> None:
        """Settle the client's edges into the leaves."""
        edges = tuple(m.Edge(leaf, 1) for leaf in leaves)
        self.tell(m.Arrive, (m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), edges),))

    def release(self) -> None:
        """Remove the job."""
        self.tell(m.Release, everything=True)


def cpu(store: ControlStore) -> float:
    """Return the server's seconds of CPU so far; 0 for the store in memory."""
    if not isinstance(store, RedisControlStore):
        return 0.0
    info = store.link.call(b"", b"INFO", b"cpu").decode()
    fields = dict(line.split(":") for line in info.split("\r\n") if ":" in line)
    return float(fields["used_cpu_user_main_thread"]) + float(fields["used_cpu_sys_main_thread"])


def probes(store: ControlStore, count: int = 1000) -> dict[str, float]:
    """Time the smallest request."""
    client = Client(store)
    client.open(range(1))
    began = perf_counter()
    for _ in range(count):
        store.apply(client.job, 0, m.Probe((0,)))
    seconds = perf_counter() - began
    client.release()
    return {"round_trip_us": seconds / count * 1e6, "round_trips_per_s": count / seconds}


def tree(store: ControlStore, batch: int) -> dict[str, float]:
    """Settle a tree in batches of so many outcomes, its requests made beforehand."""
    client = Client(store)
    client.open(range(LEAVES))
    value = m.Value(m.INLINE, 24, bytes(24))
    requests: list[tuple[m.Outcome, ...]] = []
    level, following, uses = range(LEAVES), LEAVES, {}
    while len(level) > 1:
        outcomes = [
            m.Outcome(
                task,
                1,
                value,
                (m.Edge(following + i // 2, 2, (level[i ^ 1],)),),
                claims=1,
                inputs=uses.get(task, ()),
            )
            for i, task in enumerate(level)
        ]
        requests += [tuple(outcomes[i : i + batch]) for i in range(0, len(outcomes), batch)]
        parents = range(following, following + len(level) // 2)
        uses = {task: ((level[2 * i], 1), (level[2 * i + 1], 1)) for i, task in enumerate(parents)}
        level, following = parents, parents.stop
    before, began = cpu(store), perf_counter()
    for outcomes_of_request in requests:
        reply = client.tell(m.Commit, outcomes_of_request)
    seconds, server = perf_counter() - began, cpu(store) - before
    (last,) = reply.body[-1].granted
    assert last.task == level[0]
    client.release()
    count = 2 * LEAVES - 2
    return {"us_per_outcome": seconds / count * 1e6, "server_us_per_outcome": server / count * 1e6}


def fan_in(store: ControlStore, width: int) -> dict[str, float]:
    """Settle so many edges into one child, 64 outcomes a request."""
    client = Client(store)
    client.open(range(1))
    value = m.Value(m.INLINE, 24, bytes(24))
    edges = (m.Edge(width + 1, width),)
    began = perf_counter()
    for start in range(1, width + 1, 64):
        outcomes = tuple(m.Outcome(task, 1, value, edges) for task in range(start, min(start + 64, width + 1)))
        reply = client.tell(m.Commit, outcomes)
    seconds = perf_counter() - began
    assert reply.body[-1].ready == (width + 1,)
    client.release()
    return {"us_per_edge": seconds / width * 1e6}


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, dict[str, list[float]]] = {}
    with ExitStack() as stack:
        found = stores(stack)
        for number in range(arguments.rounds):
            for name, store in found.items():
                seen = figures.setdefault(name, {})
                results = {"probe": probes(store), **{f"batch {batch}": tree(store, batch) for batch in BATCHES}}
                if number == 0:
                    results |= {f"fan-in {width}": fan_in(store, width) for width in (WIDTH // 10, WIDTH)}
                for what, result in results.items():
                    for unit, figure in result.items():
                        seen.setdefault(f"{what}: {unit}", []).append(figure)
    medians = {name: {what: statistics.median(all_) for what, all_ in seen.items()} for name, seen in figures.items()}
    names = list(medians)
    print(f"{'':38}" + "".join(f"{name:>16}" for name in names))
    for what in medians[names[0]]:
        print(f"{what:38}" + "".join(f"{medians[name][what]:16.1f}" for name in names))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(medians, file, indent=1)


if __name__ == "__main__":
    main()
