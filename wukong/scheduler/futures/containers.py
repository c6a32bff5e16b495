"""Futures in containers, and their values in the same places."""

from typing import Any

from wukong.futures import Future

#: Containers whose items are looked at; dictionaries, too.
SEVERAL = (list, tuple, set, frozenset)
_SKIPPED = object()


def collect(obj: Any, found: dict[Future, None]) -> None:
    """Add the futures in an object."""
    if isinstance(obj, Future):
        found[obj] = None
    elif type(obj) is dict:
        for item in obj.values():
            collect(item, found)
    elif type(obj) in SEVERAL:
        for item in obj:
            collect(item, found)


def values(obj: Any, errors: str) -> Any:
    """Return an object with values in the places of its futures, which are done."""
    if isinstance(obj, Future):
        return _SKIPPED if errors == "skip" and obj.exception() is not None else obj.result()
    if type(obj) is dict:
        pairs = {key: values(item, errors) for key, item in obj.items()}
        return {key: value for key, value in pairs.items() if value is not _SKIPPED}
    if type(obj) in SEVERAL:
        items = [values(item, errors) for item in obj]
        return type(obj)([value for value in items if value is not _SKIPPED])
    return obj
