"""What may be told while a job runs, and what is kept of it. Not how it is shown."""

from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol

#: Of a compute with more tasks, what is kept is so many of them in each place.
KEPT: Final = 100_000
#: After so many tasks that took less than this together, in seconds, a walk alone stamps no more: it would be felt.
FEW: Final = 4000
_SHORT: Final = 0.08


class Observer(Protocol):
    """Is told of tasks by whoever runs them, from one thread at a time. Where there is none, nothing is paid.

    A task whose result is already known may be left out altogether.
    """

    def started(self, key: Hashable) -> None:
        """Note that the task of this key is about to run."""

    def finished(self, key: Hashable, value: Any) -> None:
        """Note that it ran and gave this value. A task that fails is started only."""


class Span(NamedTuple):
    """When a task ran.

    Attributes
    ----------
    task : int
        Its number.
    began, seconds : float
        On the clock of `time.perf_counter`, which the processes of a machine share.
    nbytes : float
        Size of its value, in bytes, if the value says so; else 0.
    """

    task: int
    began: float
    seconds: float
    nbytes: float


class Spans:
    """Spans as they are kept: four numbers each, in one array that any thread may add to and any process send.

    Attributes
    ----------
    numbers : array of float
        Those of the first span, of the second...
    cut : bool
        Whether tasks ran whose spans are not kept.
    """

    __slots__ = ("cut", "numbers")

    def __init__(self) -> None:
        self.numbers = array("d")
        self.cut = False

    def __len__(self) -> int:
        return len(self.numbers) // 4

    def __iter__(self) -> Iterator[Span]:
        numbers = self.numbers
        for i in range(0, len(numbers) - 3, 4):
            task, *rest = numbers[i : i + 4]
            yield Span(int(task), *rest)

    def add(self, task: int, began: float, seconds: float, value: Any) -> None:
        """Add the span of a task that gave this value. Safe from any thread: the interpreter adds all four at once."""
        try:
            nbytes = getattr(value, "nbytes", 0)
            # Only instances have a size: of a class, `nbytes` is the property itself.
            size = float(nbytes) if type(nbytes) is int else 0.0
        except Exception:
            size = 0.0
        self.numbers.extend((task, began, seconds, size))

    def keep(self, most: int) -> None:
        """Keep so many spans, those that were added first."""
        self.cut = self.cut or len(self) > most
        del self.numbers[4 * most :]

    def take(self) -> bytes:
        """Return the spans to be sent, and keep them no longer."""
        sent = self.numbers.tobytes()
        del self.numbers[:]
        return sent

    def receive(self, sent: bytes) -> None:
        """Add spans that were sent by another process of this machine."""
        self.numbers.frombytes(sent)


class Stamps:
    """Spans of tasks 0, 1, 2... that ran one after the other: the time at which the first began and each ended.

    Attributes
    ----------
    times : list of float
        On the clock of `time.perf_counter`. A list, for it takes half as long to add to as an array.
    cut : bool
        Whether tasks ran that have no stamp.
    """

    __slots__ = ("cut", "times")

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cut = False

    def enough(self) -> bool:
        """Whether tasks are so short that no more of them should be stamped."""
        self.cut = self.times[-1] - self.times[0] < _SHORT
        return self.cut

    def keep(self, most: int) -> None:
        """Keep so many spans, those of the first tasks."""
        self.cut = self.cut or len(self) > most
        del self.times[most + 1 :]

    def __len__(self) -> int:
        return max(len(self.times) - 1, 0)

    def __iter__(self) -> Iterator[Span]:
        times = self.times
        for task in range(len(self)):
            yield Span(task, times[task], times[task + 1] - times[task], 0)


class Part(NamedTuple):
    """Tasks that ran in one place, and what is needed to read their spans. Refers to no value and to no function.

    Attributes
    ----------
    where : str
        ``client``, ``threads`` or ``processes``.
    keys : sequence or mapping of int to key
        By the number of the task.
    reads : callable
        Returns the keys of the tasks whose values a task read, given its number.
    spans : Spans or Stamps
        In no order.
    """

    where: str
    keys: Sequence[Hashable] | Mapping[int, Hashable]
    reads: Callable[[int], Iterable[Hashable]]
    spans: Spans | Stamps


class Function(NamedTuple):
    """What tasks of one name did together: times in seconds, the values' size in bytes where it is known, else 0."""

    name: str
    tasks: int
    total: float
    mean: float
    longest: float
    where: str
    nbytes: float


class Step(NamedTuple):
    """A task on the critical path: how long it took, and how long it waited after its last input was there."""

    key: Hashable
    name: str
    seconds: float
    waited: float


@dataclass(slots=True, repr=False)
class Run:
    """Figures of one compute.

    Attributes
    ----------
    tasks : int
        Tasks that were to run, after culling.
    seconds : float
        Wall time from the graph's arrival to its results.
    executors, becomes, invocations : int
        Executors started; tasks that one of them went on to itself; tasks handed to another.
    round_trips, bytes_sent, bytes_received : int
        Requests to the stores, and what they carried.
    retries : int
        How often tasks ran again after they had raised.
    where : str
        Where it ran.
    reasons : tuple of str
        Which function ran where, and why, as far as that was a question; what was started again; what went to disk.
    parts : tuple of Part
        When each task ran; `functions` and `critical_path` read it.
    """

    tasks: int = 0
    seconds: float = 0.0
    executors: int = 0
    becomes: int = 0
    invocations: int = 0
    round_trips: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    retries: int = 0
    where: str = "the client, alone"
    reasons: tuple[str, ...] = ()
    parts: tuple[Part, ...] = field(default=(), compare=False)

    @property
    def functions(self) -> list[Function]:
        """What the tasks of each name did together, those that took longest first."""
        found: list[Function] = _shown("profile").functions(self)
        return found

    @property
    def critical_path(self) -> list[Step]:
        """The chain of tasks that the results waited for, first to last: each the last input of the next."""
        found: list[Step] = _shown("profile").critical_path(self)
        return found

    def __repr__(self) -> str:
        text: str = _shown("summary").summary(self)
        return text

    def _repr_html_(self) -> str:
        text: str = _shown("summary").html(self)
        return text


def _shown(how: str) -> Any:
    # How figures are shown is known far above this module; it is looked up when somebody looks.
    return import_module(f"wukong.diagnostics.{how}")
