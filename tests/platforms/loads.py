"""Functions that look at what a worker has imported. This module itself imports nothing heavy."""

import sys


def modules():
    return [name for name in ("dask", "numpy", "wukong.client") if name in sys.modules]


def uses_wukong():
    import wukong

    return wukong.compute({"a": 1}, keys="a")


def uses_dask():
    import dask

    return dask.config.get("scheduler")
