"""How time and memory of compiling grow with the graph: raw trees, chains and fans of `operator.add`, 10^3..10^6 tasks.

    python benchmarks/plan_growth.py [largest] [shape ...]

Each line is a process of its own; times are of its CPU, so that other work on the machine shows less. *graph* is the
making of Dask's objects; *lower* takes them to a plan, *encode* to bytes and blobs, *decode* back to a view with every
segment loaded; *run* runs all tasks by number with values dropped after their last use. Memory is that of the process,
Dask's objects and interpreter included: at its peak, and for the plan alone by what lowering added.
"""

import gc
import resource
import subprocess
import sys
from operator import add
from time import process_time
from typing import Any

from dask._task_spec import Task, TaskRef

from wukong.plan.codec import encode
from wukong.plan.view import PlanView
from wukong.scheduler.dask.lower import lower


def tree(size: int) -> tuple[dict[Any, Any], Any]:
    """Return a tree reduction of about `size` tasks, and its root."""
    level = [("leaf", i) for i in range((size + 1) // 2)]
    graph = {key: Task(key, add, key[1], 1) for key in level}
    number = 0
    while len(level) > 1:
        above: list[Any] = []
        for left, right in zip(level[::2], level[1::2], strict=False):
            key = ("sum", number)
            number += 1
            graph[key] = Task(key, add, TaskRef(left), TaskRef(right))
            above.append(key)
        level = above + level[len(above) * 2 :]
    return graph, level[0]


def chain(size: int) -> tuple[dict[Any, Any], Any]:
    """Return a chain of `size` tasks, and its end."""
    graph: dict[Any, Any] = {("link", 0): Task(("link", 0), add, 0, 1)}
    for i in range(1, size):
        graph["link", i] = Task(("link", i), add, TaskRef(("link", i - 1)), 1)
    return graph, ("link", size - 1)


def total(*values: int) -> int:
    """Return the sum of the arguments."""
    return sum(values)


def fan(size: int) -> tuple[dict[Any, Any], Any]:
    """Return one task, `size` - 2 children of it, and the sum of these."""
    graph: dict[Any, Any] = {"root": Task("root", add, 1, 1)}
    blades = [("blade", i) for i in range(size - 2)]
    graph |= {key: Task(key, add, TaskRef("root"), key[1]) for key in blades}
    graph["sum"] = Task("sum", total, *map(TaskRef, blades))
    return graph, "sum"


def peak() -> int:
    """Return the most bytes this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(shape: str, size: int) -> None:
    """Compile one graph and print its line."""
    gc.disable()  # as a compute does while it compiles: nothing here is garbage
    started = process_time()
    graph, root = {"tree": tree, "chain": chain, "fan": fan}[shape](size)
    made, before = process_time(), peak()
    plan = lower(graph, [root])
    lowered, after = process_time(), peak()
    encoded = encode(plan)
    packed = process_time()
    blobs = {digest: bytes(frame) for digest, frame in encoded.blobs.items()}
    joined = process_time()
    view = PlanView(encoded.manifest, lambda digests: [blobs[digest] for digest in digests])
    view.load(range(view.size))
    decoded = process_time()
    values: dict[int, Any] = {}
    left: dict[int, int] = {}
    for task in range(plan.size):
        values[task] = plan.run(task, values)
        left[task] = plan.consumers(task)
        for p in plan.inputs(task):
            left[p] -= 1
            if not left[p]:
                del values[p]
    ran = process_time()
    each = [
        1e6 * seconds / len(graph) for seconds in (lowered - made, packed - lowered, decoded - joined, ran - decoded)
    ]
    wire = (len(encoded.manifest) + sum(map(len, blobs.values()))) / len(graph)
    print(
        f"{shape:6} {len(graph):9,} {made - started:8.2f} "
        + " ".join(f"{us:8.2f}" for us in each)
        + f" {(after - before) / len(graph):9.0f} {wire:9.0f} {len(blobs):6} {peak() / 2**20:10.0f}"
    )


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2], int(sys.argv[3]))
        return
    largest = int(float(sys.argv[1])) if len(sys.argv) > 1 else 1_000_000
    print("               graph    lower   encode   decode      run      plan      wire            process")
    print("shape      tasks   s     us/task  us/task  us/task  us/task   B/task    B/task  blobs   peak MiB")
    for shape in sys.argv[2:] or ["tree", "chain", "fan"]:
        size = 1000
        while size <= largest:
            subprocess.run([sys.executable, __file__, "--one", shape, str(size)], check=True)
            size *= 10


if __name__ == "__main__":
    main()
