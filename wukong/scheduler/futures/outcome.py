"""What a call ended with, for those who ask: its own error, or that of the call it needed, with a note on the way."""

from contextlib import suppress
from copy import copy
from types import TracebackType

from wukong.scheduler.futures.call import CANCELLED, FINISHED, Call, FutureCancelled


def outcome(call: Call) -> BaseException | None:
    """Return what a call that is done ended with; None if it has a value."""
    if call.state == FINISHED:
        return None
    way = call.way()
    root = way[0]
    # A job is one call, of which the others are parts; its own error says which task it was.
    names = [repr(step.key) for step in way if step.lane is not step.engine.jobs]
    if root.state == CANCELLED:
        return FutureCancelled(f"the call {names[0]} was cancelled{_way(names)}")
    assert root.error is not None
    if call.error is None:
        call.error = root.error if len(names) < 2 else _copy(root.error)
    if root.lane is not root.engine.jobs:
        _note(call.error, f"wukong: call {names[0]} failed{_way(names)}")
    return call.error


def trace(call: Call) -> TracebackType | None:
    """Return where the error of a call was raised."""
    return call.way()[0].trace


def _way(names: list[str]) -> str:
    if len(names) > 12:
        names = [*names[:6], f"({len(names) - 11} more)", *names[-5:]]
    return f", on the way {' -> '.join(names)}" if len(names) > 1 else ""


def _copy(error: BaseException) -> BaseException:
    """Return a copy of an error, so that each reader has a note of its own; the error itself if it has no copy."""
    try:
        twin = copy(error)
    except Exception:
        return error
    if type(twin) is not type(error) or twin.args != error.args:
        return error
    twin.__traceback__, twin.__cause__, twin.__context__ = error.__traceback__, error.__cause__, error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    # Where tblib has a say in copying, both have the very same attributes, notes among them.
    twin.__dict__ = {name: value for name, value in error.__dict__.items() if name != "__notes__"}
    notes = [note for note in getattr(error, "__notes__", ()) if not note.startswith("wukong: call ")]
    if notes:
        twin.__notes__ = notes
    return twin


def _note(error: BaseException, note: str) -> None:
    # Some errors can take no note: those of a frozen dataclass, for one.
    with suppress(Exception):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
