"""What it costs to have a function called in another process: round trips, many at once, and the start of a client.

    python benchmarks/submit.py [--rounds 9] [--json out/submit.json] [--quick]

A round trip is `submit(f).result()` with an `f` that does nothing. It is held against the same number of bytes going to
another process over a Unix socket and back, and against dask.distributed with as many processes. Contestants take turns
within each round, so that they share the machine's moods, each in a process of its own, so that the threads of one are
not in another's way. The kernel places all processes as it likes; as it makes a large difference whether it keeps both
ends on one core, the bare socket is also shown for both cases.

The start of a client is measured in new processes: from the call of `Client` to the first result, after the imports.
"""

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import dask

import wukong

WORKERS = 2
MESSAGE = bytes(250)
GOALS = {
    "times the bare socket": 3.0,
    "times the bare socket on two cores": 3.0,
    "times faster than distributed": 10.0,
    "milliseconds to the first result": 150.0,
}

START = """
import sys
from time import perf_counter
began = perf_counter()
{imports}
imported = perf_counter()
with wukong.Client(granules="processes", workers={workers}) as client:
    client.submit(len, "").result()
    first = perf_counter()
print(imported - began, first - imported)
"""


#: What makes one round trip, and what submits without waiting, if there is such a thing; until it is closed.
Contestant = Iterator[tuple[Callable[[], object], Callable[[], Any] | None]]


def nothing() -> None:
    """Do nothing."""


