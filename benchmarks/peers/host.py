"""The process of one contestant at one row: imports, makes what is to be computed, and does it whenever it is told to.

It talks over a connection whose number is its argument: first comes who, what and where, then an order at a time. It is
also the parent of whatever its contestant lets go of, so that nothing escapes whoever ends it.
"""

import ctypes
import gc
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import psutil

_PR_SET_CHILD_SUBREAPER = 36


def serve(connection: Connection) -> None:
    """Obey orders: ``call`` answers with seconds and the result, ``stop`` ends it."""
    from benchmarks.peers.contestants import CONTESTANTS
    from benchmarks.peers.rows import ROWS

    who, what, size, workers, scratch = connection.recv()
    row = ROWS[what]
    if who is None:
        connection.send(row.truth(*size))
        return
    contestant = CONTESTANTS[who](workers, scratch)
    made, sampled = row.make(*size), contestant.sampled.get(row.way, 1)
    if sampled > 1:
        function, arguments = made
        made = function, arguments[::sampled]
    work = getattr(contestant, row.way)
    connection.send("ready")
    started = False
    try:
        while connection.recv() == "call":
            gc.collect()
            began = perf_counter()
            if not started:
                contestant.start()
                started = True
                work = getattr(contestant, row.way)
            result = work(*made)
            connection.send((perf_counter() - began, result))
    finally:
        if started:
            contestant.stop()
        end(psutil.Process().children(recursive=True))


def end(processes: Sequence[psutil.Process]) -> None:
    """Wait a little for processes to end by themselves, and kill those that do not, each by its number."""
    _, alive = psutil.wait_procs(processes, 2.0)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, 10.0)


def main() -> None:
    """Serve, and say what went wrong."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    connection = Connection(int(sys.argv[1]))
    error: Any = None
    try:
        serve(connection)
    except EOFError:
        return
    except BaseException as raised:
        traceback.print_exc()
        error = f"{type(raised).__name__}: {raised}".splitlines()[0]
    connection.send(error)


if __name__ == "__main__":
    main()
