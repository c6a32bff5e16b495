"""What tasks print and log, from the worker where they run to the client where people look. Not results, not errors.

`sys.stdout` and `sys.stderr` of a worker send whole lines; the client writes them to whatever its own are at the time,
so that a notebook shows them. Records of `logging` go to the logger of the same name in the client. What C code writes
goes to the descriptors that all processes share.
"""

import contextlib
import io
import logging
import pickle
import sys
from collections.abc import Callable, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wukong.platforms.local.member import Member

Tell = Callable[..., None]


class Said(io.TextIOBase):
    """A stream of a worker that sends what is written to it, line by line.

    Parameters
    ----------
    name : str
        ``stdout`` or ``stderr``.
    tell : callable
        The way to the client.
    """

    def __init__(self, name: str, tell: Tell) -> None:
        self.name = f"<{name}>"
        self._stream = name
        self._tell = tell
        self._parts: list[str] = []
        # A signal handler may print in the middle of a print.
        self._writing = RLock()

    encoding = "utf-8"
    errors = "replace"

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor that C code and programs write to."""
        original = sys.__stdout__ if self._stream == "stdout" else sys.__stderr__
        if original is None:
            raise io.UnsupportedOperation("fileno")
        return original.fileno()

    def write(self, text: str) -> int:
        """Keep text until its line is complete."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._writing:
            head, newline, tail = text.rpartition("\n")
            if newline:
                self._parts.append(head + newline)
                self._send()
            if tail:
                self._parts.append(tail)
        return len(text)

    def flush(self) -> None:
        """Send an incomplete line."""
        with self._writing:
            self._send()

    def _send(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts.clear()
            self._tell("said", self._stream, text)


class Logged(logging.Handler):
    """Sends records to the client."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; its arguments and traceback as text, if they cannot be sent."""
        attributes = dict(record.__dict__)
        if record.exc_info:
            attributes["exc_text"] = record.exc_text or logging.Formatter().formatException(record.exc_info)
            attributes["exc_info"] = None
        try:
            packed = pickle.dumps(attributes, 5)
        except Exception:
            attributes = {name: value for name, value in attributes.items() if type(value) in (str, int, float)}
            packed = pickle.dumps({**attributes, "msg": record.getMessage(), "args": None, "exc_info": None}, 5)
        self._tell("logged", packed)


def begin(tell: Tell) -> None:
    """Send what this process prints and logs from now on."""
    sys.stdout, sys.stderr = Said("stdout", tell), Said("stderr", tell)
    logging.getLogger().addHandler(Logged(tell))


def flush() -> None:
    """Send incomplete lines."""
    for stream in (sys.stdout, sys.stderr):
        # A task may have put something else there, and even closed it.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.flush()


def end() -> None:
    """Print and log as any process does: this one was forked from a worker."""
    if isinstance(sys.stdout, Said):
        sys.stdout = sys.__stdout__
    if isinstance(sys.stderr, Said):
        sys.stderr = sys.__stderr__
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, Logged):
            root.removeHandler(handler)


def say(worker: "Member", _fds: Sequence[int], name: str, text: str) -> None:
    """Write, in the client, what a worker has said."""
    worker.heard(text)
    stream = getattr(sys, name)
    # A program may have no such stream, or have closed it.
    with contextlib.suppress(AttributeError, ValueError, OSError):
        stream.write(text)
        stream.flush()


def log(worker: "Member", _fds: Sequence[int], packed: bytes) -> None:
    """Have the client's logger of the same name handle a record."""
    try:
        attributes: dict[str, Any] = pickle.loads(packed)
    except Exception as error:
        logging.getLogger("wukong").warning("a record that a task has logged cannot be loaded here: %r", error)
        return
    record = logging.makeLogRecord(attributes)
    with contextlib.suppress(Exception):  # its arguments may not be what its text asks for
        worker.heard(f"{record.levelname} {record.name}: {record.getMessage()}\n")
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
