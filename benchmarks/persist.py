"""An array persisted in processes, and three computes on it: does it come back through the client each time?

    python benchmarks/persist.py [--megabytes 200] [--rounds 5] [--before TREE]

Beside wukong with process granules: `dask.distributed`, if it is installed, and, with ``--before``, wukong as it is in
another source tree. Two workers each, every contestant in a process of its own, by turns. Medians and spread in
seconds, and the bytes that wukong's client packed in a round: values that processes made, and need, should not be.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Any

WORKERS = 2


def serve(who: str, megabytes: int) -> None:
    """Be a contestant: for each line that comes, persist, compute, and print seconds and bytes packed."""
    import dask.array as da

    packed = [0]
    if who == "distributed":
        from distributed import Client, wait

        client: Any = Client(n_workers=WORKERS, threads_per_worker=1, dashboard_address=None)
    else:
        from wukong import Client, Future, serialize
        from wukong import wait as wait_for

        def wait(collection: Any) -> None:
            wait_for([part for part in collection.dask.values() if isinstance(part, Future)])

        dumps = serialize.dumps

        def counted(*args: Any) -> Any:
            frame = dumps(*args)
            packed[0] += frame.nbytes
            return frame

        serialize.dumps = counted
        client = Client(workers=WORKERS, granules="processes")
    rows = megabytes * 1_000_000 // 8 // 1000
    with client:
        for _ in sys.stdin:
            packed[0], began = 0, perf_counter()
            x = (da.ones((rows, 1000), chunks=(-(-rows // 8), 1000)) + 1).persist()
            wait(x)
            persisted = perf_counter()
            found = [float(y.compute()) for y in (x.sum(), (x * 2).mean(), (x + x[::-1]).max())]
            seconds = persisted - began, perf_counter() - persisted
            assert found == [2000 * rows, 4, 4]
            del x
            print(*seconds, packed[0], flush=True)


def main() -> None:
    """Let them take turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", metavar="TREE")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.megabytes)
        return
    trees = {"wukong": os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
    if options.before:
        trees["before"] = os.path.abspath(options.before)
    if importlib.util.find_spec("distributed"):
        trees["distributed"] = ""
    contestants = {who: _start(who, tree, options.megabytes) for who, tree in trees.items()}
    found: dict[str, list[list[float]]] = {who: [] for who in trees}
    try:
        for _ in range(options.rounds + 1):
            for who, process in contestants.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("go\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    raise SystemExit(f"{who} ended")
                found[who].append([float(figure) for figure in line.split()])
    finally:
        for process in contestants.values():
            assert process.stdin is not None
            process.stdin.close()
        for process in contestants.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
    print(f"{options.megabytes} MB, {WORKERS} workers; after one round that is not counted, {options.rounds} rounds")
    print("| | persist, s | three computes, s | spread | packed in the client, bytes |\n|---|---|---|---|---|")
    for who, rounds in found.items():
        persists, computes, packed = zip(*rounds[1:], strict=True)
        bytes_packed = "" if who == "distributed" else f"{int(median(packed)):,}"
        spread = f"{min(computes):.3f}..{max(computes):.3f}"
        print(f"| {who} | {median(persists):.3f} | {median(computes):.3f} | {spread} | {bytes_packed} |")
    ours = median(computes for _, computes, _ in found["wukong"][1:])
    for who in [*trees][1:]:
        print(f"computes: {ours / median(computes for _, computes, _ in found[who][1:]):.2f} of {who}")


def _start(who: str, tree: str, megabytes: int) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--serve", who, "--megabytes", str(megabytes)]
    environment = {**os.environ, **({"PYTHONPATH": tree} if tree else {})}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


if __name__ == "__main__":
    main()
