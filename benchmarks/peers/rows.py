"""The rows of the benchmark: what is computed, at which size, in which way, and how good is good enough."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.peers import graphs, tasks

#: Within 5 % of the best peer, or within its spread.
LEVEL = 1.05
#: The goals for the geometric means over all rows: of the best peer of each, and of dask.distributed.
MEANS = {"best peer": 0.5, "distributed": 0.12}
#: Turns of `tasks.spin` in about a millisecond.
MS = 25_000


#: One row of each sort, for a quick look: starting everybody takes longer than any of them.
QUICK = ("tree", "chain", "gemm", "tsqr", "tree in Python", "spins", "mixed", "word count", "one by one", "at once")


@dataclass(frozen=True, slots=True)
class Limit:
    """A further goal of a row: at most `factor` of what another contestant takes, or of that over the processors."""

    factor: float
    of: str
    per_core: bool = False
    whose: str = "wukong"

    def __str__(self) -> str:
        return f"{self.whose} at most {self.factor:g} of {self.of}{' / cores' if self.per_core else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes
    ----------
    name, about : str
        In short, and as a format of its size.
    make, truth : callable
        Of a size: the arguments of `way`, and what must come out.
    full, quick, tiny : tuple
        Sizes: of the benchmark, of its quick version, of the tests.
    way : str
        The method of contestants that does it. Those without it take no part.
    goal : float
        Most that may be taken of the time of the best peer.
    limits : tuple of Limit
        Further goals.
    """

    name: str
    about: str
    make: Callable[..., tuple[Any, ...]]
    truth: Callable[..., Any]
    full: tuple[Any, ...]
    quick: tuple[Any, ...]
    tiny: tuple[Any, ...]
    way: str = "compute"
    goal: float = LEVEL
    limits: tuple[Limit, ...] = ()

    def size(self, which: str) -> tuple[Any, ...]:
        """Return the size for ``full``, ``quick`` or ``tiny``."""
        return {"full": self.full, "quick": self.quick, "tiny": self.tiny}[which]


def _row(name: str, about: str, *sizes: tuple[Any, ...], **more: Any) -> Row:
    """Return the row whose functions are `graphs.<name>` and `graphs.<name>_truth`."""
    function = name.replace(" ", "_")
    return Row(name, about, getattr(graphs, function), getattr(graphs, f"{function}_truth"), *sizes, **more)


def _long_tree(name: str, about: str, task: Callable[..., int], work: float, short: float) -> Row:
    make, truth = partial(graphs.long_tree, task), partial(graphs.long_tree_truth, task)
    return Row(name, about, make, truth, (work, 512), (work, 32), (short, 4))


def _no_ops(name: str, about: str, way: str, **more: Any) -> Row:
    return Row(name, about, graphs.no_ops, graphs.no_ops_truth, (1000,), (200,), (5,), way, **more)


ROWS = {
    row.name: row
    for row in (
        _row("tree", "tree of adds, {} leaves", (8192,), (1024,), (8,), goal=0.2),
        _row("fan", "one source, {} readers, one sum", (5000,), (1000,), (10,), goal=0.2),
        _row("diamonds", "{} wide, {} deep, two inputs each", (100, 50), (100, 10), (4, 3), goal=0.2),
        _row("chain", "chain of {} adds", (3000,), (300,), (10,), goal=0.25),
        _row("gemm", "x @ y, side {}, chunks of {}", (3072, 768), (1024, 256), (32, 16)),
        _row("tsqr", "R of {} x {}, blocks of {}", (500_000, 64, 25_000), (100_000, 64, 10_000), (64, 4, 16)),
        _row("svd", "SVD of {} x {}, blocks of {}", (200_000, 100, 10_000), (50_000, 50, 5000), (64, 4, 16)),
        _row("compressed", "compressed SVD, side {}, chunks of {}", (6000, 1500), (2000, 500), (48, 16)),
        _row("transpose", "x + x.T, side {}, chunks of {}", (8000, 1000), (2000, 500), (32, 16)),
        _row("rechunk", "rows to columns, side {}, {} each", (8000, 500), (2000, 250), (32, 8)),
        _long_tree("tree asleep", "tasks that sleep {} s, {} leaves", tasks.add_asleep, 0.005, 0.001),
        _long_tree("tree in Python", "tasks of {} turns, {} leaves", tasks.add_spinning, 5 * MS, 100),
        _row(
            "spins",
            "{1} calls of {0} turns",
            (20 * MS, 64),
            (10 * MS, 16),
            (100, 4),
            way="map",
            limits=(Limit(1.10, "dask sync", per_core=True),),
        ),
        _row("mixed", "x @ x, side {}, chunks of {}, {} turns", (2400, 400, 20 * MS), (800, 200, 5 * MS), (32, 16, 9)),
        _row("word count", "words of {} texts in {} parts", (400, 16), (100, 8), (6, 3)),
        _row("groupby", "table of {} parts of {} rows by key", (16, 200_000), (8, 50_000), (3, 100)),
        _row("shuffle", "table of {} parts of {} rows by key", (16, 200_000), (8, 50_000), (3, 100)),
        _no_ops(
            "one by one",
            "{} calls of nothing, each after the last",
            "each",
            limits=(Limit(0.1, "distributed"), Limit(3.0, "socket", whose="wukong processes")),
        ),
        _no_ops("at once", "{} calls of nothing at once", "together"),
    )
}
