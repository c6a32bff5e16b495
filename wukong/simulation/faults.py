"""What may go wrong in a simulated run, how often, and the dice that decide it.

Each kind of fault has dice of its own, so that a run without one of them is still much the same run.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from random import Random

from wukong.errors import ConfigError


@dataclass(frozen=True)
class Faults:
    """The faults of one run; 0 is never.

    Attributes
    ----------
    death : float
        Chance that an executor dies before a step, and that it dies after one.
    stall : float
        Chance of a step that an executor sleeps longer than its lease and then goes on as if nothing had happened.
    reply : float
        Chance that a request is applied and its answer lost; it is sent again.
    echo : float
        Chance that a copy of a request arrives again much later.
    twice, never, late : float
        Chance that an invocation starts two executors, none, or one that comes when nobody expects it any more.
    throttle : float
        Chance that the platform refuses an invocation; it is tried again with back-off, and lost at the fifth time.
    cold : float
        Chance that an executor needs seconds until its first step.
    forget : int
        How many times a shard fails over to what it was some requests earlier, or to nothing.
    notice : float
        Chance that the client is not told that the results are there.
    skew : float
        Chance that a shard's clock jumps with a request, by up to two leases and three from the true time at most.
    client : int
        How many times the client dies, and another comes later to go on with the job.
    straggler : float
        Chance that a task takes twenty times as long on one executor (8 s at least).
    limit : float
        Age at which executors are killed, in seconds.
    memory : int
        How many times one of the tasks kills its executor; -1 is always.
    error : int
        Whether one of the tasks raises.
    cancel : float
        When the user cancels the job, in seconds.
    lose : float
        Chance, with each write to the value store and each read, that it loses a value, or all.
    rival : int
        How many other clients attach to the job while it runs, to watch it, collect its results and release it.
    once : float
        Share of the tasks that may run only once.
    """

    death: float = 0.0
    stall: float = 0.0
    reply: float = 0.0
    echo: float = 0.0
    twice: float = 0.0
    never: float = 0.0
    late: float = 0.0
    throttle: float = 0.0
    cold: float = 0.0
    forget: int = 0
    notice: float = 0.0
    skew: float = 0.0
    client: int = 0
    straggler: float = 0.0
    limit: float = 0.0
    memory: int = 0
    error: int = 0
    cancel: float = 0.0
    lose: float = 0.0
    rival: int = 0
    once: float = 0.0

    @classmethod
    def drawn(cls, random: Random, kinds: Collection[str] | None = None) -> "Faults":
        """Draw a mixture: some runs are quiet, some have one kind of fault, some have all; a third have none deadly.

        Parameters
        ----------
        random : Random
            Decides it.
        kinds : collection of str, optional
            Kinds of fault to be had; all if None. The others are drawn as well, so that these stay as they are.
        """

        def chance(scale: float) -> float:
            return scale * random.choice([0.0, 0.0, 0.3, 1.0])

        drawn = cls(
            death=chance(0.03),
            stall=chance(0.05),
            reply=chance(0.3),
            echo=chance(0.1),
            twice=chance(0.5),
            never=chance(0.3),
            late=chance(0.3),
            throttle=chance(0.3),
            cold=chance(0.3),
            forget=random.choice([0, 0, 0, 1, 1, 3]),
            notice=chance(1.0),
            skew=chance(0.03),
            client=random.choice([0, 0, 0, 1, 2]),
            straggler=chance(0.1),
            limit=random.choice([0.0, 0.0, 0.0, 2.0, 10.0]),
            memory=random.choice([0, 0, 0, 1, 4]) if random.random() < 0.95 else -1,
            error=random.random() < 0.05,
            cancel=random.choice([0.05, 0.5, 5.0]) * random.random() if random.random() < 0.07 else 0.0,
            lose=chance(0.1),
            rival=random.choice([0, 0, 0, 1]),
            once=random.choice([0.1, 0.5]) if random.random() < 0.15 else 0.0,
        )
        if random.random() < 1 / 3:
            drawn = drawn.without(*DEADLY)
        return drawn if kinds is None else drawn.without(*(set(KINDS) - set(kinds)))

    @classmethod
    def full(cls) -> "Faults":
        """Return all kinds of fault at once that a job can get over, as strong as they are ever drawn."""
        return cls(0.03, 0.05, 0.3, 0.1, 0.5, 0.3, 0.3, 0.3, 0.3, 3, 1.0, 0.03, 2, 0.1, 10.0, 4, lose=0.1, rival=1)

    def without(self, *kinds: str) -> "Faults":
        """Return the same faults but for these kinds."""
        return replace(self, **dict.fromkeys(kinds, 0))

    def kinds(self) -> list[str]:
        """Return the kinds that can happen."""
        return [kind for kind in KINDS if getattr(self, kind)]


#: Every kind of fault.
KINDS = tuple(field.name for field in fields(Faults))
#: Kinds after which a task may have a second attempt.
DEADLY = ("death", "stall", "forget", "skew", "client", "straggler", "limit", "memory", "lose", "rival")
#: The others: whatever happens of these, every task runs once.
HARMLESS = tuple(kind for kind in KINDS if kind not in DEADLY)


def chosen(names: str) -> tuple[str, ...]:
    """Return the kinds that a list with commas names.

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    kinds = tuple(name.strip() for name in names.split(",") if name.strip())
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"no kind of fault is called {kind!r}; there are {', '.join(KINDS)}")
    return kinds


class Dice:
    """The dice of one run: one for each kind of fault.

    Parameters
    ----------
    seed : int
        Of the run.
    faults : Faults
        What can happen in it.
    """

    def __init__(self, seed: int, faults: Faults) -> None:
        self._chances = {
            kind: (getattr(faults, kind), self.of(seed, kind)) for kind in KINDS if 0 < getattr(faults, kind) <= 1
        }

    @staticmethod
    def of(seed: int, kind: str) -> Random:
        """Return the random numbers of one kind of fault, or of anything else that is to have its own."""
        return Random(f"{kind} {seed}")

    def fall(self, kind: str) -> bool:
        """Say whether this fault happens now."""
        pair = self._chances.get(kind)
        return pair is not None and pair[1].random() < pair[0]
