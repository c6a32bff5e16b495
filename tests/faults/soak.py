"""Random graphs on worker processes, one of which is killed at random every second: wrong, left, and how memory goes.

python -m tests.faults.soak [--minutes 30] [--every 1.0] [--seed 0] [--out out/soak]

Leaves a CSV and, where Matplotlib is installed, a plot of the memory of the client, of its workers and of the arena.
"""

import argparse
import csv
import os
import signal
import sys
import time
from pathlib import Path

import dask

import wukong
from tests.faults import processes
from tests.platforms.packs import is_alive
from wukong.platforms.local.packs import pack_of

PAGE = os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    """Run; return 1 if anything was wrong, hung or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    options = parser.parse_args()
    row = processes.Row("kill -9 at random")
    pack = pack_of(2)
    seed, began = options.seed, time.monotonic()
    samples: list[tuple[float, ...]] = []
    with processes.Killer(pack, signal.SIGKILL, seed, options.every) as killer:
        while time.monotonic() - began < 60 * options.minutes:
            seed += 1
            graph, outputs = processes.graph_of(seed)
            processes.run(row, graph, outputs, dask.get(graph, outputs))
            if not samples or time.monotonic() - began > samples[-1][0] + 1:
                samples.append((time.monotonic() - began, *sizes(pack), len(os.listdir("/proc/self/fd"))))
    row.injected = killer.times
    row.leftovers = processes.left(pack)
    pids = [pack.keeper, *pack.pids]
    pack.close()
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    row.leftovers += sum(map(is_alive, pids))
    write(samples, options.out)
    figures = f"{row.injected} killed, {row.right} right, {row.errors} typed errors, {row.wrong} wrong"
    print(f"{figures}, {row.hangs} hangs, {row.leftovers} left; slowest job {row.slowest:.1f} s; last run:")
    print(wukong.last_run())
    third = max(1, len(samples) // 3)
    for name, column in (("client", 1), ("workers", 2), ("arena", 3)):
        early, late = (max(sample[column] for sample in part) for part in (samples[:third], samples[-third:]))
        print(f"memory of the {name}: at most {early / 1e6:.0f} MB in the first third, {late / 1e6:.0f} MB in the last")
    print(f"descriptors of the client: {samples[0][4]:.0f} at first, {samples[-1][4]:.0f} at last")
    return bool(row.wrong or row.hangs or row.leftovers)


def sizes(pack: processes.Pack) -> tuple[float, float, float]:
    """Return bytes in memory: of the client, of its workers, which share much of it, and of blocks in the arena."""
    return resident(os.getpid()), sum(map(resident, pack.pids)), pack.arena.figures().in_memory


def resident(pid: int) -> float:
    """Return the bytes of a process that are in memory; 0 if it is gone."""
    try:
        return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0.0


def write(samples: list[tuple[float, ...]], out: Path) -> None:
    """Leave the samples, and a plot if that can be."""
    out.mkdir(parents=True, exist_ok=True)
    names = ("seconds", "client", "workers", "arena", "descriptors")
    with open(out / "memory.csv", "w", newline="") as file:
        csv.writer(file).writerows([names, *samples])
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for column in (1, 2, 3):
        axes.plot([s[0] / 60 for s in samples], [s[column] / 1e6 for s in samples], label=names[column])
    axes.set(xlabel="minutes", ylabel="MB in memory", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(out / "memory.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
