"""Watching over a job: what it takes to bring one to its end after executors died and stores forgot."""

import copy
from random import Random
from typing import Any

import pytest

from wukong.cost import Costs, Estimates
from wukong.errors import TaskLost
from wukong.executor import effects as fx
from wukong.executor.context import Context
from wukong.executor.core import Executor
from wukong.executor.session import Session
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.model import Shard
from wukong.scheduler import launch, watch
from wukong.simulation.graphs import RandomSchedule

COSTS = Costs(1e-3, 1e9, 5e-3, lease=5.0, attempts=1000)


class Job:
    """A random job whose executors run one after the other, each as far as it is let."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.plan = RandomSchedule(random, random.randint(2, 16))
        self.shards = [Shard() for _ in range(random.choice([1, 2, 3]))]
        self.stored: dict[tuple[int, int], int] = {}
        self.now = 0.0
        self.waiting: list[list[int]] = []
        self.entered = 0

    def session(self) -> Session:
        self.entered += 1
        return Session(f"e{self.entered}", COSTS.lease, len(self.shards))

    def drive(self, steps: Any, effects: float = float("inf")) -> Any:
        """Carry out so many effects."""
        answer = None
        while effects > 0:
            try:
                effect = steps.send(answer)
            except StopIteration as end:
                return end.value
            effects -= 1
            answer = self.carry_out(effect)
        return None

    def carry_out(self, effect: fx.Effect) -> Any:
        match effect:
            case fx.Ask(shard, request):
                return self.shards[shard].apply(request, self.now)
            case fx.Run(task, values):
                return fx.Ran(self.plan.run(task, values), 1e-3)
            case fx.Fetch(names):
                return [self.stored.get(name, fx.LACKING) for name in names]
            case fx.Put(frames):
                self.stored.update({(task, attempt): body for task, attempt, body in frames})
            case fx.Drop(names):
                for name in names:
                    self.stored.pop(name, None)
            case fx.Invoke(tasks, _):
                self.waiting += [[task] for task in tasks]
            case fx.Pause():
                self.now += COSTS.lease
                return True
        return None

    def execute(self, effects: float = float("inf")) -> str:
        """Run an executor on whatever was invoked last."""
        session = self.session()
        context = Context(self.plan, COSTS, Estimates(1e-3), self.pack, lambda _, body: body, lambda: True)
        context.shards = len(self.shards)
        self.drive(Executor(session.nonce, context).walk(self.waiting.pop()), effects)
        return session.nonce

    def pack(self, value: int) -> fx.Packed:
        nbytes = self.plan.nbytes(value)
        return fx.Packed(nbytes <= 1000, nbytes, value)

    def run_to_the_end(self) -> None:
        for _ in range(1000):
            while self.waiting:
                self.execute()
            (client,) = self.shards[0].apply(m.Probe((m.CLIENT,)), self.now).body
            if client.state == states.READY:
                return
            self.now += 2 * COSTS.lease
            self.drive(watch.look(len(self.shards), COSTS.lease))
        raise AssertionError("the job does not end")

    def check(self) -> None:
        inputs = self.drive(launch.collect(self.plan, self.session()))
        values = {i.task: i.value.body if i.value.kind == m.INLINE else self.stored[i.task, i.attempt] for i in inputs}
        assert [values[task] for task in self.plan.outputs] == self.plan.results()

    def launch(self) -> None:
        self.waiting = [[task] for task in self.drive(launch.open_job(self.plan, self.session()))]


@pytest.mark.parametrize("tenth", range(10))
def test_a_job_whose_executors_die_at_any_step_comes_to_its_end(tenth: int) -> None:
    for seed in range(50 * tenth, 50 * tenth + 50):
        job = Job(seed)
        job.launch()
        for _ in range(5):
            if job.waiting:
                dead = job.execute(job.random.randint(1, 8))
                job.drive(watch.look(len(job.shards), 1e9, dead=(dead,)))
        job.run_to_the_end()
        job.check()


@pytest.mark.parametrize("tenth", range(10))
def test_a_job_whose_store_forgets_its_last_writes_comes_to_its_end_after_repair(tenth: int) -> None:
    for seed in range(50 * tenth, 50 * tenth + 50):
        job = Job(seed)
        job.launch()
        for epoch in range(1, 4):
            before = copy.deepcopy(job.shards)
            for _ in range(job.random.randint(0, 6)):
                if job.waiting:
                    job.execute(job.random.choice([3, 8, 1000]))
            for shard in range(len(job.shards)):
                how = job.random.random()
                if how < 0.4:
                    job.shards[shard] = before[shard]
                elif how < 0.6:
                    job.shards[shard] = Shard()
            job.drive(watch.repair(job.plan, job.session(), epoch))
        job.run_to_the_end()
        job.check()


def test_repair_runs_nothing_again_that_is_known_to_be_done() -> None:
    job = Job(3)
    job.launch()
    job.run_to_the_end()
    job.waiting.clear()
    assert job.drive(watch.repair(job.plan, job.session(), 1)) == []
    assert job.waiting == []
    job.check()


def test_repair_runs_what_is_known_to_be_lost() -> None:
    job = Job(3)
    job.launch()
    job.run_to_the_end()
    job.waiting.clear()
    lost = job.plan.outputs[:1]
    assert set(lost) <= set(job.drive(watch.repair(job.plan, job.session(), 1, without=lost)))
    job.run_to_the_end()
    job.check()


def test_looking_at_a_job_that_is_gone_says_so() -> None:
    job = Job(0)
    assert job.drive(watch.look(len(job.shards), 1.0)) == m.GONE
    job.launch()
    assert job.drive(watch.look(len(job.shards), 1.0)) == m.RUNNING


def test_a_late_task_gets_a_second_executor() -> None:
    job = Job(3)
    job.launch()
    task = job.plan.leaves[0]
    job.waiting = [[task]]
    job.execute(1)
    job.drive(watch.look(len(job.shards), 1e9, late=(task,)))
    assert [task] in job.waiting


def job_with_a_leaf_that_may_run_only_once() -> tuple[Job, int]:
    job = Job(3)
    leaf = next(leaf for leaf in job.plan.leaves if not job.plan.is_output(leaf))
    job.plan.only_once.add(leaf)
    job.launch()
    return job, leaf


def test_repair_ends_a_job_rather_than_run_again_what_was_begun_and_may_run_only_once() -> None:
    job, leaf = job_with_a_leaf_that_may_run_only_once()
    job.waiting = [[leaf]]
    job.execute(1)
    with pytest.raises(TaskLost, match="only once"):
        job.drive(watch.repair(job.plan, job.session(), 1, forgot=tuple))


def test_repair_runs_what_may_run_only_once_if_the_records_prove_that_it_was_not_begun() -> None:
    job, _ = job_with_a_leaf_that_may_run_only_once()
    job.waiting.clear()
    job.drive(watch.repair(job.plan, job.session(), 1, forgot=tuple))
    job.run_to_the_end()
    job.check()


def test_repair_ends_a_job_whose_store_cannot_say_whether_what_may_run_only_once_has_run() -> None:
    job, _ = job_with_a_leaf_that_may_run_only_once()
    with pytest.raises(TaskLost):
        job.drive(watch.repair(job.plan, job.session(), 1))
    job.shards = [Shard() for _ in job.shards]
    with pytest.raises(TaskLost):
        job.drive(watch.repair(job.plan, job.session(), 1, forgot=tuple))


def test_repair_remembers_over_epochs_what_has_run_and_may_run_only_once() -> None:
    job, _ = job_with_a_leaf_that_may_run_only_once()
    job.run_to_the_end()
    job.drive(watch.repair(job.plan, job.session(), 1, forgot=tuple))
    job.check()
    # All values are lost now, of that leaf, too, which nobody needed in this epoch.
    job.stored.clear()
    job.waiting.clear()
    with pytest.raises(TaskLost):
        job.drive(watch.repair(job.plan, job.session(), 2, without=job.plan.tasks, forgot=tuple))


def test_nobody_can_take_a_task_while_repair_reads_the_records() -> None:
    job = Job(3)
    job.launch()
    job.drive(watch.repair(job.plan, job.session(), 1), effects=len(job.shards))
    for shard in job.shards:
        reply = shard.apply(m.Claim("e", 1, 5.0, ((job.plan.leaves[0], ()),)), job.now)
        assert (reply.status, reply.reason) == (m.FAILED, watch.REPAIRING)
