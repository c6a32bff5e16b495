"""The figures of a run, written for people. What is counted, and where, is not decided here."""

from wukong.events import Run

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def summary(run: Run) -> str:
    """Return a few lines on a run: what it did, what it asked of the stores, and how long it took.

    Parameters
    ----------
    run : Run
        As `wukong.last_run` returns it.

    Returns
    -------
    str
        Lines of a label and a figure with its unit, without a newline at the end.
    """
    each = f", {duration(run.seconds / run.tasks)} a task" if run.tasks else ""
    lines = {
        "ran on": run.where,
        "tasks": f"{run.tasks:,}",
        "executors": f"{run.executors:,}",
        "becomes": f"{run.becomes:,}",
        "invocations": f"{run.invocations:,}",
        "store": _store(run),
        "wall time": duration(run.seconds) + each,
    }
    return "\n".join(f"{label:<12} {figure}" for label, figure in lines.items())


def duration(seconds: float) -> str:
    """Return a time with three digits and its unit, as in ``1.25 ms``."""
    for unit, name in _TIMES:
        if seconds >= unit:
            return f"{_digits(seconds / unit)} {name}"
    return f"{seconds / 1e-6:.2f} us"


def size(nbytes: float) -> str:
    """Return a number of bytes with three digits and its (decimal) unit, as in ``3.27 MB``."""
    for unit, name in _SIZES:
        if nbytes >= unit:
            return f"{_digits(nbytes / unit)} {name}"
    return f"{nbytes:.0f} B"


def _digits(number: float) -> str:
    """Return three digits of a number of at least 1, and all of its whole part."""
    return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f}"


def _store(run: Run) -> str:
    if not run.round_trips:
        return "not used"
    if not run.bytes_sent:
        return f"{run.round_trips:,} requests in memory; nothing was sent"
    return f"{run.round_trips:,} round trips, {size(run.bytes_sent)} sent, {size(run.bytes_received)} received"
