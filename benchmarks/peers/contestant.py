"""What all who take part have in common: how they are started, told what to do, and stopped.

`compute` takes a Dask collection; `map` calls a function with each of some arguments as one job; `each` makes the calls
one after the other, and `together` makes all of them before it takes the first result. A contestant lacks what it does
not offer. All have the same number of workers and one BLAS thread in each.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

Function = Callable[[int], int]
Arguments = Sequence[int]


class Contestant:
    """What all have in common.

    Parameters
    ----------
    workers : int
        How many work at once.
    scratch : Path
        Where files may be left; it is removed afterwards.
    """

    #: What a user would have imported.
    imports: tuple[str, ...] = ()
    #: Whether it is one to be measured against, rather than ours or a floor.
    peer = True
    #: By way, where all calls would take too long: only every so many-th is made.
    sampled: Mapping[str, int] = MappingProxyType({})

    def __init__(self, workers: int, scratch: Path) -> None:
        self.workers = workers
        self.scratch = scratch
        for name in self.imports:
            import_module(name)
        self.configure()

    def configure(self) -> None:
        """Set what has to stand before graphs are made. Nothing is started."""

    def start(self) -> None:
        """Start workers; part of the first call."""

    def stop(self) -> None:
        """End what `start` has begun."""


class Submits(Contestant):
    """A contestant with a `client` whose `submit` gives futures."""

    client: Any

    def each(self, function: Function, arguments: Arguments) -> list[int]:
        """Submit and wait, one after the other."""
        return [self.client.submit(function, argument, pure=False).result() for argument in arguments]

    def together(self, function: Function, arguments: Arguments) -> list[int]:
        """Submit all, then wait."""
        return self.client.gather([self.client.submit(function, argument, pure=False) for argument in arguments])


class Graphs(Contestant):
    """A contestant that is a scheduler of Dask's graphs, and one more way to call functions."""

    # Dask looks for its other half at every compute.
    imports = ("dask", "distributed")
    scheduler: Any

    def compute(self, collection: Any) -> Any:
        """Return what a collection holds."""
        import dask

        return dask.compute(collection, scheduler=self.scheduler)[0]

    def map(self, function: Function, arguments: Arguments) -> list[int]:
        """Return a function's values, computed as one graph."""
        from dask import delayed

        call = delayed(function)
        return self.compute([call(argument) for argument in arguments])
