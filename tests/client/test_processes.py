"""The client with processes: its calls, futures and graphs are there what they are in threads."""

import asyncio
import concurrent.futures as cf
import dataclasses
import functools
import operator
import os
import signal
import threading
import time
import traceback

import dask
import dask.array as da
import numpy as np
import pytest
from dask import delayed

import wukong
from wukong.errors import CannotTravel, ClientClosed, ConfigError, TaskFailed, TaskLost
from wukong.platforms.local.locks import shares

pytestmark = [pytest.mark.timeout(90), pytest.mark.skipif(not shares, reason="no process granules here")]


@pytest.fixture(scope="module")
def client():
    with wukong.Client(workers=2, granules="processes", memory_limit="500MB", set_as_default=False) as client:
        yield client


@pytest.fixture
def gate(client, tmp_path):
    """A file; both workers are held until it is there."""
    path = tmp_path / "open"
    began = [tmp_path / f"began{n}" for n in range(2)]
    futures = [client.submit(hold, path, one, priority=10) for one in began]
    until(lambda: all(one.exists() for one in began))
    yield path, futures
    path.touch()
    client.gather(futures, errors="skip")


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def hold(path, began):
    began.touch()
    until(path.exists)
    return os.getpid()


def fail(error):
    raise error


def test_calls_run_elsewhere_and_take_futures_anywhere(client):
    assert client.submit(os.getpid).result() != os.getpid()
    one, two = client.submit(int, "1"), client.submit(int, "2")
    nested = client.submit(lambda *args, **kwargs: (args, kwargs), [one, (two, {one})], k={"x": [two]})
    assert nested.result() == (([1, (2, {1})],), {"k": {"x": [2]}})
    assert client.gather(client.map(operator.add, client.map(int, "123"), [10, 20, 30])) == [11, 22, 33]
    assert client.gather(client.map(pow, range(20), [2] * 20, batch_size=7)) == [n * n for n in range(20)]


def test_values_stay_where_they_are_until_somebody_asks(client):
    array = client.submit(np.ones, 1_000_000)
    total = client.submit(np.sum, array)
    assert total.result() == 1_000_000
    assert not array.call.has_value
    value = array.result()
    assert value.flags.writeable
    assert array.result() is value
    value[:] = 0
    assert client.submit(np.sum, array).result() == 1_000_000


def test_scattered_values_are_packed_once_and_read_by_all(client):
    future = client.scatter(np.arange(500_000))
    totals = client.map(lambda x, n: int(x.sum()) + n, [future] * 4, range(4))
    assert client.gather(totals) == [124999750000 + n for n in range(4)]
    sealed = future.call.sealed
    assert client.submit(len, future).result() == 500_000
    assert future.call.sealed is sealed


def test_failures_come_back_and_end_what_needs_them(client):
    bad = client.submit(fail, ZeroDivisionError("of mine"), key="bad")
    reader = client.submit(str, bad, key="reader")
    with pytest.raises(ZeroDivisionError, match="of mine") as raised:
        reader.result()
    assert "wukong: call 'bad' failed, on the way 'bad' -> 'reader'" in raised.value.__notes__
    # Where tblib is installed the traceback itself comes back, and else its text.
    assert "in fail" in "".join(traceback.format_exception(raised.value))
    with pytest.raises(ZeroDivisionError):
        client.recreate_error_locally(reader)


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    number: int


def fail_frozen(number):
    raise FrozenError(number)


def test_errors_that_let_nothing_be_set_cost_no_worker(client):
    with pytest.raises(FrozenError):
        client.submit(fail_frozen, 3).result()


def test_futures_of_several_clients_are_waited_for_together(client, gate):
    path, held = gate
    with wukong.Client(workers=1, granules="processes", set_as_default=False) as other:
        futures = [other.submit(os.getpid), *held]
        threading.Timer(0.1, path.touch).start()
        assert len(set(client.gather(futures))) == 3
        pairs = [client.submit(os.getpid), other.submit(time.sleep, 0.1)]
        assert len(wukong.wait(pairs, timeout=30).done) == 2
        assert list(wukong.as_completed([client.submit(time.sleep, 0.05), other.submit(time.sleep, 0.1)], timeout=30))


def test_what_cannot_travel_is_named(client):
    assert isinstance(client.submit(len, threading.Lock()).exception(), CannotTravel)
    assert isinstance(client.submit(threading.Lock).exception(), CannotTravel | TaskFailed)
    held = client.scatter([threading.Lock()])[0]
    assert "the value of" in str(client.submit(type, held).exception())
    assert client.submit(int, "3").result() == 3


def test_a_call_whose_worker_dies_runs_again_and_fails_the_third_time(client, tmp_path):
    def once(path):
        if not path.exists():
            path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "through"

    assert client.submit(once, tmp_path / "a").result() == "through"
    assert isinstance(client.submit(os._exit, 5).exception(), TaskLost)


