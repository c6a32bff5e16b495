"""Every cell of the tables in docs/protocol.md is true of the reference model, and of the Lua."""

import re
from pathlib import Path

import pytest

from tests.storage.clock import Clock
from wukong.ids import new_job
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.storage.control.memory import MemoryControlStore
from wukong.storage.open import open_control

LEASE = 10.0
PATIENCE = 5.0
TASK, PARENT = 7, 3
STORED = m.Value(m.STORED, 1)
STATUSES = ("RUNNING", "FAILED", "CANCELLED", "GONE")


def table(first_column):
    """The rows of the table whose second column has this head, as {(row, column): cell}."""
    text = Path(__file__).parents[2].joinpath("docs", "protocol.md").read_text()
    tables = [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()]
        for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    ]
    (rows,) = [rows for rows in tables if rows[0][1] == first_column]
    head = rows[0][1:]
    return {(row[0], column): cell for row in rows[2:] for column, cell in zip(head, row[1:], strict=True)}


TASKS = table("WAITING")
JOBS = table("RUNNING")


class Scene:
    """A job in which `TASK`, child of the leaves 1 and `PARENT`, is brought to a state."""

    def __init__(self, store, clock):
        self.store, self.clock, self.job = store, clock, new_job()
        self.seq = 0

    def tell(self, request):
        return self.store.apply(self.job, 0, request)

    def next(self, kind, nonce, *args, **kwargs):
        self.seq += 1
        return self.tell(kind(nonce, self.seq, LEASE, *args, **kwargs))

    def open(self):
        return self.next(m.Arrive, "client", (m.Outcome(m.CLIENT, 0, STORED, (m.Edge(1, 1),)),))

    def arrive(self, nonce, parent, claims=0):
        return self.next(m.Arrive, nonce, (m.Outcome(parent, 1, STORED, (m.Edge(TASK, 2),), claims),))

    def commit(self, nonce, attempt, settled):
        return self.next(m.Commit, nonce, (m.Outcome(TASK, attempt, STORED, settled=settled),))

    def bring_to(self, state, arrived):
        self.open()
        self.next(m.Release, "a")
        self.next(m.Release, "b")
        if arrived or state != "WAITING":
            self.arrive("c", 1)
        if state != "WAITING":
            self.arrive("c", PARENT)
        if state in ("CLAIMED", "UNSETTLED", "SETTLED"):
            self.next(m.Claim, "a", ((TASK, ()),))
        if state in ("UNSETTLED", "SETTLED"):
            self.commit("a", 1, state == "SETTLED")
        assert self.state().startswith(state)

    def state(self):
        (state,) = self.tell(m.Probe((TASK,))).body
        return states.NAMES[state.state] + (f" by {state.owner}" if state.owner else "")


def of_settlement(reply):
    (settlement,) = reply.body
    if settlement.granted:
        (grant,) = settlement.granted
        assert grant.task == TASK
        return "granted"
    return "ready" if settlement.ready == (TASK,) else "nothing"


def of_claim(reply):
    if not reply.body:
        return "nothing"
    (grant,) = reply.body
    return "granted as committed" if grant.committed == STORED else "granted"


def of_commit(reply):
    return {m.OK: "ok", m.LOST: "lost"}[reply.body[0].verdict]


def of_sweep(reply):
    lapsed, unclaimed = reply.body
    assert {*lapsed, *unclaimed} <= {1, TASK}
    return "lapsed" if TASK in lapsed else "unclaimed" if TASK in unclaimed else "nothing"


def wait_and_sweep(scene):
    scene.clock.now += LEASE + 1
    return of_sweep(scene.tell(m.Sweep(PATIENCE)))


def nothing(reply):
    assert reply.body == ()
    return "nothing"


