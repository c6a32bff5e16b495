"""What an executor of an older job epoch may still do to a job that was opened again."""

import pytest

from tests.storage.clock import Clock
from wukong.ids import new_job
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.storage.control.memory import MemoryControlStore
from wukong.storage.open import open_control

LEASE = 10.0
VALUE = m.Value(m.INLINE, 1, b"v")
TASK, CHILD = 1, 2


@pytest.fixture(params=["memory", "embedded"])
def tell(request):
    """Send a request to a job that is open under epoch 3, by the client `new`."""
    clock, job = Clock(), new_job()
    if request.param == "memory":
        store = MemoryControlStore(1, clock)
    else:
        store = open_control(request.getfixturevalue("embedded_url"), clock=clock)
    root = m.Outcome(m.CLIENT, 3, m.Value(m.STORED, 0), (m.Edge(TASK, 1),))
    store.apply(job, 0, m.Arrive("new", 1, LEASE, (root,)))
    yield lambda request: store.apply(job, 0, request)
    store.apply(job, 0, m.Release("new", 10**6, LEASE, everything=True))
    store.close()


def verdict(tell, nonce, seq, attempt, edges=()):
    return tell(m.Commit(nonce, seq, LEASE, (m.Outcome(TASK, attempt, VALUE, edges),))).body[0].verdict


def state(tell):
    return tell(m.Probe((TASK,))).body[0].state


def test_the_end_of_a_commit_that_was_forgotten_does_not_settle_its_task(tell):
    # An executor of epoch 0 says at last that all its edges are settled: those that were are so no more.
    assert verdict(tell, "old", 7, 1) == m.LOST
    assert state(tell) == states.READY


def test_who_opened_the_epoch_may_say_what_was_done_in_an_older_one(tell):
    assert verdict(tell, "new", 2, 1, (m.Edge(CHILD, 1),)) == m.OK
    assert state(tell) == states.SETTLED
    # Then the attempt has won, and who made it may say so once more.
    assert verdict(tell, "old", 7, 1, (m.Edge(CHILD, 1),)) == m.OK


def test_an_executor_of_an_older_epoch_may_claim_and_then_commits_as_any_other(tell):
    (grant,) = tell(m.Claim("old", 7, LEASE, ((TASK, ()),))).body
    assert grant.attempt == 3 * m.EPOCH + 1
    assert verdict(tell, "old", 8, grant.attempt) == m.OK


def opening(nonce, epoch, task):
    return m.Arrive(nonce, 1, LEASE, (m.Outcome(m.CLIENT, epoch, m.Value(m.STORED, 0), (m.Edge(task, 1),)),))


def test_opening_a_later_epoch_removes_what_the_shard_knew_and_an_end_of_the_job_with_it(tell):
    assert verdict(tell, "new", 2, 1, (m.Edge(CHILD, 1),)) == m.OK
    tell(m.Cancel(m.FAILED, b"reason"))
    assert tell(opening("newer", 4, CHILD)).body[0].ready == (CHILD,)
    task, child = tell(m.Probe((TASK, CHILD))).body
    assert (task.state, task.attempt, task.value) == (states.WAITING, 4 * m.EPOCH, None)
    assert child.state == states.READY
    assert verdict(tell, "new", 3, 1) == m.LOST


def test_opening_an_earlier_epoch_settles_no_more_than_edges(tell):
    assert tell(opening("late", 2, CHILD)).body[0].ready == (CHILD,)
    assert [state.attempt for state in tell(m.Probe((TASK, CHILD))).body] == [3 * m.EPOCH, 3 * m.EPOCH]
    assert verdict(tell, "late", 2, 1) == m.LOST


def test_edges_of_a_later_epoch_wait_until_the_shard_is_opened_under_it(tell):
    edges = m.Arrive("e", 1, LEASE, (m.Outcome(9, 4 * m.EPOCH + 1, VALUE, (m.Edge(CHILD, 1),)),))
    assert tell(edges).status == m.GONE
    assert tell(edges).status == m.GONE
    (child,) = tell(m.Probe((CHILD,))).body
    assert child.state == states.WAITING
    tell(opening("newer", 4, TASK))
    assert tell(edges).body[0].ready == (CHILD,)


def test_uses_made_in_an_older_epoch_do_not_count(tell):
    edges = (m.Edge(CHILD, 1),)
    assert verdict(tell, "new", 2, 1, edges) == m.OK
    tell(m.Release("old", 8, LEASE, uses=((TASK, 1),)))
    assert tell(m.Probe((TASK,))).body[0].value == VALUE
    tell(m.Release("e", 1, LEASE, uses=((TASK, 1),), epoch=3))
    assert tell(m.Probe((TASK,))).body[0].value is None


def test_the_same_epoch_may_be_opened_in_several_requests(tell):
    assert tell(opening("new2", 3, CHILD)).body[0].ready == (CHILD,)
    assert state(tell) == states.READY


def test_cancelling_does_not_forget_who_opened_the_job(tell):
    assert verdict(tell, "new", 2, 1) == m.OK
    assert tell(m.Cancel(m.FAILED, b"reason")).status == m.FAILED
    assert tell(m.Probe((TASK,))).reason == b"reason"
