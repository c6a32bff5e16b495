"""Several calls that run as one. Imported by workers: no Dask here."""

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

from wukong.executor.effects import Raised
from wukong.platforms.local.admission import context_of
from wukong.scheduler.futures.call import Call, Container, Input, fill
from wukong.scheduler.futures.lanes import Turn, here
from wukong.scheduler.tries import Retry, again

_numbers = count()


class Piece(NamedTuple):
    """A call within another: its arguments have inputs of its own in them."""

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    retry: Retry | None


def as_one(calls: list[Call], turn: Turn, lane: Any = None) -> None:
    """Have calls run one after the other, as one call of which they are parts.

    Parameters
    ----------
    calls : list of Call
        New ones, of one engine.
    turn : Turn
        Of the whole.
    lane : Lane, optional
        Where it runs; see `Engine.submit`.
    """
    from wukong.scheduler.futures.engine import SELECT

    engine = calls[0].engine
    inputs = {read: index for index, read in enumerate(dict.fromkeys(read for call in calls for read in call.inputs))}
    items = []
    for part, call in enumerate(calls):
        assert call.function is not None, "a new call has a function"
        own = Container(tuple, [Input(inputs[read]) for read in call.inputs])
        items.append(Container(tuple, [Piece(call.function, call.args, call.kwargs, call.retry), own]))
        call.forget()
        call.part = part
    args = Container(tuple, [Container(list, items)])
    name, priority, need = f"batch-{next(_numbers)}", calls[0].priority, max(call.need for call in calls)
    context = context_of(need)
    whole = Call(engine, name, work_through, args, None, tuple(inputs), priority=priority, need=need, context=context)
    whole.once = any(call.once for call in calls)
    for call in calls:
        call.inputs = (whole,)
    # Parts first, or the whole might be through before there is any.
    engine.submit(calls, SELECT)
    engine.submit([whole], lane, turn)


def work_through(items: list[tuple[Piece, tuple[Any, ...]]]) -> list[Any]:
    """Return what each of several calls gives, or `Raised`; one after the other."""
    values: list[Any] = []
    whole = here.call
    for (function, args, kwargs, retry), inputs in items:
        if whole is not None and whole.done:  # cancelled
            break
        try:
            args, kwargs = fill(args, inputs), fill(kwargs, inputs)
            values.append(again(retry, function, *args, **kwargs) if retry else function(*args, **kwargs))
        except Exception as error:
            values.append(Raised(error))
    return values
