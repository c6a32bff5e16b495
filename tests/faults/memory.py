"""Machines without memory, disk or descriptors: what becomes of jobs whose values have no room. Each fault is counted.

    python -m tests.faults memory       prints the table

Each job is a client of its own, which limits itself and what it starts. It is right, or ends with a typed error, in
bounded time; and no process and no file of it is left.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests import drivers
from tests.faults.jobs import HANGS, Row, clean, settle
from tests.faults.servers import Server

#: What a client runs: 24 arrays of 4 MB, all of which are needed at once, and their sums.
CLIENT: Final = """
import resource, sys, warnings
import numpy as np
import wukong
from wukong.errors import WukongError

def add(*arrays):
    return sum(arrays)

def main(granules, store, memory, limit, soft, hard):
    warnings.simplefilter("ignore")
    graph = {f"leaf{i}": (np.full, 500_000, i) for i in range(24)}
    for i in range(24):
        graph[f"sum{i}"] = (add, *(f"leaf{(i + j) % 24}" for j in range(3)))
    graph["all"] = (add, *(f"sum{i}" for i in range(24)))
    client = wukong.Client(workers=2, granules=granules, store=store or None, memory_limit=int(memory) or None)
    if limit:
        resource.setrlimit(getattr(resource, limit), (int(soft), int(hard)))
    with client:
        try:
            right = bool((client.get(graph, "all") == 3 * sum(range(24))).all())
            print("right" if right else "wrong")
        except WukongError as error:
            print(f"error {type(error).__name__}: {error}", *getattr(error, "__notes__", ()))

if __name__ == "__main__":
    main(*sys.argv[1:])
"""

#: Fault: granules, bytes of the arena's memory (0: what is usual), and a limit of the system.
FAULTS: Final = {
    "memory limit of 8 MB, values go to disk": ("processes", 8_000_000, "", 0),
    "no block of memory is given (RLIMIT_FSIZE)": ("processes", 0, "RLIMIT_FSIZE", 1_000_000),
    "memory limit of 8 MB, disk full": ("processes", 8_000_000, "RLIMIT_FSIZE", 1_000_000),
    "no descriptor left (RLIMIT_NOFILE)": ("processes", 0, "RLIMIT_NOFILE", 24),
}


def rows(times: int = 3, seed: int = 0) -> Iterator[Row]:
    """Return a row for each fault, with so many jobs."""
    del seed
    for fault, (granules, memory, limit, value) in FAULTS.items():
        row = Row(fault)
        for _ in range(times):
            run(row, granules, "", memory, limit, value)
        yield row
    yield from spilled(times)


def spilled(times: int) -> Iterator[Row]:
    """A server without room for values, beside a directory with room, and one without."""
    with Server("--maxmemory-policy", "noeviction", "--maxmemory", "16mb") as server:
        for fault, limit in (("store full, values go to disk", ""), ("store full, disk full", "RLIMIT_FSIZE")):
            row = Row(fault)
            for number in range(times):
                run(row, ("threads", "processes")[number % 2], server.url, 0, limit, 1_000_000)
            if limit:
                # What was under way when the client ended has arrived since.
                clean(row, server)
            else:
                settle(row, server.content)
            yield row


def run(row: Row, granules: str, store: str, memory: int, limit: str, value: int) -> None:
    """Run one client, and note what became of it and what it left."""
    with tempfile.TemporaryDirectory(prefix="wukong-faults-") as directory:
        program = Path(directory, "client.py")
        program.write_text(CLIENT)
        temporary = Path(directory, "tmp")
        temporary.mkdir()
        where = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": os.getcwd()}
        arguments = [granules, store, str(memory), limit, str(value), str(value)]
        began = time.monotonic()
        client = subprocess.Popen(
            [sys.executable, str(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=where
        )
        row.injected += 1
        try:
            said = client.communicate(timeout=HANGS)[0].decode()
        except subprocess.TimeoutExpired:
            row.hangs += 1
            client.send_signal(signal.SIGKILL)
            said = client.communicate()[0].decode()
        else:
            row.right += said == "right\n"
            row.errors += said.startswith("error ")
            row.wrong += not (said == "right\n" or said.startswith("error "))
        row.slowest = max(row.slowest, time.monotonic() - began)
        row.last = said or row.last
        with suppress(AssertionError):
            drivers.until(lambda: not _of(directory), "its processes have ended", 5.0)
        left = [*map(str, _of(directory)), *map(str, temporary.iterdir())]
        row.leftovers += len(left)
        row.last += f"left: {left}" if left else ""


def _of(directory: str) -> list[int]:
    """Return the processes that were started with this directory for temporary files."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"TMPDIR={directory}/tmp".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found
