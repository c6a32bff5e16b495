"""What a scheduler costs a task: graphs of `operator.add` through Delayed, and raw graphs of growing size.

    python benchmarks/overhead.py [--rounds 5] [--json out/overhead.json] [--quick]

Entrances and Dask's schedulers take turns within each round, so that they share the machine's moods, and all of them
compute the same collections. Times are medians of whole computes, Dask's front door and the adapter included.
Each size of the raw graphs runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import gc
import json
import multiprocessing
import operator
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import dask
from dask import delayed

import wukong
from wukong.events import Run

#: At least so many times faster than the best of Dask's schedulers.
GOALS = {"tree": 5.0, "fan": 5.0, "diamonds": 5.0, "chain": 4.0}
GOAL_MICROSECONDS = 8.0
#: What a run says of itself if its tasks did not seem long enough to be handed over to threads.
ALONE = Run().where


def tree(leaves: int) -> Any:
    """Sum of pairs, of pairs of pairs..."""
    add = delayed(operator.add)
    level = [add(i, i + 1) for i in range(leaves)]
    while len(level) > 1:
        level = [add(left, right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return level[0]


def fan(width: int) -> Any:
    """One source, many readers, one sum."""
    add = delayed(operator.add)
    source = add(1, 2)
    return delayed(sum)([add(source, i) for i in range(width)])


def diamonds(width: int, depth: int) -> Any:
    """Rows of tasks, each reading two of the row before."""
    add = delayed(operator.add)
    row = [add(i, 1) for i in range(width)]
    for _ in range(depth):
        row = [add(row[i], row[(i + 1) % width]) for i in range(width)]
    return delayed(sum)(row)


def chain(length: int) -> Any:
    """Each task reads the one before."""
    add = delayed(operator.add)
    link = add(1, 1)
    for _ in range(length - 1):
        link = add(link, 1)
    return link


ENTRANCES: dict[str, Callable[[Any], Any]] = {
    "dask sync": lambda x: x.compute(scheduler="sync"),
    "dask threads": lambda x: x.compute(scheduler="threads"),
    "wukong.compute(x)": lambda x: wukong.compute(x)[0],
    "x.compute(wukong.get)": lambda x: x.compute(scheduler=wukong.get),
}


def measure(rounds: int, shrink: int) -> dict[str, Any]:
    """Return for each graph the microseconds a task of each entrance, and how much faster ours are than Dask's best."""
    graphs = {
        "tree": tree(8192 // shrink),
        "fan": fan(10_000 // shrink),
        "diamonds": diamonds(100, 50 // shrink),
        "chain": chain(5000 // shrink),
    }
    tasks = {name: _count(x) for name, x in graphs.items()}
    times: dict[str, dict[str, list[float]]] = {name: {entrance: [] for entrance in ENTRANCES} for name in graphs}
    handed_over = dict.fromkeys(graphs, 0)
    for _ in range(rounds):
        for name, x in graphs.items():
            results = set()
            for entrance, compute in ENTRANCES.items():
                gc.collect()
                began = perf_counter()
                results.add(compute(x))
                times[name][entrance].append(perf_counter() - began)
                run = wukong.last_run()
                handed_over[name] += bool("wukong" in entrance and run and run.where != ALONE)
            if len(results) != 1:
                sys.exit(f"{name}: results differ: {results}")
    found = {}
    for name in graphs:
        each = {entrance: 1e6 * statistics.median(times[name][entrance]) / tasks[name] for entrance in ENTRANCES}
        dasks_best = min(cost for entrance, cost in each.items() if entrance.startswith("dask"))
        ratios = {entrance: dasks_best / cost for entrance, cost in each.items() if "wukong" in entrance}
        found[name] = {
            "tasks": tasks[name],
            "microseconds_a_task": each,
            "spread": {entrance: max(taken) / min(taken) for entrance, taken in times[name].items()},
            "times_faster": ratios,
            "handed_over": handed_over[name],
            "goal": GOALS[name],
            "met": min(ratios.values()) >= GOALS[name]
            and all(each[entrance] <= GOAL_MICROSECONDS for entrance in ratios),
        }
    return found


def _count(x: Any) -> int:
    # Also the warm-up that loads the scheduler's modules.
    wukong.compute(x)
    run = wukong.last_run()
    return run.tasks if run else 0


def raw(kind: str, tasks: int) -> dict[str, float]:
    """Build and compute a raw graph of additions; return seconds, and megabytes at the peak."""
    wukong.compute({"a": (int,)}, keys="a")
    gc.collect()
    before = _peak()
    began = perf_counter()
    if kind == "chain":
        graph = {("x", i): (operator.add, ("x", i - 1), 1) if i else 1 for i in range(tasks)}
        expected = tasks
    else:
        graph = {f"x{i}": (operator.add, f"x{2 * i}", f"x{2 * i + 1}") if 2 * i < tasks else 1 for i in range(1, tasks)}
        graph[f"x{tasks}"] = 1
        expected = (tasks + 1) // 2
    built = perf_counter()
    graph_peak = _peak()
    result = wukong.compute(graph, keys=("x", tasks - 1) if kind == "chain" else "x1")
    ended = perf_counter()
    if result != expected:
        sys.exit(f"{kind} of {tasks}: {result}, not {expected}")
    return {
        "graph_seconds": built - began,
        "seconds": ended - built,
        "microseconds_a_task": 1e6 * (ended - built) / tasks,
        "before_megabytes": before,
        "graph_megabytes": graph_peak,
        "peak_megabytes": _peak(),
    }


def _peak() -> float:
    # Not getrusage: its peak is handed down from the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def grow(largest: int) -> dict[str, dict[int, dict[str, float]]]:
    """Measure raw graphs of 10^3 tasks and more, each in a new process."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for kind in ("chain", "tree"):
            found[kind] = {}
            size = 1000
            while size <= largest:
                found[kind][size] = pool.apply(raw, (kind, size - 1 if kind == "tree" else size))
                size *= 10
    return found


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="graphs an eighth as large, two rounds")
    options = parser.parse_args()
    found = {
        "machine": {"python": platform.python_version(), "dask": dask.__version__, "wukong": wukong.__version__},
        "delayed": measure(2 if options.quick else options.rounds, 8 if options.quick else 1),
        "raw": grow(10_000 if options.quick else 1_000_000),
    }
    for name, row in found["delayed"].items():
        verdict = "met" if row["met"] else "MISSED"
        handed_over = f", {row['handed_over']} runs handed over to threads" if row["handed_over"] else ""
        print(f"{name}, {row['tasks']} tasks: goal {row['goal']}x and {GOAL_MICROSECONDS} us, {verdict}{handed_over}")
        for entrance, cost in row["microseconds_a_task"].items():
            ratio = row["times_faster"].get(entrance)
            faster = f"  {ratio:5.1f} times faster" if ratio else ""
            print(f"    {entrance:24}{cost:8.2f} us a task{faster}")
    for kind, rows in found["raw"].items():
        for size, row in rows.items():
            print(
                f"raw {kind:6}{size:9} tasks {row['seconds']:8.3f} s {row['microseconds_a_task']:6.2f} us a task"
                f"{row['peak_megabytes']:8.0f} MB at the peak ({row['before_megabytes']:.0f} before the graph,"
                f" {row['graph_megabytes']:.0f} with it)"
            )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
