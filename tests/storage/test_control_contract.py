"""What every control store does, asked of each: in memory, embedded, Redis 7 over TCP, and a cluster of three."""

import itertools
import threading

import pytest

from tests.conftest import SERVERS
from tests.storage.clock import Clock
from wukong.ids import new_job
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.storage.control.memory import MemoryControlStore
from wukong.storage.open import open_control

LEASE = 10.0
STORED = m.Value(m.STORED, 100)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["memory", *SERVERS])
def store(request, clock):
    if request.param == "memory":
        store = MemoryControlStore(2, clock)
    else:
        store = open_control(request.getfixturevalue(request.param), shards=2, clock=clock)
    yield store
    store.close()


class Party:
    """An executor, or the client: a nonce that counts its requests to shard 0."""

    def __init__(self, store, job, nonce):
        self.store, self.job, self.nonce = store, job, nonce
        self.seqs = itertools.count(1)

    def tell(self, kind, *args, **kwargs):
        reply = self.store.apply(self.job, 0, kind(self.nonce, next(self.seqs), LEASE, *args, **kwargs))
        assert reply.status == m.RUNNING
        return reply.body

    def claim(self, task, *wanted):
        return self.tell(m.Claim, ((task, wanted),))

    def commit(self, task, attempt, value, *edges, **options):
        (settlement,) = self.tell(m.Commit, (m.Outcome(task, attempt, value, edges, **options),))
        return settlement


@pytest.fixture
def job():
    return new_job()


@pytest.fixture
def client(store, job):
    client = Party(store, job, "client")
    yield client
    for shard in range(store.shards):
        store.apply(job, shard, m.Release("client", 10**9, LEASE, everything=True))


@pytest.fixture
def a(store, job):
    return Party(store, job, "a")


@pytest.fixture
def b(store, job):
    return Party(store, job, "b")


def launch(client, *tasks):
    root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), tuple(m.Edge(task, 1) for task in tasks))
    (settlement,) = client.tell(m.Arrive, (root,))
    return settlement.ready


def inline(data):
    return m.Value(m.INLINE, len(data), data)


def probe(party, *tasks):
    return party.store.apply(party.job, 0, m.Probe(tasks)).body


def test_the_last_of_two_parents_goes_on_with_the_child_and_gets_what_the_other_made(client, a, b):
    assert launch(client, 0, 1) == (0, 1)
    assert a.claim(0) == (m.Grant(0, 1),)
    assert b.claim(1) == (m.Grant(1, 1),)
    assert a.commit(0, 1, inline(b"left"), m.Edge(2, 2, (1,)), claims=1) == m.Settlement(m.OK)
    assert b.commit(1, 1, STORED, m.Edge(2, 2, (0, 1)), claims=1) == m.Settlement(
        m.OK, (m.Grant(2, 1, (m.Input(0, 1, inline(b"left")), m.Input(1, 1, STORED))),)
    )
    assert probe(b, 0, 1, 2, 3) == (
        m.State(states.SETTLED, 1, "", inline(b"left")),
        m.State(states.SETTLED, 1, "", STORED),
        m.State(states.CLAIMED, 1, "b", None),
        m.State(states.WAITING, 0, "", None),
    )


def test_the_same_edge_twice_is_one_edge(client, a, b):
    launch(client, 0, 1)
    a.claim(0)
    assert a.commit(0, 1, STORED, m.Edge(2, 2), settled=False).ready == ()
    assert a.commit(0, 1, STORED, m.Edge(2, 2)).ready == ()
    b.claim(1)
    assert b.commit(1, 1, STORED, m.Edge(2, 2)).ready == (2,)


def test_only_one_executor_gets_a_ready_task(client, a, b):
    launch(client, 0)
    assert a.claim(0) == (m.Grant(0, 1),)
    assert b.claim(0) == ()
    assert a.claim(0) == (m.Grant(0, 1),)


def test_a_repeated_request_gets_the_same_answer_and_an_older_one_is_stale(store, job, client):
    launch(client, 0, 1)
    first = m.Claim("a", 1, LEASE, ((0, ()),))
    reply = store.apply(job, 0, first)
    assert reply.body == (m.Grant(0, 1),)
    assert store.apply(job, 0, first) == reply
    store.apply(job, 0, m.Claim("a", 2, LEASE, ((1, ()),)))
    assert store.apply(job, 0, first) == m.Reply(m.STALE, b"", ())