def bare(cores: tuple[int, int] | None) -> Contestant:
    """Send to a process what it sends back; kept on two cores, or on one, if so asked."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"import socket\ns = socket.socket(fileno={its.fileno()})\nwhile m := s.recv(4096): s.send(m)"
    process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[its.fileno()])
    its.close()
    if cores:
        os.sched_setaffinity(0, {cores[0]})
        os.sched_setaffinity(process.pid, {cores[1]})

    def trip() -> None:
        ours.send(MESSAGE)
        ours.recv(4096)

    yield trip, None
    ours.close()
    process.wait(10)


def with_wukong() -> Contestant:
    """Submit to a client of ours."""
    with wukong.Client(granules="processes", workers=WORKERS, set_as_default=False) as client:
        yield lambda: client.submit(nothing, pure=False).result(), lambda: client.submit(nothing, pure=False)


def with_distributed() -> Contestant:
    """Submit to dask.distributed, whose scheduler is in the client's process, as it is by default."""
    import distributed

    cluster = {"n_workers": WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.Client(**cluster, set_as_default=False) as client:
        yield lambda: client.submit(nothing, pure=False).result(), lambda: client.submit(nothing, pure=False)


def contest(contestant: Callable[..., Contestant], args: tuple[Any, ...], commands: Connection) -> None:
    """Measure, in a process of one's own, what is asked for."""
    with contextmanager(contestant)(*args) as (trip, submit):
        for _ in range(50):
            trip()
        commands.send(None)
        while (command := commands.recv()) is not None:
            what, count = command
            began = perf_counter()
            if what == "one after the other":
                for _ in range(count):
                    trip()
            else:
                assert submit is not None
                for future in [submit() for _ in range(count)]:
                    future.result()
            commands.send(perf_counter() - began)


class Process:
    """A contestant in a process of its own."""

    def __init__(self, contestant: Callable[..., Contestant], *args: Any) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._commands, its = spawn.Pipe()
        # Not a daemon: it has processes of its own.
        self._process = spawn.Process(target=contest, args=(contestant, args, its))
        self._process.start()
        its.close()
        self._commands.recv()

    def measure(self, what: str, count: int) -> float:
        """Return seconds."""
        self._commands.send((what, count))
        seconds: float = self._commands.recv()
        return seconds

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._commands.send(None)
        self._process.join(30)


def spread(times: list[float]) -> dict[str, float]:
    """Return what is kept of repeated measurements."""
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


def measure(rounds: int, count: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return microseconds a call, one after the other, and milliseconds of a thousand at once."""
    cores = sorted(os.sched_getaffinity(0))
    contestants = {
        "bare socket": Process(bare, None),
        "bare socket, one core": Process(bare, (cores[0], cores[0])),
        "bare socket, two cores": Process(bare, (cores[0], cores[-1])),
        "wukong": Process(with_wukong),
        "distributed": Process(with_distributed),
    }
    trips: dict[str, list[float]] = {name: [] for name in contestants}
    at_once: dict[str, list[float]] = {"wukong": [], "distributed": []}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            some = count // 10 if name == "distributed" else count
            trips[name].append(1e6 * contestant.measure("one after the other", some) / some)
        for name, times in at_once.items():
            times.append(1e3 * contestants[name].measure("at once", 1000))
    for contestant in contestants.values():
        contestant.close()
    return {
        "one after the other": {name: spread(times) for name, times in trips.items()},
        "a thousand at once": {name: spread(times) for name, times in at_once.items()},
    }


def starts(rounds: int) -> dict[str, dict[str, float]]:
    """Return seconds of imports, and from then to the first result, of new processes with and without packages."""
    found: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as compiled:
        # Modules are compiled by the first run, as they are when a package is installed.
        environ = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        for name, imports in {
            "nothing else imported": "import wukong",
            "numpy and pandas imported": "import wukong, numpy, pandas",
        }.items():
            imported, first = [], []
            for _ in range(rounds + 1):
                command = [sys.executable, "-c", START.format(imports=imports, workers=WORKERS)]
                ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
                seconds = [float(part) for part in ended.stdout.split()]
                imported.append(1e3 * seconds[0])
                first.append(1e3 * seconds[1])
            found[name] = {"imports": statistics.median(imported[1:]), "first run": first[0], **spread(first[1:])}
    return found


def verdicts(found: dict[str, Any]) -> dict[str, float]:
    """Return what is held against the goals."""
    trips = {name: times["median"] for name, times in found["calls"]["one after the other"].items()}
    return {
        "times the bare socket": trips["wukong"] / trips["bare socket"],
        "times the bare socket on two cores": trips["wukong"] / trips["bare socket, two cores"],
        "times faster than distributed": trips["distributed"] / trips["wukong"],
        "milliseconds to the first result": found["starts"]["nothing else imported"]["median"],
    }


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="three rounds, shorter")
    options = parser.parse_args()
    rounds, count = (3, 200) if options.quick else (options.rounds, 1000)
    found: dict[str, Any] = {
        "machine": {
            "python": platform.python_version(),
            "cores": len(os.sched_getaffinity(0)),
            "dask": dask.__version__,
            "distributed": version("distributed"),
            "wukong": wukong.__version__,
        },
        "starts": starts(rounds),
        "calls": measure(rounds, count),
    }
    found["verdicts"] = verdicts(found)
    print("submit(f).result(), one after the other: microseconds each")
    for name, times in found["calls"]["one after the other"].items():
        print(f"    {name:26}{times['median']:9.0f}   {times['least']:.0f} .. {times['most']:.0f}")
    print("a thousand at once: milliseconds for all")
    for name, times in found["calls"]["a thousand at once"].items():
        print(f"    {name:26}{times['median']:9.0f}   {times['least']:.0f} .. {times['most']:.0f}")
    print("from Client() to the first result: milliseconds, imports apart")
    for name, times in found["starts"].items():
        print(
            f"    {name:26}{times['median']:9.0f}   {times['least']:.0f} .. {times['most']:.0f}"
            f"   (first run {times['first run']:.0f}; imports {times['imports']:.0f})"
        )
    for name, goal in GOALS.items():
        value = found["verdicts"][name]
        met = value >= goal if name.startswith("times faster") else value <= goal
        print(f"{name}: {value:.1f}, goal {goal:g}, {'met' if met else 'MISSED'}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
