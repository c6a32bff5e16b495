"""Whether an object can leave the process, and if not, which part of it is to blame. Only errors pay for the search."""

from collections.abc import Iterator
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

from wukong import serialize
from wukong.errors import CannotTravel

#: Steps of a path to a culprit.
_DEEPEST = 40


def check_travels(obj: Any, what: str, kind: int = serialize.VALUE) -> serialize.Frame:
    """Return the frame of an object that has to leave the process.

    Parameters
    ----------
    obj : object
        What has to travel.
    what : str
        How the message names it, such as ``"task 'a': argument 1"``.
    kind : int
        See `wukong.serialize.dumps`.

    Raises
    ------
    CannotTravel
        If it cannot be pickled. The message gives the path to the part that cannot, such as
        ``.model -> .lock -> _thread.lock``.
    """
    try:
        return serialize.dumps(obj, kind)
    except Exception as error:
        path, part = culprit(obj)
        cls = type(part)
        steps = " -> ".join([*path, f"{cls.__module__}.{cls.__qualname__}"])
        raise CannotTravel(
            f"{what} cannot be sent to an executor: {steps} cannot be pickled ({error}). "
            "Make it inside the task, or run where tasks share the client's memory (granules='threads')."
        ) from error


def culprit(obj: Any) -> tuple[list[str], Any]:
    """Return the path to the innermost part of `obj` that cannot be pickled, and that part.

    Steps are ``.attribute``, ``[index]``, ``closure name``, ``global name`` and ``default i``.
    """
    path: list[str] = []
    seen = [obj]
    while len(path) < _DEEPEST:
        for step, part in _parts(obj):
            if not any(part is other for other in seen) and not travels(part):
                path.append(step)
                seen.append(part)
                obj = part
                break
        else:
            break
    return path, obj


def travels(obj: Any) -> bool:
    """Return whether an object can be pickled."""
    try:
        serialize.dumps(obj)
    except Exception:
        return False
    return True


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield what pickling `obj` would pickle in its turn, each with the step that leads there."""
    if isinstance(obj, FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, MethodType | BuiltinMethodType):
        if not isinstance(obj.__self__, ModuleType):
            yield ".__self__", obj.__self__
    elif isinstance(obj, partial):
        yield ".func", obj.func
        yield from ((f".args[{i}]", a) for i, a in enumerate(obj.args))
        yield from ((f".keywords[{name!r}]", a) for name, a in obj.keywords.items())
    elif isinstance(obj, dict):
        yield from ((f"key {key!r}", key) for key in obj)
        yield from ((f"[{key!r}]", value) for key, value in obj.items())
    elif isinstance(obj, list | tuple | set | frozenset):
        yield from ((f"[{i}]", item) for i, item in enumerate(obj))
    if not isinstance(obj, FunctionType | type):
        yield from _parts_of_state(obj)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure {name}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    yield from ((f"default {i}", value) for i, value in enumerate(function.__defaults__ or ()))
    yield from ((f"default {name}", value) for name, value in (function.__kwdefaults__ or {}).items())
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f"global {name}", function.__globals__[name]


def _parts_of_state(obj: Any) -> Iterator[tuple[str, Any]]:
    attributes = dict(getattr(obj, "__dict__", {}))
    for cls in type(obj).__mro__:
        names = cls.__dict__.get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if hasattr(obj, name):
                attributes[name] = getattr(obj, name)
    yield from ((f".{name}", value) for name, value in attributes.items())
    try:
        reduced = obj.__reduce_ex__(5)
    except Exception:
        return
    if isinstance(reduced, tuple):
        yield from ((f".__reduce_ex__()[1][{i}]", part) for i, part in enumerate(reduced[1]))
        if len(reduced) > 2 and reduced[2] is not None and not isinstance(reduced[2], dict):
            yield ".__getstate__()", reduced[2]