def test_the_first_commit_wins_and_a_late_one_of_another_attempt_is_lost(client, clock, a, b):
    launch(client, 0)
    a.claim(0)
    clock.now += LEASE + 1
    assert client.store.apply(client.job, 0, m.Sweep(60.0)).body == ((0,), ())
    assert b.claim(0) == (m.Grant(0, 2),)
    assert b.commit(0, 2, inline(b"second"), m.Edge(1, 1)).ready == (1,)
    assert a.commit(0, 1, inline(b"first"), m.Edge(1, 1), claims=1) == m.Settlement(m.LOST)
    assert probe(a, 0)[0].value == inline(b"second")


def test_a_renewed_lease_does_not_lapse(client, clock, a):
    launch(client, 0)
    a.claim(0)
    clock.now += LEASE - 1
    client.store.apply(client.job, 0, m.Renew("a", LEASE))
    clock.now += LEASE - 1
    assert client.store.apply(client.job, 0, m.Sweep(60.0)).body == ((), ())
    assert probe(a, 0)[0].owner == "a"


def test_a_lease_lasts_to_its_last_moment(client, clock, a):
    launch(client, 0)
    a.claim(0)
    clock.now += LEASE
    assert client.store.apply(client.job, 0, m.Sweep(60.0)).body == ((), ())
    clock.now += 0.001
    assert client.store.apply(client.job, 0, m.Sweep(60.0)).body == ((0,), ())


def test_an_executor_known_to_be_dead_has_lapsed_whatever_its_lease_says(client, a, b):
    launch(client, 0, 1)
    a.claim(0)
    b.claim(1)
    assert client.store.apply(client.job, 0, m.Sweep(60.0, dead=("a", "nobody"))).body == ((0,), ())
    assert b.claim(0) == (m.Grant(0, 2),)


def test_a_task_that_is_late_goes_to_another_and_the_first_of_both_to_commit_wins(client, a, b):
    launch(client, 0, 1)
    a.claim(0)
    a.claim(1)
    assert client.store.apply(client.job, 0, m.Sweep(60.0, late=(0,))).body == ((0,), ())
    assert b.claim(0) == (m.Grant(0, 2),)
    assert a.commit(0, 1, inline(b"first"), m.Edge(2, 1)).ready == (2,)
    assert b.commit(0, 2, inline(b"second"), m.Edge(2, 1)) == m.Settlement(m.LOST)


def test_attempts_of_a_later_job_epoch_have_numbers_of_their_own(client, a):
    root = m.Outcome(m.CLIENT, 2, m.Value(m.STORED, 0), (m.Edge(0, 1), m.Edge(1, 2)))
    client.tell(m.Arrive, (root,))
    (grant,) = a.claim(0)
    assert grant.attempt == 2 * m.EPOCH + 1
    assert m.tries(grant.attempt) == 1
    assert probe(a, 1)[0].attempt == 2 * m.EPOCH


def test_a_sweep_names_ready_tasks_nobody_claimed_once_each_time_patience_is_over(client, clock, a):
    launch(client, 3, 1, 2)
    a.claim(2)
    clock.now += 5
    assert client.store.apply(client.job, 0, m.Sweep(5.0)).body == ((), (1, 3))
    assert client.store.apply(client.job, 0, m.Sweep(5.0)).body == ((), ())


def test_a_value_is_freed_with_its_last_use(client, a):
    launch(client, 0)
    a.claim(0)
    settlement = a.commit(0, 1, STORED, m.Edge(1, 1), m.Edge(2, 1), claims=2)
    assert [grant.task for grant in settlement.granted] == [1, 2]
    assert a.commit(1, 1, inline(b""), inputs=((0, 2),)).freed == ()
    assert a.commit(2, 1, inline(b""), inputs=((0, 2),)).freed == ((0, 1),)
    assert probe(a, 0) == (m.State(states.SETTLED, 1, "", None),)


def test_a_value_used_up_earlier_in_a_request_is_not_given_later_in_it(client, a):
    launch(client, 0, 1)
    a.claim(0)
    a.claim(1)
    a.commit(0, 1, inline(b"x"), m.Edge(2, 1), claims=1)
    last_use = m.Outcome(2, 1, STORED, inputs=((0, 1),))
    settlements = a.tell(m.Commit, (last_use, m.Outcome(1, 1, STORED, (m.Edge(3, 1, (0, 1)),), 1)))
    assert settlements[1].granted == (m.Grant(3, 1, (m.Input(1, 1, STORED),)),)


def test_a_value_that_is_used_up_does_not_come_back(client, a):
    launch(client, 0)
    a.claim(0)
    a.commit(0, 1, STORED, settled=False)
    assert a.tell(m.Release, (), ((0, 1),)) == ((0, 1),)
    a.commit(0, 1, STORED)
    assert probe(a, 0) == (m.State(states.SETTLED, 1, "", None),)


