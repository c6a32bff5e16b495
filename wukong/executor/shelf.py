"""Values at hand, each let go when nothing here needs it any more."""

from collections.abc import Iterable
from typing import Any


class Shelf:
    """The values an executor has in memory.

    A value is needed by each task of this executor that will read it, while its own outcome is not settled, and while
    it is held for a child. When the last need ends it is dropped.

    Attributes
    ----------
    values : dict of int to object
        By task.
    sizes : dict of int to int
        Bytes of each, as far as known.
    """

    __slots__ = ("_needs", "sizes", "values")

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}
        self.sizes: dict[int, int] = {}
        self._needs: dict[int, int] = {}

    def put(self, task: int, value: Any, nbytes: int) -> None:
        """Keep a value."""
        self.values[task] = value
        self.sizes[task] = nbytes

    def need(self, tasks: Iterable[int]) -> None:
        """Note one more need of each value, whether it is here yet or not."""
        needs = self._needs
        for task in tasks:
            needs[task] = needs.get(task, 0) + 1

    def unneed(self, tasks: Iterable[int]) -> None:
        """End one need of each value."""
        needs = self._needs
        for task in tasks:
            left = needs[task] - 1
            if left:
                needs[task] = left
            else:
                del needs[task]
                self.values.pop(task, None)
                self.sizes.pop(task, None)
