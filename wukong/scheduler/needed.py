"""Which tasks of a walk nobody needs any more, when some of its results are given up. Counted, never searched for.

What a dropped task would have given, the class `wukong.executor.effects.Dropped` stands for: the walk, or the job, goes
its way as planned, and only what is dropped reads what is dropped.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable

from wukong.executor.alone import Walk
from wukong.executor.effects import Dropped
from wukong.scheduler.dask.nodes import data


class Needed:
    """Who needs each task of a walk.

    Parameters
    ----------
    walk : Walk
        Its nodes are replaced as they are dropped, so that whoever walks it passes them.
    """

    def __init__(self, walk: Walk) -> None:
        self._nodes = walk.nodes
        self._inputs: dict[Hashable, Collection[Hashable]] = dict(zip(walk.keys, walk.inputs, strict=True))
        self._places = {key: place for place, key in enumerate(walk.keys)}
        self._wanted = set(walk.wanted)
        self._readers = Counter(walk.wanted)
        for inputs in walk.inputs:
            self._readers.update(inputs)

    def drop(self, results: Iterable[Hashable]) -> list[Hashable]:
        """Give up results, each of them once at most; return the tasks that only they needed."""
        dropped: list[Hashable] = []
        given_up = [key for key in results if key in self._wanted]
        self._wanted.difference_update(given_up)
        while given_up:
            key = given_up.pop()
            self._readers[key] -= 1
            # What is known has no task.
            if not self._readers[key] and key in self._places:
                dropped.append(key)
                self._nodes[self._places[key]] = data(key, Dropped)
                given_up.extend(self._inputs[key])
        return dropped