def test_the_holder_of_an_input_gets_the_child_whoever_completes_it(client, a, b):
    launch(client, 0, 1)
    a.claim(0)
    b.claim(1)
    held = m.Value(m.HELD, 10**6)
    assert a.commit(0, 1, held, m.Edge(2, 2), claims=1, hold=True).verdict == m.HOLDING
    assert b.commit(1, 1, held, m.Edge(2, 2), claims=1, hold=True).verdict == m.WRITE
    assert b.commit(1, 1, STORED, m.Edge(2, 2), claims=1) == m.Settlement(m.OK)
    assert probe(a, 0, 2) == (
        m.State(states.SETTLED, 1, "", m.Value(m.HELD, 10**6, "a")),
        m.State(states.CLAIMED, 1, "a", None),
    )
    assert a.claim(2, 1) == (m.Grant(2, 1, (m.Input(1, 1, STORED),)),)


def test_writing_another_value_does_not_give_up_a_hold_but_writing_the_held_one_does(client, a, b):
    launch(client, 0, 1, 2)
    for task in (0, 1):
        a.claim(task)
    b.claim(2)
    held = m.Value(m.HELD, 10**6)
    assert a.commit(0, 1, held, m.Edge(3, 3), hold=True).verdict == m.HOLDING
    a.commit(1, 1, inline(b"small"), m.Edge(3, 3))
    assert b.commit(2, 1, held, m.Edge(3, 3), claims=1).verdict == m.WRITE
    a.commit(0, 1, STORED, m.Edge(3, 3), settled=None)
    assert b.commit(2, 1, held, m.Edge(3, 3), claims=1).granted == (m.Grant(3, 1),)


def test_a_lost_value_that_somebody_else_computes_again_replaces_the_held_one(client, a, b):
    launch(client, 0)
    a.claim(0)
    assert a.commit(0, 1, m.Value(m.HELD, 10**6), m.Edge(1, 1), claims=1).granted
    assert b.commit(0, 1, STORED, settled=None) == m.Settlement(m.OK)
    assert probe(b, 0, 1) == (m.State(states.SETTLED, 1, "", STORED), m.State(states.CLAIMED, 1, "a", None))
    assert a.commit(0, 1, m.Value(m.HELD, 10**6), m.Edge(1, 1), claims=1).verdict == m.OK
    assert probe(b, 0)[0].value == STORED, "a written value is not held again"


def test_a_hold_outlives_what_others_write_and_ends_when_its_holder_says_that_it_has_written(client, a, b):
    launch(client, 0)
    a.claim(0)
    edge = m.Edge(1, 2)
    assert a.commit(0, 1, m.Value(m.HELD, 10**6), edge, hold=True).verdict == m.HOLDING
    b.commit(0, 1, STORED, settled=None)
    b.commit(0, 1, STORED, edge, settled=None)
    launch(client, 2)
    b.claim(2)
    assert b.commit(2, 1, m.Value(m.HELD, 10**6), edge, claims=1).verdict == m.WRITE
    a.commit(0, 1, STORED, edge, settled=None)
    assert b.commit(2, 1, m.Value(m.HELD, 10**6), edge, claims=1).granted == (m.Grant(1, 1),)


def test_a_value_that_is_written_after_its_last_use_is_to_be_deleted(client, a, b):
    launch(client, 0)
    a.claim(0)
    a.commit(0, 1, m.Value(m.HELD, 10**6), m.Edge(1, 1), claims=1)
    a.tell(m.Release, (), ((0, 1),))
    for writer in (b, a):
        assert writer.commit(0, 1, STORED, settled=None) == m.Settlement(m.OK, freed=((0, 1),))
        assert writer.commit(0, 1, inline(b"small"), settled=None) == m.Settlement(m.OK)
    assert probe(b, 0) == (m.State(states.SETTLED, 1, "", None),)


def test_a_value_that_is_used_up_comes_back_only_if_what_is_made_of_it_is_lost(client, a, b):
    launch(client, 0)
    a.claim(0)
    a.commit(0, 1, STORED)
    assert a.tell(m.Release, (), ((0, 1),)) == ((0, 1),)
    assert b.commit(0, 1, STORED, hold=True) == m.Settlement(m.OK)
    assert probe(b, 0)[0].value is None
    assert b.commit(0, 1, STORED, hold=True, settled=None) == m.Settlement(m.OK)
    assert probe(b, 0) == (m.State(states.SETTLED, 1, "", STORED),)
    assert a.commit(0, 1, STORED, settled=None) == m.Settlement(m.OK)


