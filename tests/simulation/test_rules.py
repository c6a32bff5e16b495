"""No rule of the protocol without a seed that needs it: each is taken out of the reference model in its turn.

A mutant is the model's own source with one place changed, so it goes stale with the source and says so.
"""

import inspect
from types import ModuleType

import pytest

from wukong.protocol import model
from wukong.protocol.model import Shard
from wukong.simulation.world import Violation, World

SEEDS = 2000

MUTANTS = {
    "an old request changes nothing": ("if request.seq < executor.seq:", "if False:"),
    "the first commit wins": ("if winner is not None and winner != outcome.attempt:", "if False:"),
    "a dead holder owns nothing": (
        "return holder if holder is not None and self._alive(holder, now) else None",
        "return holder",
    ),
    "one holder for a child": ("if holder not in (None, nonce):", "if False:"),
    "a value is held for one child at most": ("if not outcome.hold or waiter is not None:", "if not outcome.hold:"),
    "a value is held only by who asks to": (
        "if not outcome.hold or waiter is not None:",
        "if waiter is not None:",
    ),
    "edges of a committed task are forgotten": ("self.arrived.pop(task, None)", "pass"),
    "a task whose edges are not all settled stays on the list": (
        "        if outcome.settled:\n            self.active.pop(task, None)",
        "        if True:\n            self.active.pop(task, None)",
    ),
    "a task that was committed is not run again": (
        "        if winner is not None:\n            self.active[task]",
        "        if False:\n            self.active[task]",
    ),
    "a released job stays released": (
        'return m.Reply(m.GONE, b"", ())\n            self.open',
        "pass\n            self.open",
    ),
    "a request prolongs the lease": (
        "executor.deadline = now + request.lease\n        if self.status",
        "executor.deadline = executor.deadline or now + request.lease\n        if self.status",
    ),
    "a ready task nobody came for is found": ("unclaimed.append(task)", "pass"),
    "a lapsed owner loses its tasks": (
        'self.active[task] = _Active(states.READY, active.attempt, "", now)\n                lapsed',
        "lapsed",
    ),
    "each attempt has a number of its own": (
        "attempt = self.attempts[task] = self.attempts.get(task, self.base) + 1\n        self.active[task]",
        "attempt = self.attempts[task] = self.base + 1\n        self.active[task]",
    ),
    "a claimed task is not given to another": (
        "            if active.state == states.READY and task in self.done",
        "            if active.state == states.CLAIMED:\n"
        "                grants.append(self._grant(task, wanted, request.nonce, now))\n"
        "            elif active.state == states.READY and task in self.done",
    ),
}


def mutant(rule: str) -> type[Shard]:
    """Return the model without one rule."""
    there, instead = MUTANTS[rule]
    source = inspect.getsource(model)
    assert source.count(there) == 1, f"the place of this rule has changed: {there!r}"
    module = ModuleType("mutant")
    exec(compile(source.replace(there, instead), f"the model without: {rule}", "exec"), module.__dict__)
    shard: type[Shard] = module.Shard
    return shard


@pytest.mark.parametrize("rule", MUTANTS)
def test_without_this_rule_a_seed_breaks_what_must_hold(rule: str) -> None:
    shard = mutant(rule)
    for seed in range(SEEDS):
        try:
            World(seed, shard=shard).run()
        except Violation:
            return
    pytest.fail(f"{SEEDS} seeds do not need the rule that {rule}")
