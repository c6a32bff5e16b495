"""One submitted call: what is to run, on what, how far it is, and what came of it. Not when or where it runs.

WAITING ----> READY ----> RUNNING ----> FINISHED, FAILED
   |            |  ^         |  |
   |            |  +---------+  |       a retry
   +------------+---------------+-----> CANCELLED, FAILED (an input failed)
"""

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from contextvars import Context
from itertools import count
from numbers import Real
from operator import is_
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from wukong.errors import ConfigError, JobCancelled
from wukong.scheduler.course import Running
from wukong.scheduler.tries import Retry, retry_of

if TYPE_CHECKING:
    from wukong.scheduler.futures.engine import Engine
    from wukong.scheduler.futures.lanes import Turn

WAITING, READY, RUNNING, FINISHED, FAILED, CANCELLED = range(6)

_numbers = count()


class FutureCancelled(CancelledError, JobCancelled):  # noqa: N818 - as the others of its tree
    """The call of a future, or one that it needs, was cancelled."""


def check_numbers(priority: Any, retries: Any) -> None:
    """Raise if these cannot be a priority and a number of retries.

    Raises
    ------
    ConfigError
    """
    if type(priority) is int and type(retries) is int:  # as nearly always
        return
    if not isinstance(priority, Real):
        raise ConfigError(f"priority={priority!r} is not allowed; use a number")
    retry_of(retries)


class Input:
    """Stands in the arguments of a call for the value of its `index`-th input."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class Call:
    """A function with its arguments.

    Everything but what is given here is guarded by the engine's lock until the call is done, and fixed from then on.

    Parameters
    ----------
    engine : Engine
        Whose call it is.
    key : key
        Its name.
    function, args, kwargs
        What is called on what; an `Input` stands for the value of an input.
    inputs : sequence of Call
        Distinct calls whose values it takes.
    priority : float
        Higher ones run first.
    retries : int or Retry
        How often it may run again after it raised, and when.
    once : bool
        Whether it may never run twice.
    context : contextvars.Context
        Of whoever asked; the function runs in it where it runs in this process.
    need : int
        Bytes of memory that it needs at once.
    part : int
        Which part of the value of its input is its value, if that is all that there is to it.

    Attributes
    ----------
    state : int
        One of those drawn above.
    value, sealed : object
        What came of it, as an object of this process, and as what can leave it; one of them, or both.
    error : BaseException or None
        What it raised. Of a call that never ran because of another, that one's error.
    kind : hashable or None
        What stands for its function while it is not decided where that belongs.
    trace : traceback or None
        Where it was raised.
    job : str or None
        Of what is a part of a graph, the name of its job.
    earlier : list of str
        What it raised in earlier tries.
    cause : Call or None
        The call that failed, or was cancelled, in whose wake this one was.
    """

    __slots__ = (
        "__weakref__",
        "args",
        "callbacks",
        "cause",
        "context",
        "earlier",
        "engine",
        "error",
        "function",
        "has_value",
        "inputs",
        "job",
        "key",
        "kind",
        "kwargs",
        "lane",
        "missing",
        "need",
        "number",
        "once",
        "part",
        "priority",
        "readers",
        "retry",
        "sealed",
        "started",
        "state",
        "tag",
        "trace",
        "turn",
        "value",
    )

    def __init__(
        self,
        engine: "Engine",
        key: Any,
        function: Callable[..., Any] | None,
        args: Any = (),
        kwargs: Any = None,
        inputs: Sequence["Call"] = (),
        *,
        priority: float = 0,
        retries: int | Retry = 0,
        once: bool = False,
        context: Context | None = None,
        need: int = 0,
        part: int = 0,
    ) -> None:
        check_numbers(priority, retries)
        self.engine = engine
        self.key = key
        self.function = function
        self.args = args
        self.kwargs = {} if kwargs is None else kwargs
        self.inputs = inputs
        self.priority = priority
        self.retry = retry_of(retries) if retries else None
        self.once = once
        self.earlier: list[str] = []
        self.context = context
        self.need = need
        self.part = part
        self.number = next(_numbers)
        self.state = WAITING
        self.missing = 0
        self.readers: list[Call] = []
        self.callbacks: list[Callable[[Call], None]] = []
        self.started: Callable[[], bool] | None = None
        self.value: Any = None
        self.has_value = False
        self.sealed: Any = None
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        self.cause: Call | None = None
        self.turn: Turn
        self.tag = 0.0
        self.lane: Any = None
        self.kind: Any = None
        self.job: str | None = None

    @property
    def done(self) -> bool:
        """Whether nothing will change any more."""
        return self.state >= FINISHED

    def perform(self) -> Any:
        """Call the function in this thread and return what it gives."""
        assert self.function is not None, "a value that was given never runs"
        values = [call.engine.open(call) for call in self.inputs]
        return self.function(*fill(self.args, values), **fill(self.kwargs, values))

    def interrupt(self, why: str) -> list[Running]:  # noqa: ARG002
        """Let nothing more of it begin, as it was cancelled while it ran; return what may still run."""
        return [Running(self.key, self.lane.where(self))]

    def lessen(self, parts: Sequence["Call"]) -> list[Running]:  # noqa: ARG002
        """Let nothing more of it begin that only these parts need, which were cancelled; return what may still run."""
        return []

    def forget(self) -> None:
        """Let go of what was needed to run."""
        self.function, self.args, self.kwargs, self.inputs, self.context = None, (), {}, (), None

    def way(self) -> "list[Call]":
        """Return the calls from the one that failed to this one."""
        way: list[Call] = [self]
        while (cause := way[-1].cause) is not None:
            way.append(cause)
        return way[::-1]


_ATOMS: Final = frozenset({int, str, float, bool, type(None), complex, bytes, slice, range, type})
_PLAIN: Final = frozenset({tuple, list, set, frozenset})


class Container:
    """A container with inputs in it, to be made anew around their values."""

    __slots__ = ("cls", "items", "keys")

    def __init__(self, cls: type, items: list[Any], keys: tuple[Any, ...] | None = None) -> None:
        self.cls = cls
        self.items = items
        self.keys = keys

    def make(self, items: list[Any]) -> Any:
        """Return the container with these items."""
        if self.keys is not None:
            return self.cls(zip(self.keys, items, strict=True))
        return self.cls(items) if self.cls in _PLAIN else self.cls(*items)


def lift(obj: Any, inputs: dict[Call, int]) -> Any:
    """Return arguments with an `Input` for each future in them, however deep in tuples, lists, sets and dictionaries.

    Parameters
    ----------
    obj : object
        Returned itself where there is no future in it.
    inputs : dict of Call to int
        Calls found so far and their numbers; new ones are added.
    """
    cls = type(obj)
    if cls in _ATOMS:
        return obj
    if cls in _PLAIN or (issubclass(cls, tuple) and hasattr(cls, "_fields")):
        items = [lift(item, inputs) for item in obj]
        return obj if all(map(is_, items, obj)) else Container(cls, items)
    if cls is dict:
        items = [lift(item, inputs) for item in obj.values()]
        return obj if all(map(is_, items, obj.values())) else Container(dict, items, tuple(obj))
    if getattr(cls, "__dask_future__", False) and isinstance(getattr(obj, "call", None), Call):
        return Input(inputs.setdefault(obj.call, len(inputs)))
    return obj


def fill(obj: Any, values: Sequence[Any]) -> Any:
    """Return what `lift` gave with the values of the inputs in their places."""
    cls = type(obj)
    if cls is Input:
        return values[obj.index]
    if cls is Container:
        return obj.make([fill(item, values) for item in obj.items])
    return obj
