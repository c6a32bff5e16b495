"""NumPy-bound graphs: wukong in the client's threads beside Dask's threaded scheduler, time and peak memory.

    python benchmarks/numpy_bound.py [--rounds 7] [--json FILE] [WORKLOAD ...]

Rounds are interleaved and change who goes first; BLAS runs one thread in each worker. Peak memory is the high-water
mark of the resident set above what was resident before the run.
"""

import argparse
import ctypes
import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import dask.array as da

import wukong


def gemm() -> Any:
    """4096 x 4096 in chunks of 1024."""
    a = da.random.default_rng(1).standard_normal((4096, 4096), chunks=1024)
    b = da.random.default_rng(2).standard_normal((4096, 4096), chunks=1024)
    return (a @ b).sum()


def tsqr() -> Any:
    """R of a 1,000,000 x 64 matrix in 20 blocks."""
    x = da.random.default_rng(1).standard_normal((1_000_000, 64), chunks=(50_000, 64))
    return da.linalg.tsqr(x)[1]


def svd() -> Any:
    """Singular values of a 400,000 x 100 matrix in 20 blocks."""
    x = da.random.default_rng(1).standard_normal((400_000, 100), chunks=(20_000, 100))
    return da.linalg.svd(x)[1]


def svd_compressed() -> Any:
    """Ten singular values of a 6000 x 6000 matrix in chunks of 1500, two power iterations."""
    x = da.random.default_rng(1).standard_normal((6000, 6000), chunks=1500)
    return da.linalg.svd_compressed(x, 10, n_power_iter=2, seed=3)[1]


def transpose_sum() -> Any:
    """(x + x.T).sum() of an 8000 x 8000 matrix in chunks of 1000."""
    x = da.random.default_rng(1).random((8000, 8000), chunks=1000)
    return (x + x.T).sum()


def rechunk() -> Any:
    """Row blocks to column blocks of an 8000 x 8000 matrix, and the largest of each column block."""
    x = da.random.default_rng(1).random((8000, 8000), chunks=(500, 8000))
    return x.rechunk((8000, 500)).max(axis=1).sum()


WORKLOADS = (gemm, tsqr, svd, svd_compressed, transpose_sum, rechunk)
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "wukong": lambda x: wukong.compute(x)[0],
    "dask threads": lambda x: x.compute(scheduler="threads"),
}


def measure(compute: Callable[[Any], Any], make: Callable[[], Any]) -> tuple[float, float]:
    """Return seconds and peak memory in MB of one run."""
    collection = make()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    began = perf_counter()
    compute(collection)
    return perf_counter() - began, (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise LookupError(field)


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'workload':16}{'wukong s':>10}{'dask s':>10}{'ratio':>8}  {'spread of dask':18}{'MB':>8}{'dask MB':>9}")
    for make in WORKLOADS:
        if options.workloads and make.__name__ not in options.workloads:
            continue
        seconds: dict[str, list[float]] = {name: [] for name in SCHEDULERS}
        memory: dict[str, list[float]] = {name: [] for name in SCHEDULERS}
        for turn in range(options.rounds + 1):
            for name in sorted(SCHEDULERS, reverse=turn % 2 == 0):
                took, peak = measure(SCHEDULERS[name], make)
                if turn:  # the first round warms up
                    seconds[name].append(took)
                    memory[name].append(peak)
        ours, theirs = (median(seconds[name]) for name in SCHEDULERS)
        spread = f"{min(seconds['dask threads']):.3f}..{max(seconds['dask threads']):.3f}"
        peaks = [median(memory[name]) for name in SCHEDULERS]
        figures = f"{ours:10.3f}{theirs:10.3f}{ours / theirs:8.2f}  {spread:18}{peaks[0]:8.0f}{peaks[1]:9.0f}"
        print(f"{make.__name__:16}{figures}")
        rows.append({"workload": make.__name__, "seconds": seconds, "memory_mb": memory, "ratio": ours / theirs})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
