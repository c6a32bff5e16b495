"""The Lua of each server does what the reference model does: same random requests, same answers, same records.

Hypothesis draws requests from a small job with everything in it: a diamond, an output, a task with parents in another
shard, and one so wide that its edges are kept apart. Executors may send any of them at any time, in turn, again, or
late; time is virtual.
"""

import itertools
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.storage.clock import Clock
from wukong.ids import new_job
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.storage.control.memory import MemoryControlStore
from wukong.storage.open import open_control

LEASE = 10.0
WIDE = 6
FOREIGN = 9  # its home is another shard
CROWD = range(100, 139)  # so are theirs; all of them, and task 0, are parents of WIDE
PARENTS = {3: (0, 1), 4: (1, 2, FOREIGN), 5: (3, 4), WIDE: (0, *CROWD), m.CLIENT: (3, 5)}
CHILDREN = {
    task: tuple(child for child, parents in PARENTS.items() if task in parents) for task in (*range(7), FOREIGN, *CROWD)
}
TASKS = tuple(range(7))
ALL = (m.CLIENT, *TASKS, FOREIGN, CROWD[0], CROWD[-1])
NONCES = ("a", "b", "c")

nonces = st.sampled_from(NONCES)
tasks = st.sampled_from(TASKS)
claims = st.integers(0, 3)


@st.composite
def values(draw):
    kind = draw(st.sampled_from((m.INLINE, m.STORED, m.HELD)))
    return m.Value(kind, draw(st.sampled_from((1, 10**6))), draw(st.binary(max_size=3)) if kind == m.INLINE else None)


@st.composite
def edges(draw, task):
    children = draw(st.permutations(CHILDREN[task]))
    return tuple(
        m.Edge(child, len(PARENTS[child]), draw(st.sampled_from(((), PARENTS[child][:3], None)))) for child in children
    )


@st.composite
def outcomes(draw, task, attempt):
    out = draw(edges(task))
    settled = draw(st.sampled_from((False, True, None)))
    return m.Outcome(
        task,
        attempt,
        draw(values()),
        out[:1] if settled is False else out,
        draw(claims),
        draw(st.booleans()),
        tuple((parent, len(CHILDREN[parent])) for parent in PARENTS.get(task, ()) if parent in TASKS),
        settled,
    )


