"""No rule of the protocol without a seed that needs it: each is taken out in its turn, of the model and of the Lua.

The seed that finds the broken model is replayed on the broken Lua, where it has to fail as well, and on the true ones,
where it must not.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from tests.simulation.lua import LuaShards, LuaWorld
from tests.simulation.mutants import MUTANTS, lua_without, model_without
from wukong.protocol.model import Shard
from wukong.simulation.campaign import faults_of
from wukong.simulation.faults import HARMLESS, KINDS, Faults
from wukong.simulation.world import Violation, World

SEEDS = 2000
#: Seeds that find a mutant of the model may differ on the Lua, which is not changed in quite the same place.
TRIES = 3
#: Faults that find what takes several at once, of which few seeds draw all; and from which seed on.
RARE = {
    "edges of a later epoch do not arrive in a shard of an earlier one": (
        0,
        Faults(stall=0.1, forget=3, rival=2, reply=0.3, echo=0.03),
    ),
    "uses count only under the epoch of who made them": (
        6000,
        Faults(death=0.03, echo=0.1, forget=3, limit=2.0, lose=0.1, rival=2),
    ),
}


def runs_for(rule: str) -> Iterator[tuple[int, Faults]]:
    """Return seeds, each with the faults that it is run with."""
    if rule in RARE:
        first, faults = RARE[rule]
        return ((seed, faults) for seed in range(first, first + SEEDS))
    return ((seed, faults_of(seed, kinds)) for seed in range(SEEDS) for kinds in (KINDS, HARMLESS))


def broken(seed: int, faults: Faults, world: type[World], shard: Any) -> bool:
    """Whether a run breaks what must hold."""
    try:
        world(seed, shard=shard, faults=faults).run()
    except Violation:
        return True
    return False


def broken_on_lua(seed: int, faults: Faults, url: str, script: Any = None) -> bool:
    shards = LuaShards(url, script)
    try:
        return broken(seed, faults, LuaWorld, shards)
    finally:
        shards.close()


@pytest.mark.parametrize("rule", MUTANTS)
def test_without_this_rule_a_seed_breaks_what_must_hold_on_the_model_and_on_the_lua(rule, embedded_url):
    shard, script = model_without(rule), lua_without(rule)
    found_by = (run for run in runs_for(rule) if broken(*run, World, shard))
    found = list(islice(found_by, 1))
    assert found, f"{SEEDS} seeds do not need the rule that {rule}"
    while not broken_on_lua(*found[-1], embedded_url, script):
        assert len(found) < TRIES, f"of the seeds {found}, which find it in the model, none finds it in the Lua"
        found += islice(found_by, 1)
    assert not broken(*found[-1], World, Shard)
    assert not broken_on_lua(*found[-1], embedded_url)


@pytest.mark.parametrize("seed", range(5))
def test_a_seed_is_the_same_run_on_the_model_and_on_the_lua(seed, embedded_url):
    shards = LuaShards(embedded_url)
    try:
        assert World(seed).run().trace == LuaWorld(seed, shard=shards).run().trace
    finally:
        shards.close()


def test_what_a_forgotten_release_brings_back_has_an_end_on_the_lua(embedded_url):
    kinds = ("forget", "echo", "late")
    left = (seed for seed in range(SEEDS) if World(seed, faults=faults_of(seed, kinds)).run().records.left())
    for seed in islice(left, 3):
        shards = LuaShards(embedded_url)
        try:
            records = LuaWorld(seed, shard=shards, faults=faults_of(seed, kinds)).run().records
            assert records.left()
            assert not records.endless()
        finally:
            shards.close()