def test_a_value_alone_makes_no_task_done_and_settles_none(client, a, b):
    launch(client, 0)
    assert b.commit(0, 1, STORED, settled=None) == m.Settlement(m.LOST)
    a.claim(0)
    assert b.commit(0, 1, STORED, settled=None) == m.Settlement(m.LOST)
    a.commit(0, 1, STORED, settled=False)
    assert b.commit(0, 1, STORED, settled=None) == m.Settlement(m.OK)
    assert b.commit(0, 2, STORED, settled=None) == m.Settlement(m.LOST)
    assert probe(a, 0) == (m.State(states.UNSETTLED, 1, "a", STORED),)


def test_a_value_may_be_held_only_for_as_many_children_as_the_sender_may_claim(client, a):
    launch(client, 0)
    a.claim(0)
    held = m.Value(m.HELD, 10**6)
    edges = m.Edge(1, 1), m.Edge(2, 1)
    assert a.commit(0, 1, held, *edges, claims=1) == m.Settlement(m.WRITE)
    assert a.commit(0, 1, held, *edges, claims=2) == m.Settlement(m.OK, (m.Grant(1, 1), m.Grant(2, 1)))


def test_a_child_that_belongs_elsewhere_is_named_but_not_granted(client, a, b):
    launch(client, 0)
    a.claim(0)
    edges = m.Edge(1, 1), m.Edge(2, 1, None), m.Edge(3, 1)
    assert a.commit(0, 1, STORED, *edges, claims=3) == m.Settlement(m.OK, (m.Grant(1, 1), m.Grant(3, 1)), (2,))
    assert [grant.task for grant in b.claim(2)] == [2]


def test_no_value_is_held_for_a_child_that_belongs_elsewhere(client, a):
    launch(client, 0)
    a.claim(0)
    held = m.Value(m.HELD, 10**6)
    assert a.commit(0, 1, held, m.Edge(1, 1), m.Edge(2, 1, None), claims=2) == m.Settlement(m.WRITE)
    assert a.commit(0, 1, held, m.Edge(2, 2, None), hold=True) == m.Settlement(m.WRITE)


def test_a_child_its_holder_gave_back_can_be_had_by_others(client, a, b):
    launch(client, 0, 1, 2)
    a.claim(0)
    a.commit(0, 1, m.Value(m.HELD, 10**6), m.Edge(3, 2), hold=True)
    b.claim(1)
    b.commit(1, 1, STORED, m.Edge(3, 2))
    a.tell(m.Release, (3,))
    b.claim(2)
    assert b.commit(2, 1, m.Value(m.HELD, 10**6), m.Edge(3, 2), claims=1).granted == (m.Grant(3, 2),)


def test_a_task_whose_edges_were_left_unsettled_is_granted_as_committed(client, clock, a, b):
    launch(client, 0)
    a.claim(0)
    a.commit(0, 1, inline(b"done"), settled=False)
    clock.now += LEASE + 1
    assert client.store.apply(client.job, 0, m.Sweep(60.0)).body == ((0,), ())
    assert b.claim(0) == (m.Grant(0, 1, (), inline(b"done")),)
    assert b.commit(0, 1, inline(b"done")).verdict == m.OK
    assert probe(b, 0) == (m.State(states.SETTLED, 1, "", inline(b"done")),)


def test_a_task_that_is_unsettled_but_used_up_is_not_granted_again(client, clock, a, b):
    launch(client, 0)
    a.claim(0)
    a.commit(0, 1, STORED, settled=False)
    a.tell(m.Release, (), ((0, 1),))
    clock.now += LEASE + 1
    assert client.store.apply(client.job, 0, m.Sweep(60.0)).body == ((0,), ())
    assert b.claim(0) == ()
    assert probe(b, 0) == (m.State(states.SETTLED, 1, "", None),)


def test_a_released_claim_can_be_taken_by_another(client, a, b):
    launch(client, 0)
    a.claim(0)
    b.tell(m.Release, (0,))
    assert b.claim(0) == ()
    a.tell(m.Release, (0,))
    assert b.claim(0) == (m.Grant(0, 2),)


@pytest.mark.parametrize("size", [0, 1, 255, 70_000])
def test_any_bytes_come_back_as_they_were(client, a, size):
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    launch(client, 0)
    a.claim(0)
    settlement = a.commit(0, 1, inline(data), m.Edge(1, 1, (0,)), claims=1)
    assert settlement.granted == (m.Grant(1, 1, (m.Input(0, 1, inline(data)),)),)