class Siblings(RuleBasedStateMachine):
    """A model and stores that are told the same."""

    urls: ClassVar[dict[str, str]]

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.model = MemoryControlStore(1, self.clock)
        self.stores = {name: open_control(url, clock=self.clock) for name, url in self.urls.items()}
        self.job = new_job()
        self.seqs = {nonce: itertools.count(2) for nonce in (*NONCES, "client")}
        self.sent = []

    def tell(self, request):
        expected = self.model.apply(self.job, 0, request)
        for name, store in self.stores.items():
            assert store.apply(self.job, 0, request) == expected, name
        if not isinstance(request, m.Probe):
            self.sent.append(request)

    def attempts(self, task):
        return (*(max(state.attempt, 1) for state in self.states(task)), 1, 2)

    def states(self, *tasks):
        return self.model.apply(self.job, 0, m.Probe(tasks)).body

    @initialize(leaves=st.permutations((0, 1, 2)), epoch=st.sampled_from((0, 3)))
    def open(self, leaves, epoch):
        root = m.Outcome(m.CLIENT, epoch, m.Value(m.STORED, 0), tuple(m.Edge(leaf, 1) for leaf in leaves))
        self.tell(m.Arrive("client", 1, LEASE, (root,)))

    @rule(
        nonce=st.sampled_from((*NONCES, "client")),
        asked=st.one_of(st.just(TASKS), st.lists(st.sampled_from((m.CLIENT, *TASKS)), max_size=4)),
        wanted=st.booleans(),
    )
    def claim(self, nonce, asked, wanted):
        inputs = tuple((task, PARENTS.get(task, ())[:3] if wanted else ()) for task in asked)
        self.tell(m.Claim(nonce, next(self.seqs[nonce]), LEASE, inputs))

    @rule(nonce=st.sampled_from((*NONCES, "client")), data=st.data(), count=st.integers(1, 4))
    def commit(self, nonce, data, count):
        batch = []
        for _ in range(count):
            task = data.draw(tasks)
            batch.append(data.draw(outcomes(task, data.draw(st.sampled_from(self.attempts(task))))))
        self.tell(m.Commit(nonce, next(self.seqs[nonce]), LEASE, tuple(batch)))

    @rule(nonce=nonces, data=st.data())
    def commit_what_is_ones_own(self, nonce, data):
        owned = [task for task, state in zip(TASKS, self.states(*TASKS), strict=False) if state.owner == nonce]
        mine = [(task, state.attempt) for task, state in zip(owned, self.states(*owned), strict=False)]
        if mine:
            batch = tuple(data.draw(outcomes(*pair)) for pair in mine)
            self.tell(m.Commit(nonce, next(self.seqs[nonce]), LEASE, batch))

    @rule(nonce=nonces, data=st.data(), held=st.booleans())
    def work(self, nonce, data, held):
        """Take one task that can be had and finish it: what executors mostly do."""
        able = [task for task, state in zip(TASKS, self.states(*TASKS), strict=False) if state.state == states.READY]
        if able:
            task = data.draw(st.sampled_from(able))
            self.tell(m.Claim(nonce, next(self.seqs[nonce]), LEASE, ((task, PARENTS.get(task, ())),)))
            (attempt, *_) = self.attempts(task)
            outcome = data.draw(outcomes(task, attempt))
            if held:
                outcome = outcome._replace(value=m.Value(m.HELD, 10**6), hold=True)
            self.tell(m.Commit(nonce, next(self.seqs[nonce]), LEASE, (outcome,)))

    @rule(nonce=nonces, data=st.data())
    def arrive(self, nonce, data):
        outcome = data.draw(outcomes(FOREIGN, 1))._replace(inputs=())
        self.tell(m.Arrive(nonce, next(self.seqs[nonce]), LEASE, (outcome,)))

    @rule(
        nonce=nonces,
        bounds=st.tuples(st.sampled_from((0, 1, 20)), st.sampled_from((20, 38, 39))),
        value=values(),
        wanted=claims,
        hold=st.booleans(),
    )
    def crowd_arrives(self, nonce, bounds, value, wanted, hold):
        edge = m.Edge(WIDE, len(PARENTS[WIDE]), (0, CROWD[3]))
        batch = tuple(m.Outcome(task, 1, value, (edge,), wanted, hold) for task in CROWD[slice(*bounds)])
        self.tell(m.Arrive(nonce, next(self.seqs[nonce]), LEASE, batch))

    @rule(nonce=nonces, lease=st.sampled_from((1.0, 20.0)))
    def renew(self, nonce, lease):
        self.tell(m.Renew(nonce, lease))

    @rule(seconds=st.sampled_from((0.5, LEASE, 11)))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @rule(
        patience=st.sampled_from((0.0, 5.0)),
        dead=st.lists(st.sampled_from((*NONCES, "nobody")), max_size=2),
        late=st.lists(tasks, max_size=2),
    )
    def sweep(self, patience, dead, late):
        self.tell(m.Sweep(patience, tuple(dead), tuple(late)))

    @rule(nonce=nonces, given=st.lists(tasks, max_size=3), used=st.lists(tasks, max_size=2))
    def release(self, nonce, given, used):
        uses = tuple((task, len(CHILDREN[task])) for task in used)
        self.tell(m.Release(nonce, next(self.seqs[nonce]), LEASE, tuple(given), uses))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data):
        self.tell(data.draw(st.sampled_from(self.sent[-6:])))

    @precondition(lambda self: len(self.sent) > 12)
    @rule(status=st.sampled_from((m.FAILED, m.CANCELLED)), reason=st.binary(max_size=40))
    def cancel(self, status, reason):
        self.tell(m.Cancel(status, reason))

    @precondition(lambda self: len(self.sent) > 12)
    @rule(nonce=nonces)
    def release_everything(self, nonce):
        self.tell(m.Release(nonce, next(self.seqs[nonce]), LEASE, everything=True))

    @invariant()
    def records_are_equal(self):
        self.tell(m.Probe(ALL))
        for name, store in self.stores.items():
            assert store.wait(self.job, 0) == self.model.wait(self.job, 0), name

    def teardown(self):
        for store in self.stores.values():
            store.apply(self.job, 0, m.Release("client", 10**9, LEASE, everything=True))
            store.close()


def test_the_lua_and_the_model_answer_alike_and_keep_the_same_records(embedded_url, tcp_url, cluster_url):
    class Here(Siblings):
        urls: ClassVar = {"embedded": embedded_url, "redis 7 over TCP": tcp_url, "cluster": cluster_url}

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
