"""Futures in containers and persisted collections, and their values in the same places. Not those of calls: `call`."""

from collections.abc import Iterable
from typing import Any

from wukong.scheduler.dask.collections import futures_in, is_dask_collection

#: Containers whose items are looked at; dictionaries and named tuples, too.
SEVERAL = (list, tuple, set, frozenset)
_SKIPPED = object()


def futures_of(obj: Any) -> list[Any]:
    """Return the futures in an object: itself, or in containers, iterables, and persisted collections of Dask.

    Raises
    ------
    TypeError
        If it is none of these.
    """
    if not (_is_future(obj) or _several(obj) or type(obj) is dict or is_dask_collection(obj)):
        if not isinstance(obj, Iterable) or isinstance(obj, str | bytes):
            raise TypeError(f"futures are wanted here, alone or in containers or collections, not {obj!r}")
        obj = list(obj)
    found: dict[Any, None] = {}
    collect(obj, found, True)
    return list(found)


def collect(obj: Any, found: dict[Any, None], persisted: bool = False) -> None:
    """Add the futures in an object; those in persisted collections, too, if so asked."""
    if _is_future(obj):
        found[obj] = None
    elif type(obj) is dict:
        for item in obj.values():
            collect(item, found, persisted)
    elif _several(obj):
        for item in obj:
            collect(item, found, persisted)
    elif persisted and is_dask_collection(obj):
        found.update(dict.fromkeys(futures_in(obj)))


def values(obj: Any, errors: str) -> Any:
    """Return an object with values in the places of its futures, which are done."""
    if _is_future(obj):
        return _SKIPPED if errors == "skip" and obj.exception() is not None else obj.result()
    if type(obj) is dict:
        pairs = {key: values(item, errors) for key, item in obj.items()}
        return {key: value for key, value in pairs.items() if value is not _SKIPPED}
    if _several(obj):
        items = [value for item in obj if (value := values(item, errors)) is not _SKIPPED]
        if type(obj) in SEVERAL:
            return type(obj)(items)
        # A named tuple that lacks one is none.
        return type(obj)(*items) if len(items) == len(obj) else tuple(items)
    return obj


def _is_future(obj: Any) -> bool:
    return getattr(type(obj), "__dask_future__", False)


def _several(obj: Any) -> bool:
    return type(obj) in SEVERAL or (isinstance(obj, tuple) and hasattr(obj, "_fields"))
