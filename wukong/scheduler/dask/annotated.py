"""Annotations of Dask on their way to the tasks: from layers of a graph to its nodes, and from these to a walk.

A layer says it of all its tasks, or a function of the key does. Where Dask fuses layers it drops what they said.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from dask._task_spec import Task, convert_legacy_task

from wukong.scheduler.annotations import Annotation, read


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
    if "memory" not in said and "workers" not in said:
        return
    for key in keys:
        memory, workers, others = [_of(said.get(name), key) for name in ("memory", "workers", "allow_other_workers")]
        if memory is None and workers is None:
            continue
        note = read(key, memory, workers, bool(others))
        node = convert_legacy_task(key, graph[key], graph)
        if isinstance(node, Task):
            graph[key] = Annotated.of(node, note)


def _of(value: Any, key: Any) -> Any:
    """Return what is said of one task; Dask stands something in for what is said of others only."""
    value = value(key) if callable(value) else value
    return None if type(value).__name__ == "_AnnotationsTombstone" else value
