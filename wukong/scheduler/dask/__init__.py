"""The only place that knows Dask's internals: its graphs, its nodes and its callbacks.

`graphs` turns whatever a Dask scheduler is given into tasks in depth-first order, `nodes` runs one task, `callbacks`
tells Dask's diagnostics, `lower` rewrites tasks as a plan for executors elsewhere. `collections` leads to futures and
back, `names` says which keys stand for one value for ever, `retries` and `locks` see to what annotations and Dask ask.
"""

# Locks are to be shared from the moment that anything of Dask's is taken.
from wukong.scheduler.dask import locks

__all__ = ["locks"]
