"""``wukong simulate``: what it runs, what it tells, and how small it makes a run that fails."""

import pytest

from tests.simulation.mutants import model_without
from wukong import cli
from wukong.errors import ConfigError
from wukong.simulation import command
from wukong.simulation.campaign import Summary, faults_of, run, run_many
from wukong.simulation.faults import KINDS
from wukong.simulation.minimise import fails, minimised
from wukong.simulation.world import World


def test_several_processes_run_the_same_as_one():
    one, two = Summary(), Summary()
    for part in run_many(range(300), jobs=1):
        one.add(part)
    for part in run_many(range(300), jobs=2):
        two.add(part)
    assert (one.seeds, one.happened, one.covered, one.ends) == (two.seeds, two.happened, two.covered, two.ends)


def test_the_summary_counts_every_fault_by_state(capsys):
    assert cli.main(["simulate", "--seeds", "20", "--first", "5", "--tasks", "6"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("20 seeds, 0 violations, ")
    for kind in KINDS:
        assert f"\n| {kind} " in told


def test_one_seed_is_replayed_with_its_events(capsys):
    assert cli.main(["simulate", "--seed", "7", "--faults", "none"]) == 0
    told = capsys.readouterr().out
    assert "client1: Ask(shard=0, request=Arrive(" in told
    assert told.endswith("that did: none\n")


def test_a_kind_of_fault_that_there_is_not_is_named(capsys):
    assert cli.main(["simulate", "--faults", "death,boredom"]) == 1
    assert "'boredom'" in capsys.readouterr().err


def test_no_seeds_are_refused():
    with pytest.raises(ConfigError, match="--seeds 0"):
        command.simulate(seeds=0)


def test_a_failing_seed_is_made_smaller_and_fails_still():
    shard = model_without("the first commit wins")
    seed = next(s for s in range(1000) if fails(s, faults_of(s, None), None, shard=shard))
    faults, size = minimised(seed, faults_of(seed, None), None, shard=shard)
    assert fails(seed, faults, size, shard=shard)
    assert len(faults.kinds()) < len(faults_of(seed, None).kinds())
    assert size <= len(World(seed).plan.tasks)
    for kind in faults.kinds():
        assert not fails(seed, faults.without(kind), size, shard=shard)


def test_a_seed_that_breaks_something_is_told_with_the_command_that_replays_it(capsys, monkeypatch):
    seed, shard = 0, model_without("the first commit wins")
    while not fails(seed, faults_of(seed, None), None, shard=shard):
        seed += 1
    monkeypatch.setattr(World.__init__, "__defaults__", (shard, *World.__init__.__defaults__[1:]))
    assert command.simulate(seeds=1, first=seed) == 1
    told = capsys.readouterr().out
    assert f"minimised: wukong simulate --seed {seed} --faults " in told
    replay = told.split("minimised: wukong ")[1].split()
    assert cli.main(replay) == 1


def test_jobs_end_as_their_faults_have_it():
    assert set(run(range(40), ("error",)).ends) >= {"failed"}
    assert set(run(range(200), ("cancel",)).ends) == {"results", "cancelled"}
    assert set(run(range(200), ("memory",)).ends) == {"results", "failed"}
