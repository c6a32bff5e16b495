"""What is kept of a compute when it is over: when its tasks ran, by their keys; no value, function or literal.

Of a compute of more than `wukong.events.KEPT` tasks a part is kept: those that ran first.
"""

from collections.abc import Hashable, Iterable, Sequence

from wukong.events import KEPT, Part, Spans, Stamps
from wukong.executor.alone import Walk
from wukong.plan.reading import Plan


def alone(walk: Walk, stamps: Stamps) -> tuple[Part, ...]:
    """Return what the client ran alone."""
    stamps.keep(KEPT)
    keys, inputs = walk.keys, walk.inputs
    if len(keys) > KEPT:
        keys, inputs = keys[:KEPT], inputs[:KEPT]
    return (Part("client", keys, inputs.__getitem__, stamps),)


def in_company(plan: Plan, threads: Spans, processes: Spans) -> tuple[Part, ...]:
    """Return what executors ran, in threads of the client and in processes."""
    columns = plan.columns
    starts, inputs, known = columns.input_start, columns.inputs, columns.keys
    parts = []
    for where, spans in (("threads", threads), ("processes", processes)):
        if not spans:
            continue
        spans.keep(KEPT)
        keys: Sequence[Hashable] | dict[int, Hashable] = known
        if len(known) > KEPT:
            tasks = {span.task for span in spans}
            tasks.update(read for task in tuple(tasks) for read in inputs[starts[task] : starts[task + 1]])
            keys = {task: known[task] for task in tasks}

        def reads(task: int, keys: Sequence[Hashable] | dict[int, Hashable] = keys) -> Iterable[Hashable]:
            return [keys[read] for read in inputs[starts[task] : starts[task + 1]]]

        parts.append(Part(where, keys, reads, spans))
    return tuple(parts)


def put_together(keys: Sequence[Hashable], walk: Walk, spans: Spans) -> tuple[Part, ...]:
    """Return what the client ran to put whole results together."""
    if not spans:
        return ()
    inputs = dict(zip(walk.keys, walk.inputs, strict=True))
    needed = [inputs[key] for key in keys]
    return (Part("client", keys, needed.__getitem__, spans),)
