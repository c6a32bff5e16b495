"""What every example prints: how long Wukong, Dask and plain NumPy or pandas took, and Wukong's figures.

One run of each, for information; `benchmarks/` measures.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dask
from threadpoolctl import threadpool_limits

import wukong
from wukong.diagnostics.summary import duration, summary


@contextmanager
def timed(who: str) -> Iterator[None]:
    """Print how long what runs inside took."""
    began = time.perf_counter()
    yield
    print(f"{who:<12} {duration(time.perf_counter() - began)}")


def by_wukong_and_dask(*collections: Any) -> tuple[Any, ...]:
    """Compute collections by Dask's own scheduler for them, then by Wukong, and return what Wukong found."""
    # Tasks run side by side: a BLAS with threads of its own beside each would only crowd the processors.
    with threadpool_limits(1):
        with timed("Dask"):
            dask.compute(*collections, scheduler=collections[0].__dask_scheduler__)
        with timed("Wukong"):
            results: tuple[Any, ...] = wukong.compute(*collections)
    print(summary(wukong.last_run()))
    return results
