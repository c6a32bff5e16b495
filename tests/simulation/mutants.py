"""The protocol with one rule taken out: of the reference model and of the Lua alike.

A mutant is the true source with one place changed, so it goes stale with the source and says so.
"""

import inspect
from importlib.resources import files
from types import ModuleType
from typing import NamedTuple

import wukong.storage.control
from wukong.protocol import model
from wukong.protocol.model import Shard
from wukong.storage.control.script import folded
from wukong.storage.link import Script


class Change(NamedTuple):
    """What stands in the source, and what instead, in the model and in the Lua."""

    there: str
    instead: str
    lua: str
    lua_instead: str


MUTANTS = {
    "an old request changes nothing": Change(
        "if request.seq < executor.seq:", "if False:", "elseif seq < last then", "elseif false then"
    ),
    "a repeated request is not carried out again": Change(
        "if request.seq == executor.seq:", "if False:", "if seq == last then", "if false then"
    ),
    "arrivals are a set, not a count": Change(
        "arrived.add(parent)",
        "arrived.add((parent, len(arrived)))",
        "elseif has_arrived(record, parent) then",
        "elseif false then",
    ),
    "the first commit wins": Change(
        "if winner is not None and winner != outcome.attempt:",
        "if False:",
        "if winner and winner ~= attempt or not winner",
        "if not winner",
    ),
    "commits of older epochs do not count": Change(
        "if winner is None and outcome.attempt <= self.base and nonce != self.opener:",
        "if False:",
        " or not winner and attempt <= base and nonce ~= opener",
        "",
    ),
    "a dead holder owns nothing": Change(
        "return holder if holder is not None and self._alive(holder, now) else None",
        "return holder",
        "return holder and alive(holder) and holder or nil",
        "return holder",
    ),
    "one holder for a child": Change(
        "if holder not in (None, nonce):", "if False:", " or holder and holder ~= nonce then", " then"
    ),
    "a value is held for one child at most": Change(
        "if not outcome.hold or waiter is not None:",
        "if not outcome.hold:",
        "if not request[at + O_HOLD] or waiter then",
        "if not request[at + O_HOLD] then",
    ),
    "a value is held only by who asks to": Change(
        "if not outcome.hold or waiter is not None:",
        "if waiter is not None:",
        "if not request[at + O_HOLD] or waiter then",
        "if waiter then",
    ),
    "a value that is written replaces a held one": Change(
        "(known is not None and known[1].kind != m.HELD):",
        "known is not None:",
        "if known and known ~= HELD or used_up then",
        "if known or used_up then",
    ),
    "who has written what it held gives up its hold": Change(
        "elif outcome.settled is None and self._holder(child, now) == nonce:",
        "elif False:",
        "elseif request[at + O_SETTLED] == nil and holder_of(record) == nonce then",
        "elseif false then",
    ),
    "a value alone makes no task done": Change(
        "if winner is None and outcome.settled is None:",
        "if False:",
        "if not winner and settled == nil then",
        "if false then",
    ),
    "a value alone settles no edges": Change(
        "        if outcome.settled is None:\n            if outcome.value",
        "        if outcome.settled is None:\n            self.active.pop(task, None)\n            if outcome.value",
        "  if settled == nil then\n    if request",
        "  if settled == nil then\n    deactivate(record)\n    if request",
    ),
    "edges of a committed task are forgotten": Change(
        "self.arrived.pop(task, None)",
        "pass",
        "record[ARRIVED], record[HOLDER] = nil, nil",
        "record[HOLDER] = nil",
    ),
    "a task whose edges are not all settled stays on the list": Change(
        "elif outcome.settled:",
        "elif True:",
        "elseif settled then",
        "elseif true then",
    ),
    "a task that was committed is not run again": Change(
        "        if winner is not None:\n            self.active[task]",
        "        if False:\n            self.active[task]",
        "  if record[DONE] then\n    activate(record, UNSETTLED",
        "  if false then\n    activate(record, UNSETTLED",
    ),
    "only the client opens a shard": Change(
        "if not self.open and not opens:",
        "if not self.open and not isinstance(request, m.Arrive):",
        "  if not opens then\n",
        "  if op ~= ARRIVE then\n",
    ),
    "a later epoch replaces an earlier one": Change(
        "if not self.open or base > self.base:",
        "if not self.open:",
        "local later = job[1] and opens and",
        "local later = false and",
    ),
    "edges of a later epoch do not arrive in a shard of an earlier one": Change(
        "if any(outcome.attempt > self.base + m.EPOCH for outcome in request.outcomes):",
        "if False:",
        "if op == ARRIVE and early then",
        "if false then",
    ),
    "uses count only under the epoch of who made them": Change(
        "self._use(request.uses) if request.epoch * m.EPOCH == self.base else ()",
        "self._use(request.uses)",
        "if request[BODY + 1] * EPOCH == base then",
        "if true then",
    ),
    "a request prolongs the lease": Change(
        "executor.deadline = now + request.lease\n        if self.status",
        "executor.deadline = executor.deadline or now + request.lease\n        if self.status",
        "call('HSET', KEYS[4], nonce, pack(seq, now + lease), '=' .. nonce, packed)",
        "local was = job[2] and select(2, unpacked(job[2])) or now + lease\n"
        "  call('HSET', KEYS[4], nonce, pack(seq, was), '=' .. nonce, packed)",
    ),
    "a ready task nobody came for is found": Change(
        "unclaimed.append(task)", "pass", "unclaimed[#unclaimed + 1] = task", ""
    ),
    "a lapsed owner loses its tasks": Change(
        'self.active[task] = _Active(states.READY, active.attempt, "", now)\n                lapsed',
        "lapsed",
        "activate(record, READY, record[ATTEMPT], '')\n        lapsed",
        "lapsed",
    ),
    "each attempt has a number of its own": Change(
        "attempt = self.attempts[task] = self.attempts.get(task, self.base) + 1\n        self.active[task]",
        "attempt = self.attempts[task] = self.base + 1\n        self.active[task]",
        "record[ATTEMPTS] = (record[ATTEMPTS] or base) + 1\n    activate(record, CLAIMED, record[ATTEMPTS], nonce)",
        "record[ATTEMPTS] = base + 1\n    activate(record, CLAIMED, record[ATTEMPTS], nonce)",
    ),
    "a claimed task is not given to another": Change(
        "            if active.state == states.READY and task in self.done",
        "            if active.state == states.CLAIMED:\n"
        "                grants.append(self._grant(task, wanted, request.nonce, now))\n"
        "            elif active.state == states.READY and task in self.done",
        "    if record[STATE] == READY then\n      if record[DONE]",
        "    if record[STATE] == CLAIMED then\n      grant(record)\n"
        "    elseif record[STATE] == READY then\n      if record[DONE]",
    ),
}


def model_without(rule: str) -> type[Shard]:
    """Return the model without one rule."""
    change = MUTANTS[rule]
    source = _changed(inspect.getsource(model), change.there, change.instead)
    module = ModuleType("mutant")
    exec(compile(source, f"the model without: {rule}", "exec"), module.__dict__)
    shard: type[Shard] = module.Shard
    return shard


def lua_without(rule: str) -> Script:
    """Return the Lua without one rule."""
    change = MUTANTS[rule]
    source = files(wukong.storage.control).joinpath("control.lua").read_text()
    return Script(folded(_changed(source, change.lua, change.lua_instead)))


def _changed(source: str, there: str, instead: str) -> str:
    assert source.count(there) == 1, f"the place of this rule has changed: {there!r}"
    return source.replace(there, instead)
