"""The client as an executor of the standard library, held against what the standard library says of one."""

import asyncio
import concurrent.futures as cf
import threading

import pytest

import wukong

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def executor(client):
    with client.executor() as executor:
        yield executor


@pytest.fixture
def gate(executor):
    """Both workers are held until it is set."""
    opened, begun = threading.Event(), threading.Barrier(3)

    def hold():
        begun.wait(20)
        return opened.wait(20)

    opened.futures = [executor.submit(hold) for _ in range(2)]
    begun.wait(20)
    yield opened
    opened.set()


def fail(error):
    raise error


def test_it_is_one_and_gives_futures_of_the_standard_library(executor):
    assert isinstance(executor, cf.Executor)
    future = executor.submit(pow, 2, exp=5)
    assert isinstance(future, cf.Future)
    assert future.result() == 32
    assert future.done()
    assert not future.running()
    assert not future.cancelled()


def test_it_maps_in_order_with_time_outs_and_errors(executor, gate):
    results = executor.map(int, "123", timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    gate.set()
    assert list(executor.map(pow, range(5), [2] * 5)) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="abc"):
        list(executor.map(int, ["1", "abc"]))


def test_states_callbacks_and_cancellation_are_those_of_the_standard_library(executor, gate):
    waiting, other, called = executor.submit(int), executor.submit(int, "5"), []
    waiting.add_done_callback(called.append)
    assert gate.futures[0].running()
    assert not gate.futures[0].cancel()
    assert not waiting.running()
    assert waiting.cancel()
    assert waiting.cancel()
    assert waiting.cancelled()
    assert called == [waiting]
    with pytest.raises(cf.CancelledError):
        waiting.result()
    with pytest.raises(TimeoutError):
        other.result(timeout=0.01)
    gate.set()
    assert other.result(20) == 5
    assert not other.cancel()
    bad = executor.submit(fail, OSError("mine"))
    assert isinstance(bad.exception(20), OSError)
    done, not_done = cf.wait([waiting, other, bad, *gate.futures], 20)
    assert len(done) == 5
    assert not not_done


def test_waiting_and_completing_in_the_ways_of_the_standard_library(executor):
    futures = [executor.submit(int, str(n)) for n in range(20)]
    assert sorted(f.result() for f in cf.as_completed(futures, 20)) == list(range(20))
    bad, good = executor.submit(fail, OSError()), executor.submit(int)
    assert cf.wait([bad, good], 20, return_when=cf.FIRST_EXCEPTION).done
    assert cf.wait([bad, good], 20, return_when=cf.FIRST_COMPLETED).done


def test_asyncio_runs_in_it(executor):
    async def main():
        loop = asyncio.get_running_loop()
        one, two = loop.run_in_executor(executor, int, "1"), loop.run_in_executor(executor, int, "2")
        wrapped = asyncio.wrap_future(executor.submit(int, "3"))
        return await asyncio.gather(one, two, wrapped)

    assert asyncio.run(main()) == [1, 2, 3]


def test_after_shutdown_it_takes_nothing_and_what_was_there_is_done(client):
    executor, opened = client.executor(), threading.Event()
    futures = [executor.submit(opened.wait, 20) for _ in range(4)]
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)
    opened.set()
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert client.submit(int).result() == 0


def test_shutdown_may_cancel_what_has_not_begun(client):
    executor, opened, begun = client.executor(), threading.Event(), threading.Barrier(3)

    def hold():
        begun.wait(20)
        return opened.wait(20)

    holding = [executor.submit(hold) for _ in range(2)]
    begun.wait(20)
    waiting = [executor.submit(int) for _ in range(10)]
    executor.shutdown(wait=False, cancel_futures=True)
    opened.set()
    assert all(future.cancelled() for future in waiting)
    assert cf.wait(waiting, 20).done == set(waiting)
    assert [future.result(20) for future in holding] == [True, True]


def test_tasks_may_wait_for_tasks_deeper_than_there_are_workers(executor):
    def deep(n):
        return 0 if n == 0 else 1 + executor.submit(deep, n - 1).result()

    assert executor.submit(deep, 60).result(30) == 60


def test_a_client_that_is_closed_cancels_them():
    client = wukong.Client(workers=1)
    executor, opened, begun = client.executor(), threading.Event(), threading.Event()

    def hold():
        begun.set()
        return opened.wait(20)

    running, waiting = executor.submit(hold), executor.submit(int)
    assert begun.wait(20)
    client.close()
    opened.set()
    assert waiting.cancelled()
    with pytest.raises(cf.CancelledError):
        running.result(20)
