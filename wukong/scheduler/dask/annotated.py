"""Annotations of Dask on their way to the tasks: from layers of a graph to its nodes, and from these to a walk.

A layer says it of all its tasks, or a function of the key does. Where Dask fuses layers it drops what they said.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from dask._task_spec import Task, convert_legacy_task

from wukong.errors import AnnotationError
from wukong.scheduler.annotations import Annotation, read
from wukong.scheduler.tries import Retry


class Annotated(Task):  # type: ignore[misc]
    """A task of which something is said; for all else it is what `bare` is."""

    __slots__ = ("bare", "note")
    bare: Task
    note: Annotation

    @classmethod
    def of(cls, bare: Task, note: Annotation) -> "Annotated":
        """Return a task with what is said of it."""
        node = cls(bare.key, bare.func, *bare.args, **bare.kwargs)
        node.bare, node.note = bare, note
        return node


def annotate(graph: dict[Any, Any], keys: Iterable[Any], said: Mapping[str, Any]) -> None:
    """Let tasks of a graph carry what a layer says of them, as far as anybody here listens to it.

    Parameters
    ----------
    graph : dict
        Changed in place.
    keys : iterable of keys
        Of the layer.
    said : mapping
        Annotations of the layer, each a value or a function of the key.

    Raises
    ------
    AnnotationError
        If a size cannot be read, or a name of workers is none that there is.
    """
    if _LISTENED.isdisjoint(said):
        return
    for key in keys:
        memory, workers, others, once = [_of(said.get(name), key) for name in _NAMES]
        if memory is None and workers is None and not once:
            continue
        if once and _of(said.get("retries"), key):
            raise AnnotationError(f"task {key!r} is to run once, and is to be retried; take one of the two away")
        note = read(key, memory, workers, bool(others), bool(once))
        node = convert_legacy_task(key, graph[key], graph)
        if isinstance(node, Task):
            graph[key] = Annotated.of(node, note)


_NAMES: Final = ("memory", "workers", "allow_other_workers", "once")
_LISTENED: Final = frozenset({"memory", "workers", "once"})


def _of(value: Any, key: Any) -> Any:
    """Return what is said of one task; Dask stands something in for what is said of others only."""
    value = value(key) if callable(value) and not isinstance(value, Retry) else value
    return None if type(value).__name__ == "_AnnotationsTombstone" else value
