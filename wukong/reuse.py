"""Results kept from one compute to the next, on request: ``wukong.cache("1GB")``. Nothing is kept otherwise.

Kept is the value of a wanted key if Dask made its name of everything that the value depends on, and so the name of
every key it comes from: then the same name is the same value. Of arrays and bags, whose parts Dask puts together under
a random name, the parts are kept. Names that people chose, impure delayed functions, what depends on them, and tasks
that write are computed each time. Functions that give something else each time under an honest name, such as
a `map_blocks` of a function that reads a clock, are taken at their word, as Dask takes them.

Kept values are sealed: each reader has a copy of his own, made page by page when he writes, so changes in place harm
nobody. What was returned by the compute that gave the value is the user's, too.
"""

from collections.abc import Callable
from threading import Lock
from time import perf_counter
from typing import Any, Self

from wukong.executor.effects import Dropped
from wukong.scheduler.dask.graphs import flatten, merge
from wukong.scheduler.dask.names import reusable
from wukong.sizes import parse_bytes
from wukong.storage.arena import Arena, Sealed


class _Kept:
    """A value, and what it is worth to keep it."""

    __slots__ = ("nbytes", "score", "sealed", "seconds", "uses")

    def __init__(self, sealed: Sealed, seconds: float) -> None:
        self.sealed = sealed
        self.nbytes = max(len(sealed), 1)
        self.seconds = seconds
        self.uses = 1
        self.score = 0.0


class cache:  # noqa: N801 - used as a function, and as a context manager like wukong.config.set
    """Keep results for later computes of this process, or, in a ``with`` statement, until its end.

    Which are kept where there is no room for all: those with the most seconds saved per byte, uses counting; every use
    makes young again (GreedyDual-Size-Frequency, Cherkasova 1998).

    Parameters
    ----------
    nbytes : int, str or None
        Room for them, such as ``"1GB"``; None keeps nothing.

    Raises
    ------
    ConfigError
        If it is no size.

    Attributes
    ----------
    hits, misses : int
        Results that were found, and deterministic ones that were not.
    nbytes : int
        What is kept, in bytes.

    Examples
    --------
    >>> import dask, wukong
    >>> x = dask.delayed(pow, pure=True)(2, 10)
    >>> with cache("10MB") as kept:
    ...     wukong.compute(x), wukong.compute(x), kept.hits
    ((1024,), (1024,), 1)
    """

    def __init__(self, nbytes: int | str | None = "1GB") -> None:
        global _active
        limit = parse_bytes(nbytes, "nbytes")
        self.limit = limit or 0
        self.hits = 0
        self.misses = 0
        self.nbytes = 0
        self._lock = Lock()
        self._kept: dict[Any, _Kept] = {}
        self._arena = Arena()
        self._age = 0.0
        self._before = _active
        _active = self if limit else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        global _active
        _active = self._before
        self.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Any) -> bool:
        return key in self._kept

    def __repr__(self) -> str:
        return (
            f"<cache: {len(self)} results, {self.nbytes:,} of {self.limit:,} bytes, "
            f"{self.hits} hits, {self.misses} misses>"
        )

    def clear(self) -> None:
        """Forget every result."""
        with self._lock:
            self._kept.clear()
            self.nbytes = 0

    def compute(self, run: Callable[..., Any], graph: Any, keys: Any, given: Any, **options: Any) -> tuple[Any, int]:
        """Run a graph without what is kept of it, and keep what it gives.

        Parameters
        ----------
        run : callable
            Called as ``run(graph, keys, cache=values, **options)`` for the values of keys.
        graph, keys : graph and keys
        given : mapping of key to value, or None
            Values known otherwise.

        Returns
        -------
        values, hits
            As `run` gives them, and how many results were found.
        """
        nodes, wanted, given = merge(graph), flatten(keys), dict(given or ())
        needed, pure = reusable(nodes, wanted, given, list(self._kept))
        found = self._find(needed)
        if len(found) < len(needed):  # forgotten meanwhile
            _, pure = reusable(nodes, wanted, {**given, **found}, ())
        began = perf_counter()
        values, results = run(nodes, [keys, pure], cache={**given, **found}, **options)
        seconds = perf_counter() - began
        with self._lock:
            self.misses += len(pure)
        for key, value in zip(pure, results, strict=True):
            self._keep(key, value, seconds / len(pure))
        return values, len(found)

    def _find(self, keys: list[Any]) -> dict[Any, Any]:
        found: dict[Any, Sealed] = {}
        with self._lock:
            for key in keys:
                kept = self._kept.get(key)
                if kept is not None:
                    kept.uses += 1
                    self._score(kept)
                    found[key] = kept.sealed
            self.hits += len(found)
        return {key: self._arena.unseal(sealed) for key, sealed in found.items()}

    def _keep(self, key: Any, value: Any, seconds: float) -> None:
        # Of a class, `nbytes` is the property itself.
        if value is Dropped or getattr(value, "nbytes", 0) > self.limit:
            return
        try:
            kept = _Kept(self._arena.seal(value), seconds)
        except Exception:  # it cannot be copied, so it cannot be kept safely
            return
        if kept.nbytes > self.limit:
            return
        with self._lock:
            self._score(kept)
            self._forget(key)
            self._kept[key] = kept
            self.nbytes += kept.nbytes
            while self.nbytes > self.limit:
                worst = min(self._kept, key=lambda key: self._kept[key].score)
                self._age = self._kept[worst].score
                self._forget(worst)

    def _forget(self, key: Any) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.nbytes -= kept.nbytes

    def _score(self, kept: _Kept) -> None:
        kept.score = self._age + kept.uses * kept.seconds / kept.nbytes


_active: cache | None = None


def active() -> cache | None:
    """Return the cache that is in use, or None."""
    return _active
