"""What a task raised, on its way to another process: the exception itself if it can travel, and its traceback."""

import contextlib
import os
import traceback

from wukong import serialize
from wukong.errors import TaskFailed


def pack(error: BaseException) -> bytes:
    """Return the frame of an exception and of the text of its traceback."""
    where = f"raised in process {os.getpid()}:\n" + "".join(traceback.format_exception(error)).rstrip()
    # Where tblib is installed the traceback travels, too, unless it is a very long one.
    for _ in range(2):
        try:
            frame = bytes(serialize.dumps((error, where), serialize.ERROR))
            # Exceptions whose constructors take other arguments than they pass on can be packed, and not unpacked.
            serialize.loads(frame, serialize.ERROR)
        except Exception:
            error = error.with_traceback(None)
        else:
            return frame
    stand_in = TaskFailed(f"a task raised {_described(error)}; the exception itself cannot travel")
    return bytes(serialize.dumps((stand_in, where), serialize.ERROR))


def unpack(frame: serialize.Buffer) -> BaseException:
    """Return the exception, with its traceback as a note unless it came along."""
    error: BaseException
    error, where = serialize.loads(frame, serialize.ERROR)
    if error.__traceback__ is None:
        # Some errors can take no note: those of a frozen dataclass, for one.
        with contextlib.suppress(Exception):
            error.add_note(where)
    return error


def _described(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    with contextlib.suppress(Exception):
        kind += f": {error}"
    return kind
