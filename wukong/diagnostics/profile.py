"""What took how long in a run, worked out from its spans when somebody asks. Not how it is written for people."""

import re
from collections.abc import Callable, Hashable, Iterable

from wukong.events import Function, Run, Span, Step

#: What ends the name of a task and is not part of it: a UUID, a token, or numbers.
_ENDS = re.compile(r"(-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|-(?=[0-9a-f]*\d)[0-9a-f]{8,}|[-_ #]?\d+)+$")
_Reads = Callable[[int], Iterable[Hashable]]


def name_of(key: Hashable) -> str:
    """Return what tasks like the one of this key are called.

    Examples
    --------
    >>> name_of(("sum-partial-0a1b2c3d4e5f60718293a4b5c6d7e8f9", 0, 1)), name_of("x17")
    ('sum-partial', 'x')
    """
    while isinstance(key, tuple) and key:
        key = key[0]
    text = key.decode(errors="replace") if isinstance(key, bytes) else str(key)
    return _ENDS.sub("", text) or text


def functions(run: Run) -> list[Function]:
    """Return what the tasks of each name did together, those that took longest first. See `wukong.events.Run`."""
    names: dict[Hashable, str] = {}
    found: dict[str, tuple[list[float], list[float], dict[str, None]]] = {}
    for part in run.parts:
        for span in part.spans:
            key = part.keys[span.task]
            first = key[0] if isinstance(key, tuple) and key else key
            name = names.get(first)
            if name is None:
                name = names[first] = name_of(first)
            seconds, sizes, places = found.setdefault(name, ([], [], {}))
            seconds.append(span.seconds)
            sizes.append(span.nbytes)
            places[part.where] = None
    rows = [
        Function(
            name, len(seconds), sum(seconds), sum(seconds) / len(seconds), max(seconds), ", ".join(places), sum(sizes)
        )
        for name, (seconds, sizes, places) in found.items()
    ]
    return sorted(rows, key=lambda row: -row.total)


def critical_path(run: Run) -> list[Step]:
    """Return the chain of tasks that the results waited for, first to last. See `wukong.events.Run`.

    From the task that ended last, back to that of its inputs which ended last, and so on. What a step waited passed
    between that and its own beginning: nobody was free, or had come for it.
    """
    spans: dict[Hashable, tuple[Span, _Reads]] = {}
    for part in run.parts:
        for span in part.spans:
            spans[part.keys[span.task]] = span, part.reads
    if not spans:
        return []
    began = min(span.began for span, _ in spans.values())

    def ended(key: Hashable) -> float:
        span, _ = spans[key]
        return span.began + span.seconds

    steps: list[Step] = []
    key: Hashable = max(spans, key=ended)
    while True:
        span, reads = spans[key]
        # A task that was computed again may have been read before.
        inputs = [read for read in reads(span.task) if read in spans and spans[read][0].began < span.began]
        before = max(inputs, key=ended) if inputs else None
        waited = span.began - (began if before is None else ended(before))
        steps.append(Step(key, name_of(key), span.seconds, max(waited, 0.0)))
        if before is None:
            return steps[::-1]
        key = before
