"""Random graphs on worker processes, one of which is killed at random every second: wrong, left, and how memory goes.

    python -m tests.faults.soak [--minutes 30] [--every 1.0] [--seed 0] [--store 3] [--out out/soak]

Every third job, or as `--store` says, has its records and values in a Redis server; 0 for none. Says every 10
seconds how far it is. Leaves `soak.json`, with everything counted and each leftover by its name, `memory.csv`, and,
where Matplotlib is installed, `memory.png`: the memory of the client, of its workers, of the arena and of the server.
"""

import argparse
import csv
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask

import wukong
from tests import servers
from tests.faults import processes
from tests.faults.stores import Row
from tests.platforms.packs import is_alive
from wukong.platforms.local.pack import Pack
from wukong.platforms.local.packs import pack_of
from wukong.scheduler import stores

PAGE = os.sysconf("SC_PAGE_SIZE")
#: Columns of the samples.
NAMES = ("seconds", "client", "workers", "arena", "server", "descriptors")
MEMORY = NAMES[1:5]
#: Memory may grow so much from the second third of the run to the last, and so many bytes, and count as flat.
GROWS, AT_LEAST = 1.1, 20e6


def main() -> int:
    """Run; return 1 if anything was wrong, hung or left, or memory grew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=int, default=3, help="one job in so many is over a server; 0: none")
    parser.add_argument("--out", type=Path, default=Path("out/soak"))
    options = parser.parse_args()
    pack = pack_of(2)
    assert pack is not None
    with server() as (url, server_pid):
        there = pack, url, server_pid
        row, jobs, samples = work(there, options.minutes * 60, options.every, options.seed, options.store)
        left = processes.left(pack, url)
        stores.close()
    left += outlived(pack)
    row.leftovers = len(left)
    found = summary(row, jobs, samples, left)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "soak.json").write_text(json.dumps(found, indent=2) + "\n")
    write(samples, options.out)
    print(json.dumps(found, indent=2))
    print(wukong.last_run())
    return int(not found["good"])


def work(
    there: tuple[Pack, str, int], seconds: float, every: float, seed: int, store: int
) -> tuple[Row, dict[str, int], list[tuple[float, ...]]]:
    """Run jobs for so long; return what came of them, how many were where, and the samples of memory."""
    pack, url, _ = there
    row, jobs = Row("kill -9 at random"), {"memory": 0, "server": 0}
    began, told = time.monotonic(), 0.0
    samples: list[tuple[float, ...]] = []
    with processes.Killer(pack, signal.SIGKILL, seed, every) as killer:
        while (passed := time.monotonic() - began) < seconds:
            seed += 1
            graph, outputs = processes.graph_of(seed)
            at = url if store and not seed % store else None
            jobs["memory" if at is None else "server"] += 1
            before = row.errors
            processes.run(row, graph, outputs, dask.get(graph, outputs), store=at)
            if row.errors > before:
                row.said.append(f"{'memory' if at is None else 'server'}: {row.last}")
            row.injected = killer.times
            if not samples or passed > samples[-1][0] + 1:
                samples.append((passed, *sizes(*there), len(os.listdir("/proc/self/fd"))))
            if passed >= told + 10 or row.wrong or row.hangs:
                told = passed
                sizes_now = ", ".join(f"{n} {v / 1e6:.0f}" for n, v in zip(MEMORY, samples[-1][1:5], strict=True))
                counts = f"{row.injected} killed, {row.right} right, {row.errors} errors, {row.wrong} wrong"
                print(f"{passed / 60:5.1f} min: {counts}, {row.hangs} hangs; MB: {sizes_now}", flush=True)
    return row, jobs, samples


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """Start a server; give its URL and process number."""
    with servers.redis_over_tcp() as url:
        link = stores.shared_link(url)
        info = bytes(link.call(b"", b"INFO", b"server")).decode()
        yield url, int(info.partition("process_id:")[2].split()[0])


def outlived(pack: Pack) -> list[str]:
    """Close the pack; return the processes that are still there."""
    pids = {pack.keeper: "keeper", **dict.fromkeys(pack.pids, "worker")}
    pack.close()
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return [f"{what} {pid}" for pid, what in pids.items() if is_alive(pid)]


def is_lost(said: str) -> bool:
    """Whether an error says that a task has killed too many workers."""
    return "TaskLost" in said


def summary(row: Row, jobs: dict[str, int], samples: list[tuple[float, ...]], left: list[str]) -> dict[str, Any]:
    """Return everything that was counted, and whether it is good."""
    third = max(1, len(samples) // 3)
    thirds = [samples[:third], samples[third : 2 * third] or samples, samples[-third:]]
    most = {name: [max(s[i + 1] for s in part) for part in thirds] for i, name in enumerate(MEMORY)}
    flat = {name: last <= max(GROWS * middle, middle + AT_LEAST) for name, (_, middle, last) in most.items()}
    return {
        # A task may be so unlucky that three of its workers are killed; nothing else is an excuse.
        "good": not (row.wrong or row.hangs or left) and all(flat.values()) and all(map(is_lost, row.said)),
        "minutes": round(samples[-1][0] / 60, 2),
        "killed": row.injected,
        "jobs": jobs,
        **{name: getattr(row, name) for name in ("right", "errors", "wrong", "hangs")},
        "what the errors said": row.said,
        "left": left,
        "slowest job, seconds": round(row.slowest, 2),
        "most MB in each third": {name: [round(each / 1e6, 1) for each in parts] for name, parts in most.items()},
        "flat": flat,
        "descriptors of the client": [samples[0][5], samples[-1][5]],
    }


def sizes(pack: Pack, _: str, server_pid: int) -> tuple[float, ...]:
    """Return bytes in memory: of the client, of its workers, which share much of it, of the arena, of the server."""
    workers = sum(map(resident, pack.pids))
    return resident(os.getpid()), workers, pack.arena.figures().in_memory, resident(server_pid)


def resident(pid: int) -> float:
    """Return the bytes of a process that are in memory; 0 if it is gone."""
    try:
        return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0.0


def write(samples: list[tuple[float, ...]], out: Path) -> None:
    """Leave the samples, and a plot if that can be."""
    with open(out / "memory.csv", "w", newline="") as file:
        csv.writer(file).writerows([NAMES, *samples])
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for column in range(1, 5):
        axes.plot([s[0] / 60 for s in samples], [s[column] / 1e6 for s in samples], label=NAMES[column])
    axes.set(xlabel="minutes", ylabel="MB in memory", ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(out / "memory.png", dpi=150)


if __name__ == "__main__":
    sys.exit(main())
