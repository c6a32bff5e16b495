"""What may go wrong in a simulated run, and how often."""

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Faults:
    """Probabilities per step.

    Attributes
    ----------
    death : float
        An executor dies before, or after, what it asked for is carried out.
    stall : float
        An executor sleeps longer than its lease and then goes on as if nothing had happened.
    reply_lost : float
        A request is applied but its answer is lost; it is sent again.
    echo : float
        A copy of a request arrives again much later.
    twice, never : float
        An invocation starts two executors, or none.
    """

    death: float = 0.0
    stall: float = 0.0
    reply_lost: float = 0.0
    echo: float = 0.0
    twice: float = 0.0
    never: float = 0.0

    @classmethod
    def drawn(cls, random: Random) -> "Faults":
        """Draw a mixture: some runs are quiet, some have one kind of fault, some have all."""

        def chance(scale: float) -> float:
            return scale * random.choice([0.0, 0.0, 0.3, 1.0])

        return cls(chance(0.03), chance(0.05), chance(0.3), chance(0.1), chance(0.5), chance(0.3))
