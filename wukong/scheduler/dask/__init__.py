"""The only place that knows Dask's internals: its graphs, its nodes and its callbacks.

`graphs` turns whatever a Dask scheduler is given into tasks in depth-first order, `nodes` runs one task, `callbacks`
tells Dask's diagnostics, `lower` rewrites tasks as a plan for executors elsewhere.
"""

from wukong.scheduler.dask import locks

__all__ = ["locks"]
