"""Values that stay where processes made them: from one graph to the next, until somebody looks or nobody holds them."""

import gc
import os
import signal
import time

import dask
import dask.array as da
import numpy as np
import pytest
from dask import delayed
from dask.callbacks import Callback

import wukong
from wukong import serialize
from wukong.errors import ClientClosed
from wukong.platforms.local import pack as packs
from wukong.platforms.local.locks import shares
from wukong.scheduler import adaptive
from wukong.storage.arena import Arena

pytestmark = [pytest.mark.timeout(90), pytest.mark.skipif(not shares, reason="no process granules here")]

CHUNK = 2_000_000


@pytest.fixture(scope="module")
def processes():
    with wukong.Client(workers=2, granules="processes", memory_limit="500MB", set_as_default=False) as client:
        yield client


@pytest.fixture
def client(processes):
    """The client of this module; afterwards nothing of the test is left in its arena."""
    with dask.config.set(scheduler=processes.get):
        yield processes
    until(lambda: not in_use(arena_of(processes)), "everything is let go")


@pytest.fixture
def moved(monkeypatch):
    """Bytes that this process packs, and that it maps of the arena."""
    counted = {"packed": 0, "mapped": 0}
    dumps, opens = serialize.dumps, Arena.open

    def packed(*args):
        frame = dumps(*args)
        counted["packed"] += frame.nbytes
        return frame

    def mapped(arena, sealed):
        counted["mapped"] += len(sealed)
        return opens(arena, sealed)

    monkeypatch.setattr(serialize, "dumps", packed)
    monkeypatch.setattr(Arena, "open", mapped)
    return counted


def until(true, what):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        gc.collect()
        time.sleep(0.001)


def arena_of(client):
    return client._engine.processes.pack().arena


def in_use(arena):
    """Blocks that hold a value, or that somebody reads."""
    return [block.id for block in arena._pool.blocks.values() if block.extents or block.readers]


