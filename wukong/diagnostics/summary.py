"""The figures of a run, written for people. What is counted, and where, is not decided here."""

from html import escape
from itertools import groupby

from wukong.events import Run

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
#: Rows of the table of functions, and names on the critical path; the rest is put together.
_ROWS = 12
_SIZES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def summary(run: Run) -> str:
    """Return a few lines on a run: what it did, what it asked of the stores, and how long it took; then its functions,
    the chain of tasks that its results waited for, and why functions ran where they did.

    Parameters
    ----------
    run : Run
        As `wukong.last_run` returns it.

    Returns
    -------
    str
        Lines of a label and a figure with its unit, without a newline at the end.
    """
    lines = [f"{label:<12} {figure}" for label, figure in _figures(run)]
    table = _table(run)
    if table:
        lines += ["", *_columns(table)]
    path = _path(run)
    if path:
        lines += ["", f"critical path: {path}"]
    if run.reasons:
        lines += ["", *run.reasons]
    return "\n".join(lines)


def html(run: Run) -> str:
    """Return the same as HTML, for notebooks."""
    figures = "".join(
        f"<tr><th style='text-align:left'>{escape(label)}</th><td style='text-align:left'>{escape(figure)}</td></tr>"
        for label, figure in [*_figures(run), *([("critical path", _path(run))] if run.parts else [])]
    )
    head, *rows = _table(run) or [()]
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    functions = f"<table><tr>{cells}</tr>{body}</table>" if rows else ""
    reasons = "".join(f"<div>{escape(reason)}</div>" for reason in run.reasons)
    return f"<table>{figures}</table>{functions}{reasons}"


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


def _figures(run: Run) -> list[tuple[str, str]]:
    each = f", {duration(run.seconds / run.tasks)} a task" if run.tasks else ""
    return [
        ("ran on", run.where),
        ("tasks", f"{run.tasks:,}"),
        ("executors", f"{run.executors:,}"),
        ("becomes", f"{run.becomes:,}"),
        ("invocations", f"{run.invocations:,}"),
        *([("retries", f"{run.retries:,}")] if run.retries else []),
        ("store", _store(run)),
        ("wall time", duration(run.seconds) + each),
    ]


def _table(run: Run) -> list[tuple[str, ...]]:
    """Return the rows of the table of functions, its head first; nothing if nothing is known."""
    found = run.functions
    if not found:
        return []
    rows: list[tuple[str, ...]] = [("function", "tasks", "total", "mean", "longest", "values", "where")]
    for row in found[:_ROWS]:
        times = map(duration, (row.total, row.mean, row.longest))
        rows.append((row.name, f"{row.tasks:,}", *times, size(row.nbytes) if row.nbytes else "", row.where))
    if any(part.spans.cut for part in run.parts):
        rows[0] = (f"function (of {sum(row.tasks for row in found):,} tasks)", *rows[0][1:])
    rest = found[_ROWS:]
    if rest:
        tasks, total = sum(row.tasks for row in rest), sum(row.total for row in rest)
        rows.append((f"({len(rest)} more)", f"{tasks:,}", duration(total), "", "", "", ""))
    return rows


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _path(run: Run) -> str:
    """Return the critical path in words, tasks of one name that follow each other together."""
    steps = run.critical_path
    if not steps:
        return ""
    parts = []
    for name, group in groupby(steps, key=lambda step: step.name):
        seconds = [step.seconds for step in group]
        times = f" x {len(seconds)}" if len(seconds) > 1 else ""
        parts.append(f"{name}{times} {duration(sum(seconds))}")
    if len(parts) > _ROWS:
        parts[_ROWS // 2 : -_ROWS // 2] = [f"({len(parts) - _ROWS} more)"]
    took = duration(sum(step.seconds for step in steps))
    return f"{took} of {duration(run.seconds)}, in {' > '.join(parts)}"
