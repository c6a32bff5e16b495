"""granules="auto": where the functions of a job go, by what is known of them in this process. Not how they get there.

A function moves to processes if it holds the interpreter (`wukong.platforms.local.verdicts`), nothing that it would
leave behind could be missed (`wukong.purity`), it can travel, a task of it lasts longer than shipping what it needs,
and, if no processes are there yet, starting them is paid for by what they save, or would have saved earlier jobs. What
was found out of a function holds for later jobs, too.
"""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable
from functools import partial
from itertools import islice
from types import MethodType
from typing import Any, Final

from wukong.cost import PROCESSES
from wukong.errors import ClientClosed, ConfigError
from wukong.executor.job import Job
from wukong.origin import installed
from wukong.plan import program
from wukong.plan.reading import Plan
from wukong.platforms.local.placement import ByKind
from wukong.platforms.local.verdicts import Verdicts, worth
from wukong.purity import keeps

#: Programs of a plan that are looked at before it is launched; in a plan of more, each is met as it comes.
_MOST: Final = 500

verdicts = Verdicts()
#: How long a task of these functions lasted when it last ran, in seconds.
_lasted: dict[Hashable, float] = {}
#: Seconds that processes would have saved jobs so far, had they been there.
_missed = [0.0]


def name_of(functions: Iterable[Any]) -> Hashable:
    """Return what stands for functions that run together, in whatever job: their code."""
    return frozenset(map(_code, functions))


def lasted(functions: Iterable[Any]) -> float | None:
    """Return how long, in seconds, a task of these functions lasted in the last job that ran them in company."""
    return _lasted.get(name_of(functions))


def _code(function: Any) -> Hashable:
    while isinstance(function, partial | MethodType):
        function = function.func if isinstance(function, partial) else function.__func__
    code: Hashable = getattr(function, "__code__", None)
    if code is None:
        try:
            hash(function)
        except Exception:  # any object may be called, and answer as it likes
            return id(type(function))
        code = function
    return code


def called(function: Any) -> str:
    """Return how people call a function."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


class Sorting:
    """Where the kinds of tasks of one job go.

    Parameters
    ----------
    plan : Plan
        Of the job.
    placement : ByKind
        Is told of kinds that move.
    job : Job
        Its estimates say how long tasks last.
    workers : int
        How many work on it at once.
    started : callable
        Whether processes are there already.
    move_in : callable
        Called with the first kind that moves: lets processes take part, and starts them if need be.

    Attributes
    ----------
    reasons : dict
        For each kind about which anything was found out, why it is where it is.
    """

    def __init__(
        self,
        plan: Plan,
        placement: ByKind,
        job: Job,
        workers: int,
        started: Callable[[], bool],
        move_in: Callable[[], None],
    ) -> None:
        self.reasons: dict[int, str] = {}
        self._plan = plan
        self._placement = placement
        self._job = job
        self._workers = workers
        self._started = started
        self._move_in = move_in
        self._names: dict[int, Hashable] = {}
        self._left: Counter[int] | None = None
        self._missed: dict[int, float] = {}

    def name(self, kind: int) -> Hashable:
        """Return what stands for the functions of a kind."""
        name = self._names.get(kind)
        if name is None:
            name = self._names[kind] = name_of(self._functions(kind))
        return name

    def sort_known(self) -> None:
        """Move what is known from earlier jobs. Before the job is launched."""
        plan, pinned = self._plan, self._placement.pinned
        kinds: Collection[int] = range(len(plan.columns.programs))
        if pinned:
            kinds = sorted({plan.kind(task) for task in range(plan.size) if task not in pinned})
        for kind in islice(kinds, _MOST):
            if verdicts.holds(self.name(kind)):
                self.sort(kind)

    def sort(self, kind: int) -> None:
        """Decide about a kind, if enough is known of it."""
        if kind in self.reasons:
            return
        holds = verdicts.holds(self.name(kind))
        if holds is None:
            return
        if not holds:
            self.reasons[kind] = "threads: it lets go of the interpreter"
            return
        lasts = self._lasts(kind)
        if lasts is None:
            return
        for function in self._functions(kind):
            why = keeps(function)
            if why is not None:
                self.reasons[kind] = f"threads: it holds the interpreter, but {why}"
                return
        if not worth(lasts, 0, PROCESSES):
            self.reasons[kind] = "threads: it holds the interpreter, but not for longer than shipping takes"
        elif self._pays(kind, lasts):
            self.reasons[kind] = "processes: it holds the interpreter"
            # What cannot travel is found out before anything does.
            self._placement.move(kind)
            try:
                self._move_in()
            except (ConfigError, ClientClosed, OSError) as error:
                self.reasons[kind] = f"threads: it holds the interpreter, but there are no processes: {error}"
                self._placement.move_back(kind)

    def accuse(self, name: Hashable) -> None:
        """Note that tasks of a kind were seen to keep each other waiting; decide again if that is enough."""
        if verdicts.accuse(name):
            for kind, known in list(self._names.items()):
                if known == name:
                    self.reasons.pop(kind, None)
                    self.sort(kind)

    def remember(self) -> None:
        """Keep for later jobs how long tasks lasted, and what processes would have saved."""
        _missed[0] = 0.0 if self._started() else _missed[0] + sum(self._missed.values())
        for kind, seconds in self._job.estimates.known().items():
            if kind in self._names:
                _lasted[self._names[kind]] = seconds

    def explained(self) -> dict[Hashable, str]:
        """Return the reasons, by the names of functions."""
        return {self._shown(kind): reason for kind, reason in self.reasons.items()}

    def _shown(self, kind: int) -> str:
        """Name the functions of a kind for people: their own, or, if there are none, the library's."""
        functions = self._functions(kind)
        own = [function for function in functions if not installed(function)]
        return ", ".join(dict.fromkeys(map(called, own or functions[-2:])))

    def _lasts(self, kind: int) -> float | None:
        known: float | None = self._job.estimates.known().get(kind)
        return _lasted.get(self.name(kind)) if known is None else known

    def _pays(self, kind: int, lasts: float) -> bool:
        """Whether what processes save is more than starting them costs, if they are not there.

        What they would have saved earlier jobs counts, too: so whoever computes the same again and again has lost no
        more than that, once, when they are started, nor has who never comes back.
        """
        if self._started():
            return True
        if self._left is None:
            self._left = Counter(self._plan.columns.program)
        self._missed[kind] = self._left[kind] * lasts * (1 - 1 / self._workers)
        return sum(self._missed.values()) + _missed[0] > PROCESSES.start

    def _functions(self, kind: int) -> list[Any]:
        columns = self._plan.columns
        functions = [columns.functions[call.func] for call in columns.programs[kind].calls]
        functions += [columns.literals[~operand] for operand in columns.passed.get(kind, ())]
        return [function for function in functions if getattr(function, "__module__", "") != program.__name__]