ON_TASKS = {
    "probe": lambda s: "state" if len(s.tell(m.Probe((TASK,))).body) == 1 else "nothing",
    "arrive, not the last edge": lambda s: of_settlement(s.arrive("b", 1)),
    "arrive, the last edge, sender claims none": lambda s: of_settlement(s.arrive("b", PARENT)),
    "arrive, the last edge, sender b claims one": lambda s: of_settlement(s.arrive("b", PARENT, 1)),
    "arrive, the last edge, sender a claims one": lambda s: of_settlement(s.arrive("a", PARENT, 1)),
    "claim by a": lambda s: of_claim(s.next(m.Claim, "a", ((TASK, ()),))),
    "claim by b": lambda s: of_claim(s.next(m.Claim, "b", ((TASK, ()),))),
    "commit by a, all settled": lambda s: of_commit(s.commit("a", 1, True)),
    "commit by a, edges left": lambda s: of_commit(s.commit("a", 1, False)),
    "commit by b of attempt 2": lambda s: of_commit(s.commit("b", 2, True)),
    "commit by b of the value of attempt 1": lambda s: of_commit(s.commit("b", 1, None)),
    "renew by a": lambda s: nothing(s.tell(m.Renew("a", LEASE))),
    "sweep while leases and patience last": lambda s: of_sweep(s.tell(m.Sweep(PATIENCE))),
    "sweep after they have ended": wait_and_sweep,
    "sweep that knows a to be dead": lambda s: of_sweep(s.tell(m.Sweep(PATIENCE, dead=("a",)))),
    "sweep for which the task is late": lambda s: of_sweep(s.tell(m.Sweep(PATIENCE, late=(TASK,)))),
    "cancel": lambda s: nothing(s.tell(m.Cancel(m.CANCELLED, b""))),
    "release by a": lambda s: nothing(s.next(m.Release, "a", (TASK,))),
    "release by b": lambda s: nothing(s.next(m.Release, "b", (TASK,))),
}

ON_JOBS = {
    "probe": lambda s: s.tell(m.Probe((1,))).body != (),
    "arrive from the client": lambda s: s.open().body != (),
    "arrive from an executor": lambda s: s.arrive("b", 1).body != (),
    "claim": lambda s: s.next(m.Claim, "b", ((1, ()),)).body != (),
    "commit": lambda s: s.commit("b", 1, True).body != (),
    "renew": lambda s: s.tell(m.Renew("a", LEASE)).status != m.GONE,
    "sweep": lambda s: s.tell(m.Sweep(0.0)).body != (),
    "cancel as FAILED": lambda s: s.tell(m.Probe()) != s.tell(m.Cancel(m.FAILED, b"why")),
    "release of uses": lambda s: s.next(m.Release, "b", (), ((2, 1),)).body != (),
    "release of everything": lambda s: s.tell(m.Probe()).status != s.next(m.Release, "b", everything=True).status,
}


@pytest.fixture(params=["memory", "embedded_url"])
def scene(request):
    clock = Clock()
    if request.param == "memory":
        store = MemoryControlStore(1, clock)
    else:
        store = open_control(request.getfixturevalue(request.param), clock=clock)
    yield Scene(store, clock)
    store.close()


def test_the_tables_have_every_operation_and_every_state():
    assert {row for row, _ in TASKS} == set(ON_TASKS)
    assert {column for _, column in TASKS} == set(states.NAMES)
    assert {row for row, _ in JOBS} == set(ON_JOBS)
    assert {column for _, column in JOBS} == set(STATUSES)
    operations = {re.split(r"[ ,]", row)[0] for row in (*ON_TASKS, *ON_JOBS)}
    assert operations == {"probe", "arrive", "claim", "commit", "renew", "sweep", "cancel", "release"}


@pytest.mark.parametrize(("operation", "state"), sorted(TASKS))
def test_a_task_does_what_its_cell_says(scene, operation, state):
    scene.bring_to(state, arrived="the last edge" in operation)
    answer = ON_TASKS[operation](scene)
    assert f"{scene.state()}, {answer}" == TASKS[operation, state]


@pytest.mark.parametrize(("operation", "status"), sorted(JOBS))
def test_a_job_does_what_its_cell_says(scene, operation, status):
    if status != "GONE":
        scene.open()
        scene.next(m.Commit, "a", (m.Outcome(2, 1, STORED),))
    if status in ("FAILED", "CANCELLED"):
        scene.tell(m.Cancel(STATUSES.index(status), b"first"))
    done = ON_JOBS[operation](scene)
    after = STATUSES[scene.tell(m.Probe()).status]
    assert f"{after}, {'done' if done else 'refused'}" == JOBS[operation, status]
