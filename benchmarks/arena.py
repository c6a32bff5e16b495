"""A large array from one process to others through the arena, beside copying it within one process.

    python benchmarks/arena.py [--mb 100] [--rounds 15] [--readers 10] [--json FILE]

Time runs from when the writer begins to seal the array until the reader (the last of the readers) has an ndarray, or
has also summed it; the clock is the same in all processes. Between them is the client, which keeps the books. The
measure is `numpy.copyto` of the same array into warm memory, in the writer, by turns with the rest; where the reader
sums, a sum follows it. The first time, when memory is new, is apart.
"""

import argparse
import gc
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np

from wukong.storage.arena import Arena
from wukong.storage.channel import Channel, pair
from wukong.storage.holder import Holder, serve


class Process:
    """A fork of this process with a `Holder`, which calls `act(holder, *what came)` for each message."""

    def __init__(self, arena: Arena, act: Callable[..., tuple[Any, ...]]) -> None:
        self._answers = serve(arena)
        ours, theirs = pair()
        self.channel = Channel(ours)
        self.pid = os.fork()
        if not self.pid:
            ours.close()
            try:
                _serve(theirs, act)
            finally:
                os._exit(0)
        theirs.close()

    def result(self) -> Any:
        """Answer what the process asks until its result comes."""
        while True:
            (kind, *rest), fds = self.channel.receive()
            if kind == "result":
                return rest
            op, *rest = rest
            answer = self._answers[op](self, fds, *rest)
            if kind == "ask":
                self.channel.send((answer[0],), answer[1])

    def close(self) -> None:
        """End it."""
        self.channel.close()
        os.waitpid(self.pid, 0)


def _serve(sock: socket.socket, act: Callable[..., tuple[Any, ...]]) -> None:
    channel = Channel(sock)

    def ask(op: str, *args: Any, fds: Any = ()) -> tuple[Any, Any]:
        channel.send(("ask", op, *args), fds)
        (reply,), received = channel.receive()
        return reply, received

    holder = Holder(ask, lambda op, *args, fds=(): channel.send(("tell", op, *args), fds))
    gc.disable()
    while True:
        try:
            message, fds = channel.receive()
        except EOFError:
            return
        result = act(holder, message, fds)
        holder.flush()
        channel.send(("result", *result))


def writer(mb: int) -> Callable[..., tuple[Any, ...]]:
    """Return what the writer does: seal its array, or measure copying it."""
    array = np.random.default_rng(1).random(mb * 1_000_000 // 8)
    into = np.ones_like(array)

    def act(holder: Holder, message: tuple[Any, ...], _: Any) -> tuple[Any, ...]:
        if message[0] == "seal":
            return perf_counter(), holder.seal(array)
        began = perf_counter()
        np.copyto(into, array)
        copied = perf_counter()
        if message[0] == "copy":
            return (copied - began,)
        into.sum()
        return (perf_counter() - began,)

    return act


def reader(holder: Holder, message: tuple[Any, ...], fds: Any) -> tuple[Any, ...]:
    """Have the array, and sum it if asked to; say when that was."""
    summing, wires = message
    (array,) = holder.unseal(wires, fds)
    if summing:
        array.sum()
    return (perf_counter(),)


def ship(arena: Arena, source: Process, targets: list[Process], summing: bool) -> float:
    """Return seconds from the writer's begin to the last reader's end."""
    source.channel.send(("seal",))
    began, wire = source.result()
    sealed = arena.take(source, wire)
    for target in targets:
        wires, fds = arena.lend(target, [sealed])
        target.channel.send((summing, wires), fds)
    return max(target.result()[0] for target in targets) - began


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--readers", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    arena = Arena()
    source = Process(arena, writer(options.mb))
    targets = [Process(arena, reader) for _ in range(options.readers)]

    def copy(how: str) -> float:
        source.channel.send((how,))
        seconds: float = source.result()[0]
        return seconds

    many = f"to {options.readers} readers"
    rows: dict[str, Callable[[], float]] = {
        "copyto": lambda: copy("copy"),
        "to 1 reader": lambda: ship(arena, source, targets[:1], False),
        many: lambda: ship(arena, source, targets, False),
        "copyto, sum": lambda: copy("copy and sum"),
        "to 1 reader, sum": lambda: ship(arena, source, targets[:1], True),
    }
    first = {name: run() for name, run in list(rows.items())[:2]}
    for name in list(rows) * 2:  # warm up
        rows[name]()
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for turn in range(options.rounds):
        for name in sorted(rows, reverse=turn % 2 == 0):
            taken[name].append(rows[name]())
    print(f"{options.mb} MB, median of {options.rounds}; the first time {first['to 1 reader'] * 1e3:.1f} ms")
    for name, seconds in taken.items():
        base = median(taken["copyto, sum" if name.endswith("sum") else "copyto"])
        spread = f"{min(seconds) * 1e3:.1f}..{max(seconds) * 1e3:.1f}"
        print(f"{name:24}{median(seconds) * 1e3:8.1f} ms  {spread:16} ratio {median(seconds) / base:.2f}")
    for process in (*reversed(targets), source):  # each has inherited the sockets of those before
        process.close()
    print(arena.figures())
    arena.close()
    if options.json:
        options.json.write_text(json.dumps({"mb": options.mb, "first": first, "seconds": taken}, indent=1))


if __name__ == "__main__":
    main()
