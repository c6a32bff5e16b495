"""Random static schedules for the simulator, and what their tasks compute.

A task's value is a number that depends on its own number and on all its inputs in order, so a lost, doubled or stale
input shows in the result.
"""

from collections.abc import Mapping
from random import Random


class RandomSchedule:
    """A random directed acyclic graph with the reading interface of a plan.

    Parameters
    ----------
    random : Random
        Decides the graph.
    size : int
        Number of tasks.
    """

    def __init__(self, random: Random, size: int) -> None:
        self.size = size
        width = random.choice([1, 2, 3, 8])
        self._inputs: list[tuple[int, ...]] = []
        children: list[list[int]] = [[] for _ in range(size)]
        for task in range(size):
            near = range(max(0, task - 2 * width), task)
            count = min(len(near), random.choice([0, 1, 1, 2, 2, 3]) if task > width else random.choice([0, 0, 1]))
            inputs = tuple(sorted(random.sample(near, count)))
            self._inputs.append(inputs)
            for p in inputs:
                children[p].append(task)
        self._children = children
        sinks = [task for task in range(size) if not children[task]]
        extra = [task for task in range(size) if children[task] and random.random() < 0.1]
        self.outputs = sinks + extra
        self._outputs = set(self.outputs)
        self.leaves = [task for task in range(size) if not self._inputs[task]]
        self._height = [0] * size
        for task in reversed(range(size)):
            self._height[task] = 1 + max((self._height[c] for c in children[task]), default=0)
        large = random.choice([0.0, 0.3, 1.0])
        self.sizes = [random.choice([10**6, 10**8]) if random.random() < large else 100 for _ in range(size)]
        self.seconds = [random.choice([1e-5, 1e-3, 1e-3, 0.1]) for _ in range(size)]

    def loaded(self, task: int) -> bool:  # noqa: ARG002 - the whole schedule is always at hand
        return True

    def key(self, task: int) -> int:
        return task

    def kind(self, task: int) -> int:
        return task % 3

    def height(self, task: int) -> int:
        return self._height[task]

    def inputs(self, task: int) -> tuple[int, ...]:
        return self._inputs[task]

    def edges(self, task: int) -> list[tuple[int, int]]:
        return [(child, len(self._inputs[child])) for child in self._children[task]]

    def uses(self, task: int) -> list[tuple[int, int]]:
        return [(p, len(self._children[p]) + (p in self._outputs)) for p in self._inputs[task]]

    def is_output(self, task: int) -> bool:
        return task in self._outputs

    def run(self, task: int, values: Mapping[int, int]) -> int:
        """Compute the value of `task` from those of its inputs."""
        value = task + 1
        for p in self._inputs[task]:
            value = (value * 1_000_003 + values[p]) % (2**61 - 1)
        return value

    def results(self) -> list[int]:
        """Return the values of the outputs, computed one task after the other."""
        values: dict[int, int] = {}
        for task in range(self.size):
            values[task] = self.run(task, values)
        return [values[task] for task in self.outputs]