def test_what_waits_is_cancelled_and_never_runs(client, gate, tmp_path):
    waiting = [client.submit((tmp_path / f"ran{n}").touch) for n in range(5)]
    reader = client.submit(str, waiting[0])
    assert all(future.cancel() for future in waiting)
    assert reader.cancelled()
    gate[0].touch()
    assert client.gather(client.map(int, "12")) == [1, 2]
    assert not list(tmp_path.glob("ran*"))


def test_what_runs_is_cancelled_to_those_who_wait_and_killed_if_so_asked(client, gate):
    futures = gate[1]
    assert not futures[0].cancel()
    assert futures[0].cancelled()
    client.cancel(futures[1], force=True)
    assert futures[1].cancelled()
    # The other one is still held; the killed one's place is free again.
    assert client.submit(int, "3").result(30) == 3


def test_higher_priority_runs_first_and_late_groups_take_turns(client, gate, tmp_path):
    def note(name):
        with (tmp_path / "order").open("a") as file:
            file.write(name)
        time.sleep(0.02)  # so that one is not through before the other has begun

    many = client.map(note, "m" * 30)
    few = client.map(note, "f" * 2)
    urgent = client.submit(note, "u", priority=5)
    gate[0].touch()
    client.gather([*few, urgent])
    order = (tmp_path / "order").read_text()
    client.cancel(many)
    assert order.index("u") < 4
    assert order.rindex("f") < 10


def test_several_threads_wait_at_once(client):
    found = []

    def use(n):
        found.append(client.submit(operator.add, client.submit(int, n), 1).result() - n)

    threads = [threading.Thread(target=use, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [1] * 16


def test_time_outs_as_completed_and_callbacks(client, gate):
    future, called = client.submit(int, key="late-there"), threading.Event()
    future.add_done_callback(lambda _: called.set())
    with pytest.raises(TimeoutError, match="late-there"):
        future.result(0.01)
    gate[0].touch()
    # Nobody waits in the client's own way, and still it is told.
    assert called.wait(30)
    assert sorted(f.result() for f in wukong.as_completed(client.map(int, "312"))) == [1, 2, 3]


def test_loops_of_asyncio_and_the_standard_library_wait_too(client):
    async def main():
        values = await asyncio.gather(*client.map(int, "123"))
        return values, [f.result() async for f in wukong.as_completed([client.submit(int, "4")])]

    assert asyncio.run(main()) == ([1, 2, 3], [4])
    with client.executor() as executor:
        assert list(executor.map(pow, range(5), [2] * 5)) == [0, 1, 4, 9, 16]
        futures = [executor.submit(int, str(n)) for n in range(10)]
        assert sorted(f.result() for f in cf.as_completed(futures, 30)) == list(range(10))
        with pytest.raises(OSError, match="mine"):
            executor.submit(fail, OSError("mine")).result()


def test_an_executor_cancels_what_no_worker_has_begun(client, gate):
    executor = client.executor()
    future = executor.submit(int)
    assert future.cancel()
    assert future.cancelled()
    gate[0].touch()
    executor.shutdown()


def test_graphs_run_there_with_futures_in_them(client):
    x = da.arange(10, chunks=3)
    with dask.config.set(scheduler=client.get):
        assert (x + 1).sum().compute() == 55
        assert "processes" in client.last_run.where
        five = client.submit(int, "5")
        assert delayed(operator.add)(five, 1).compute() == 6
        y = (x + 1).persist()
        assert y.sum().compute() == 55
    assert client.compute(delayed(os.getpid)()).result() != os.getpid()


def test_tasks_compute_and_submit_where_they_are(client):
    def nested(n):
        inner = wukong.get_client()
        below = inner.submit(operator.add, n, delayed(int)(1).compute())
        with wukong.Client() as own:
            return below.result(), own.submit(os.getpid).result() == os.getpid()

    assert client.submit(nested, 4).result() == (5, True)


def test_retried_tasks_of_graphs(client, tmp_path):
    def flaky(path, left=2):
        count = int(path.read_text()) if path.exists() else 0
        path.write_text(str(count + 1))
        if count < left:
            raise OSError("not yet")
        return count

    with dask.config.set(scheduler=client.get), dask.annotate(retries=2):
        assert delayed(functools.partial(flaky, tmp_path / "a"))().compute() == 2
    assert client.compute(delayed(flaky)(tmp_path / "b"), retries=2).result() == 2


def test_a_closed_client_says_what_became_of_large_values():
    client = wukong.Client(workers=1, granules="processes", set_as_default=False)
    small, large = client.submit(int, "3"), client.submit(np.ones, 100_000)
    taken = client.submit(np.ones, 100_000)
    assert taken.result().sum() == 100_000
    wukong.wait([small, large])
    running = client.submit(time.sleep, 60)
    client.close()
    assert running.cancelled()
    assert small.result() == 3
    assert taken.result().sum() == 100_000
    with pytest.raises(ClientClosed, match="before closing"):
        large.result()


def test_memory_limits_are_checked():
    with pytest.raises(ConfigError, match="memory_limit='lots'"):
        wukong.Client(memory_limit="lots")