def ones():
    """Four chunks of 2 MB."""
    return da.ones(CHUNK // 2, chunks=CHUNK // 8)


def settled(collection):
    wukong.wait([future for future in collection.dask.values() if isinstance(future, wukong.Future)])
    return collection


@pytest.mark.usefixtures("client")
def test_what_is_persisted_goes_from_graph_to_graph_without_the_client(moved):
    x = settled((ones() + 1).persist())
    y = settled((x * 3).persist())
    assert float(y.sum().compute()) == 6 * CHUNK // 2
    assert float((x + y).max().compute()) == 8
    assert moved["packed"] < CHUNK // 4
    assert moved["mapped"] < CHUNK // 4
    assert list(np.unique(y.compute())) == [6]
    assert moved["mapped"] > 4 * CHUNK


def test_futures_of_one_graph_are_read_where_they_lie_by_calls_and_by_the_next(client, moved):
    made = client.compute(delayed(np.ones)(CHUNK // 8))
    assert client.submit(np.sum, made).result() == CHUNK // 8
    assert client.compute(delayed(np.sum)(made)).result() == CHUNK // 8
    assert moved["packed"] + moved["mapped"] < CHUNK // 4
    assert made.result() is made.result()
    made.result()[:] = 0
    assert delayed(np.sum)(made).compute() == CHUNK // 8


def test_small_values_stay_packed_too(client):
    future = client.compute(delayed(dict)(a=1))
    wukong.wait(future)
    assert not future.call.has_value
    assert delayed(len)(future).compute() == 1
    assert not future.call.has_value
    assert future.result() == {"a": 1}


def spin(x):
    ends = time.thread_time() + 0.02
    while time.thread_time() < ends:
        pass
    return np.full(CHUNK // 8, os.getpid() + 0 * x[0])


def nap(x):
    time.sleep(0.02)
    return os.getpid(), int(x[0])


def test_functions_that_moved_leave_their_values_to_threads_and_to_processes(monkeypatch, moved):
    guilty = adaptive.name_of([spin])
    monkeypatch.setattr(adaptive.verdicts, "holds", lambda name: name == guilty)
    monkeypatch.setattr(adaptive.verdicts, "asks", lambda _: False)
    monkeypatch.setitem(adaptive._lasted, guilty, 0.02)
    with wukong.Client(workers=2, memory_limit="500MB") as client:
        pack = client._engine.processes.pack()
        until(lambda: pack.ready, "there are processes")
        made = dask.persist(*[delayed(spin)([n]) for n in range(8)])
        futures = [next(iter(one.dask.values())) for one in made]
        wukong.wait(futures)
        assert "processes" in client.last_run.where
        # The first ran before the rest was handed over.
        there = [future for future in futures if not future.call.has_value]
        assert len(there) >= 5
        here = 8 * CHUNK - len(there) * CHUNK
        again = dask.persist(*[delayed(spin)(one) for one in made])
        wukong.wait([next(iter(one.dask.values())) for one in again])
        assert moved["packed"] < here + CHUNK // 4
        naps = dask.compute(*[delayed(nap)(one) for one in made])
        assert {where for where, _ in naps} == {os.getpid()}
        assert sum(pid != os.getpid() for _, pid in naps) == len(there)
        assert moved["packed"] < here + CHUNK // 4


# --- how long they live -----------------------------------------------------------------------------------------------


def test_they_are_let_go_with_what_holds_them_and_count_against_the_limit(client):
    arena = arena_of(client)
    until(lambda: not in_use(arena), "everything is let go")
    before = arena.figures()
    x = settled((ones() + 1).persist())
    assert len(in_use(arena)) == 4
    now = arena.figures()
    assert now.in_memory - now.unused >= before.in_memory - before.unused + 4 * CHUNK
    y = settled(x[: CHUNK // 8].persist())
    del x
    until(lambda: len(in_use(arena)) <= 2, "three of four are let go")
    assert float(y.sum().compute()) == CHUNK // 4


def test_they_outlive_the_worker_that_made_them(client):
    x = settled((ones() + 1).persist())
    pack = client._engine.processes.pack()
    for pid in (old := pack.pids):
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(pack.pids) == 2 and not set(old) & set(pack.pids), "there are new workers")
    assert float((x + 1).sum().compute()) == 3 * CHUNK // 2
    assert float(x.compute()[0]) == 2


def test_they_outlive_all_workers_of_a_client_that_has_to_start_anew(monkeypatch):
    monkeypatch.setattr(packs, "DEATHS", 0)
    with wukong.Client(workers=1, granules="processes", memory_limit="500MB") as client:
        x = settled((ones() + 1).persist())
        made = client.submit(np.ones, CHUNK // 8)
        wukong.wait(made)
        old = client._engine.processes.pack()
        os.kill(old.pids[0], signal.SIGKILL)
        until(lambda: not old.usable, "the pack is given up")
        # Blocks of the new one have the numbers that those of the old one had.
        z = settled((ones() + 4).persist())
        assert float((x + 1).sum().compute()) == 3 * CHUNK // 2
        assert client.submit(np.sum, made).result() == CHUNK // 8
        assert float((x + z).max().compute()) == 7
        keepers = old.keeper, client._engine.processes.pack().keeper
    for keeper in keepers:
        with pytest.raises(ProcessLookupError):
            os.kill(keeper, 0)


def test_beyond_the_memory_limit_they_are_on_disk():
    with wukong.Client(workers=2, granules="processes", memory_limit="5MB") as client:
        x = settled((ones() + 1).persist())
        figures = arena_of(client).figures()
        assert figures.on_disk >= CHUNK
        assert figures.in_memory <= 5_000_000
        assert float((x + 1).sum().compute()) == 3 * CHUNK // 2


def test_a_closed_client_says_what_became_of_them():
    with wukong.Client(workers=1, granules="processes") as client:
        made = client.compute(delayed(np.ones)(CHUNK // 8))
        small = client.compute(delayed(int)("3"))
        wukong.wait([made, small])
    assert small.result() == 3
    with pytest.raises(ClientClosed, match="before closing"):
        made.result()
    with wukong.Client(workers=1) as other:
        _own = other.scatter(1)
        with pytest.raises(ClientClosed, match="before closing"):
            other.get({made.key: made, "sum": (np.sum, made.key)}, "sum")


# --- in the company of other options ----------------------------------------------------------------------------------


@pytest.mark.parametrize("granules", ["threads", "inline", "auto", "processes"])
def test_other_clients_read_them_however_they_run(client, granules):
    made = client.compute(delayed(np.ones)(CHUNK // 8))
    # The one of its own has it look for futures.
    graph = {made.key: made, **{f"sum{n}": (np.sum, made.key) for n in range(4)}}
    graph["all"] = (lambda *sums: float(sum(sums)), *(f"sum{n}" for n in range(4)))
    with wukong.Client(workers=2, granules=granules) as other:
        _own = other.scatter(1)
        assert other.get(graph, "all") == 4 * CHUNK // 8
        assert list(other.get(graph, [made.key, "all"])[0]) == [1] * (CHUNK // 8)
    with wukong.Client(workers=2, store="embedded", granules=granules) as other:
        _own = other.scatter(1)
        assert other.get(graph, "all") == 4 * CHUNK // 8


def test_callbacks_a_cache_and_failures_see_the_values_themselves(client):
    x = settled((ones() + 1).persist())
    seen = []
    with Callback(start_state=lambda _, state: seen.extend(state["cache"].values())):
        assert float(x.sum().compute()) == 2 * CHUNK // 2
    assert [float(chunk[0]) for chunk in seen if isinstance(chunk, np.ndarray)] == [2] * 4
    with wukong.cache("100MB") as kept:
        y = settled((x * 2).persist())
        assert len(kept) == 4
        assert float(y.max().compute()) == 4
    bad = client.compute(delayed(divide)(x[: CHUNK // 8], 0))
    assert isinstance(bad.exception(), ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        client.recreate_error_locally(bad)


def divide(array, by):
    return int(array[0]) // by
