"""What it costs to have a function called in another process: round trips, many at once, and the start of a client.

    python benchmarks/submit.py [--rounds 9] [--json out/submit.json] [--quick]

A round trip is `submit(f).result()` with an `f` that does nothing. It is held against the same number of bytes going to
another process over a Unix socket and back, and against dask.distributed with as many processes. Contestants take turns
within each round, so that they share the machine's moods; the kernel places all processes as it likes. As it makes a
large difference whether it keeps both ends on one core, the bare socket is also shown for both cases.

The start of a client is measured in new processes: from the call of `Client` to the first result, after the imports.
"""

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import dask
import distributed

import wukong

WORKERS = 2
MESSAGE = bytes(250)
GOALS = {"times the bare socket": 3.0, "times faster than distributed": 10.0, "milliseconds to the first result": 150.0}

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


def nothing() -> None:
    """Do nothing."""


class Bare:
    """A process that sends back what it is sent.

    Parameters
    ----------
    cores : (int, int), optional
        Where this process and that one are kept meanwhile.
    """

    def __init__(self, cores: tuple[int, int] | None = None) -> None:
        self._cores = cores
        self._ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import socket\ns = socket.socket(fileno={its.fileno()})\nwhile m := s.recv(4096): s.send(m)"
        self._process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[its.fileno()])
        its.close()
        if cores:
            os.sched_setaffinity(self._process.pid, {cores[1]})

    def __call__(self) -> None:
        """Send and receive."""
        self._ours.send(MESSAGE)
        self._ours.recv(4096)

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Keep this process where it belongs."""
        before = os.sched_getaffinity(0)
        if self._cores:
            os.sched_setaffinity(0, {self._cores[0]})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.wait(10)


def timed(call: Callable[[], Any], count: int) -> float:
    """Return microseconds a call."""
    began = perf_counter()
    for _ in range(count):
        call()
    return 1e6 * (perf_counter() - began) / count


def spread(times: list[float]) -> dict[str, float]:
    """Return what is kept of repeated measurements."""
    return {"median": statistics.median(times), "least": min(times), "most": max(times)}


def measure(rounds: int, count: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return microseconds a call: one after the other, and of a thousand at once."""
    cores = sorted(os.sched_getaffinity(0))
    bares = {"bare socket": Bare(), "bare socket, one core": Bare((cores[0], cores[0]))}
    if len(cores) > 1:
        bares["bare socket, two cores"] = Bare((cores[0], cores[1]))
    trips: dict[str, list[float]] = {}
    at_once: dict[str, list[float]] = {}
    with (
        wukong.Client(granules="processes", workers=WORKERS, set_as_default=False) as ours,
        distributed.Client(
            n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, set_as_default=False
        ) as theirs,
    ):
        clients = {
            "wukong": lambda: ours.submit(nothing, pure=False),
            "distributed": lambda: theirs.submit(nothing, pure=False),
        }
        for submit in clients.values():
            for _ in range(50):
                submit().result()
        for _ in range(rounds):
            for name, bare in bares.items():
                with bare.placed():
                    trips.setdefault(name, []).append(timed(bare, count))
            for name, submit in clients.items():
                some = count if name == "wukong" else max(10, count // 10)
                trips.setdefault(name, []).append(timed(lambda submit=submit: submit().result(), some))  # type: ignore
            for name, submit in clients.items():
                began = perf_counter()
                for future in [submit() for _ in range(1000)]:
                    future.result()
                at_once.setdefault(name, []).append(1e3 * (perf_counter() - began))
    for bare in bares.values():
        bare.close()
    return {
        "one after the other": {name: spread(times) for name, times in trips.items()},
        "a thousand at once": {name: spread(times) for name, times in at_once.items()},
    }


def starts(rounds: int) -> dict[str, dict[str, float]]:
    """Return seconds of imports, and from then to the first result, of new processes with and without packages."""
    found: dict[str, dict[str, float]] = {}
    for name, imports in {
        "nothing else imported": "import wukong",
        "numpy and pandas imported": "import wukong, numpy, pandas",
    }.items():
        imported, first = [], []
        for _ in range(rounds):
            code = START.format(imports=imports, workers=WORKERS)
            said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
            seconds = [float(part) for part in said.split()]
            imported.append(1e3 * seconds[0])
            first.append(1e3 * seconds[1])
        found[name] = {
            "imports": statistics.median(imported),
            "first run": first[0],
            **spread(first[1:] or first),
        }
    return found


def verdicts(found: dict[str, Any]) -> dict[str, float]:
    """Return what is held against the goals."""
    trips = {name: times["median"] for name, times in found["calls"]["one after the other"].items()}
    return {
        "times the bare socket": trips["wukong"] / trips["bare socket"],
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
            "distributed": distributed.__version__,
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
