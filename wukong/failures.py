"""What a task raised, on its way to another process: the exception itself, or what can travel of it; its traceback."""

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wukong import serialize
from wukong.errors import TaskFailed
from wukong.travel import travels

#: Errors raised from each other that travel one by one; of the rest the text does.
_MOST = 8


def pack(error: BaseException, most: int = _MOST) -> bytes:
    """Return the frame of an exception, of the one that it was raised from, and of the text of its traceback."""
    cause = error.__cause__ if most > 1 else None
    text = "".join(traceback.format_exception(error, chain=cause is None)).rstrip()
    where = f"raised in process {os.getpid()}:\n{text}"
    before = None if cause is None else pack(cause, most - 1)
    # Where tblib is installed the traceback travels, too, unless it is a very long one.
    forms: tuple[Callable[[], Any], ...] = (lambda: error, lambda: error.with_traceback(None), lambda: _Bare(error))
    for form in forms:
        with suppress(Exception):
            frame = bytes(serialize.dumps(form(), serialize.ERROR))
            # Exceptions whose constructors take other arguments than they pass on can be packed, and not unpacked.
            serialize.loads(frame, serialize.ERROR)
            break
    else:
        stand_in = TaskFailed(f"a task raised {_described(error)}; the exception itself cannot travel")
        frame = bytes(serialize.dumps(stand_in, serialize.ERROR))
    return bytes(serialize.dumps((frame, _described(error), where, before), serialize.ERROR))


def unpack(frame: serialize.Buffer) -> BaseException:
    """Return the exception, with its traceback as a note unless it came along."""
    error: BaseException
    packed, described, where, before = serialize.loads(frame, serialize.ERROR)
    try:
        error = serialize.loads(packed, serialize.ERROR)
    except Exception as why:  # of a module that is to be found only where it was raised, for one
        error = TaskFailed(f"a task raised {described}; the exception itself cannot be loaded here: {why!r}")
    # Some errors let no attribute be set, and take no note: those of a frozen dataclass, for one.
    with suppress(Exception):
        if before is not None:
            error.__cause__ = unpack(before)
        if error.__traceback__ is None:
            error.add_note(where)
    return error


class _Bare:
    """Travels as an exception that is made without its constructor, and without what of it cannot travel."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        error = self._error
        args = tuple(arg if travels(arg) else repr(arg) for arg in error.args)
        return _made, (type(error), args, {name: part for name, part in error.__dict__.items() if travels(part)})


def _made(kind: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


def _described(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    with suppress(Exception):
        kind += f": {error}"
    return kind
