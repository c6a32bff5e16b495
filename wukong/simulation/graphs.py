"""Random static schedules for the simulator, and what their tasks compute.

A task's value is a number that depends on its own number and on all its inputs in order, so a lost, doubled or stale
input shows in the result.
"""

from collections.abc import Mapping
from random import Random

from wukong.protocol.sharding import BLOCK


class RandomSchedule:
    """A random directed acyclic graph with the reading interface of a plan.

    Parameters
    ----------
    random : Random
        Decides the graph.
    size : int
        Number of tasks. They are numbered with gaps, so that few tasks fall into several shards.
    """

    def __init__(self, random: Random, size: int) -> None:
        self._stride = stride = random.choice([1, BLOCK // 2, BLOCK])
        self.tasks = [i * stride for i in range(size)]
        width = random.choice([1, 2, 3, 8])
        self._inputs: list[tuple[int, ...]] = []
        children: list[list[int]] = [[] for _ in range(size)]
        for i in range(size):
            near = range(max(0, i - 2 * width), i)
            count = min(len(near), random.choice([0, 1, 1, 2, 2, 3]) if i > width else random.choice([0, 0, 1]))
            inputs = sorted(random.sample(near, count))
            self._inputs.append(tuple(p * stride for p in inputs))
            for p in inputs:
                children[p].append(i * stride)
        self._children = children
        sinks = [task for task in self.tasks if not self._below(task)]
        extra = [task for task in self.tasks if self._below(task) and random.random() < 0.1]
        self.outputs = sinks + extra
        self._outputs = set(self.outputs)
        #: Tasks that may run only once.
        self.only_once: set[int] = set()
        self.leaves = [task for task in self.tasks if not self.inputs(task)]
        self._height = [0] * size
        for i in reversed(range(size)):
            self._height[i] = 1 + max((self.height(child) for child in children[i]), default=0)
        large = random.choice([0.0, 0.3, 1.0])
        self._sizes = [random.choice([10**6, 10**8]) if random.random() < large else 100 for _ in range(size)]
        self._seconds = [random.choice([1e-5, 1e-3, 1e-3, 0.1]) for _ in range(size)]

    def nbytes(self, value: int) -> int:
        """Return the size of a value: it is decided by chance, but always the same."""
        return self._sizes[value % len(self._sizes)]

    def seconds(self, task: int) -> float:
        """Return how long a task runs."""
        return self._seconds[task // self._stride]

    def loaded(self, task: int) -> bool:  # noqa: ARG002 - the whole schedule is always at hand
        return True

    def key(self, task: int) -> int:
        return task

    def kind(self, task: int) -> int:
        return task // self._stride % 3

    def height(self, task: int) -> int:
        return self._height[task // self._stride]

    def inputs(self, task: int) -> tuple[int, ...]:
        return self._inputs[task // self._stride]

    def edges(self, task: int) -> list[tuple[int, int]]:
        return [(child, len(self.inputs(child))) for child in self._below(task)]

    def uses(self, task: int) -> list[tuple[int, int]]:
        return [(p, len(self._below(p)) + (p in self._outputs)) for p in self.inputs(task)]

    def is_output(self, task: int) -> bool:
        return task in self._outputs

    def once(self, task: int) -> bool:
        return task in self.only_once

    def run(self, task: int, values: Mapping[int, int]) -> int:
        """Compute the value of `task` from those of its inputs."""
        value = task + 1
        for p in self.inputs(task):
            value = (value * 1_000_003 + values[p]) % (2**61 - 1)
        return value

    def results(self) -> list[int]:
        """Return the values of the outputs, computed one task after the other."""
        values: dict[int, int] = {}
        for task in self.tasks:
            values[task] = self.run(task, values)
        return [values[task] for task in self.outputs]

    def _below(self, task: int) -> list[int]:
        return self._children[task // self._stride]
