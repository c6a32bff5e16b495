"""Dask graphs on serverless functions, with no central scheduler.

>>> import wukong
>>> wukong.compute({"a": 1, "b": (str, "a")}, keys="b")
'1'

After ``import wukong`` Dask knows the scheduler by name: ``dask.config.set(scheduler="wukong")``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import dask.base

from wukong.client import get

if TYPE_CHECKING:
    from wukong import config, errors
    from wukong.client import Client, compute, get_client, last_run, persist
    from wukong.futures import Future, as_completed, futures_of, wait
    from wukong.reuse import cache
    from wukong.scheduler.tries import once, retry

__version__ = "0.1.0"
__all__ = [
    "Client",
    "Future",
    "__version__",
    "as_completed",
    "cache",
    "compute",
    "config",
    "errors",
    "futures_of",
    "get",
    "get_client",
    "last_run",
    "once",
    "persist",
    "retry",
    "wait",
]

dask.base.named_schedulers["wukong"] = get

_MODULES = ("config", "errors")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"wukong.{name}")
    if name == "cache":
        return import_module("wukong.reuse").cache
    if name in ("once", "retry"):
        return getattr(import_module("wukong.scheduler.tries"), name)
    if name in ("Future", "as_completed", "futures_of", "wait"):
        return getattr(import_module("wukong.futures"), name)
    if name in __all__:
        return getattr(import_module("wukong.client"), name)
    raise AttributeError(f"module 'wukong' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