def test_fans_wider_than_any_limit_of_the_server_settle_in_batches(client, a):
    width = 10_000
    assert launch(client, *range(width)) == tuple(range(width))
    assert len(a.tell(m.Claim, tuple((task, ()) for task in range(width)))) == width
    ready = ()
    for start in range(0, width, 2500):
        outcomes = tuple(
            m.Outcome(task, 1, inline(b"%d" % task), (m.Edge(width, width),)) for task in range(start, start + 2500)
        )
        assert ready == ()
        for settlement in a.tell(m.Commit, outcomes):
            ready += settlement.ready
    assert ready == (width,)
    (grant,) = a.claim(width, *range(width))
    assert [data.value.body for data in grant.inputs] == [b"%d" % task for task in range(width)]
    assert client.store.apply(client.job, 0, m.Sweep(0.0)).body == ((), ())


def test_shards_and_jobs_know_nothing_of_each_other(store, job, client, a):
    launch(client, 0)
    a.claim(0)
    assert store.apply(job, 1, m.Probe((0,))).status == m.GONE
    assert store.apply(new_job(), 0, m.Probe((0,))).status == m.GONE


def test_nothing_opens_a_job_but_the_client(store, job):
    outcome = m.Outcome(0, 1, STORED, (m.Edge(1, 1),))
    for kind in (m.Arrive, m.Commit):
        assert store.apply(job, 0, kind("a", 1, LEASE, (outcome,))) == m.Reply(m.GONE, b"", ())
    assert store.apply(job, 0, m.Cancel(m.CANCELLED, b"")) == m.Reply(m.GONE, b"", ())


def test_after_a_cancel_everybody_hears_the_first_reason(store, job, client):
    launch(client, 0)
    store.apply(job, 0, m.Cancel(m.FAILED, b"\xff first"))
    store.apply(job, 0, m.Cancel(m.CANCELLED, b"second"))
    refused = m.Reply(m.FAILED, b"\xff first", ())
    assert store.apply(job, 0, m.Claim("a", 1, LEASE, ((0, ()),))) == refused
    assert store.apply(job, 0, m.Probe((0,))).status == m.FAILED


def test_a_released_job_is_gone(store, job, client):
    launch(client, 0)
    client.store.apply(job, 0, m.Release("client", 99, LEASE, everything=True))
    assert store.apply(job, 0, m.Claim("a", 1, LEASE, ((0, ()),))) == m.Reply(m.GONE, b"", ())
    assert not store.wait(job, 0.01)


def test_waiting_ends_at_once_when_the_client_is_ready_however_often_it_is_asked(store, job, client, a):
    assert not store.wait(job, 0.01)
    launch(client, 0)
    a.claim(0)
    assert not store.wait(job, 0.01)
    assert a.commit(0, 1, STORED, m.Edge(m.CLIENT, 1), claims=1).ready == (m.CLIENT,)
    assert store.wait(job, 0.0)
    assert store.wait(job, 0.0)
    client.claim(m.CLIENT, 0)
    assert store.wait(job, 0.0)


@pytest.mark.parametrize("ending", ["ready", "cancelled"])
def test_waiting_threads_are_woken(store, job, client, a, ending):
    launch(client, 0)
    a.claim(0)
    woken = []
    waiters = [threading.Thread(target=lambda: woken.append(store.wait(job, 20.0))) for _ in range(2)]
    for waiter in waiters:
        waiter.start()
    if ending == "ready":
        a.commit(0, 1, STORED, m.Edge(m.CLIENT, 1))
    else:
        store.apply(job, 0, m.Cancel(m.CANCELLED, b"enough"))
    for waiter in waiters:
        waiter.join(20.0)
    assert woken == [True, True]


def test_of_many_threads_that_complete_a_fan_in_exactly_one_is_granted_the_child(store, job, client):
    rounds, width = 20, 4
    launch(client, *range(rounds * width))
    granted = []

    def walk(member):
        party = Party(store, job, f"thread {member}")
        for i in range(rounds):
            task = i * width + member
            party.claim(task)
            granted.extend(party.commit(task, 1, inline(b"x"), m.Edge(1000 + i, width), claims=1).granted)

    threads = [threading.Thread(target=walk, args=(member,)) for member in range(width)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert sorted(grant.task for grant in granted) == [1000 + i for i in range(rounds)]


def test_requests_are_counted(store, client):
    before = store.counters.round_trips
    launch(client, 0)
    assert store.counters.round_trips > before
