"""What people hold of a call, and waiting for several."""

import asyncio
import dataclasses
import gc
import pickle
import signal
import threading
import time
import traceback
import weakref

import pytest

import wukong
from wukong.errors import CannotTravel
from wukong.futures import Future, FutureCancelled, as_completed, wait

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def client():
    with wukong.Client(workers=2) as client:
        yield client


@pytest.fixture
def gate(client):
    """Two calls that hold both workers until it is set."""
    opened = threading.Event()
    begun = threading.Barrier(3)

    def hold():
        begun.wait(20)
        assert opened.wait(20)
        return "held"

    opened.futures = [client.submit(hold, priority=100) for _ in range(2)]
    begun.wait(20)
    yield opened
    opened.set()


def fail(error):
    raise error


def test_a_future_says_how_far_it_is(client, gate):
    future = client.submit(int, "3", key="three")
    assert (future.status, future.done(), future.cancelled()) == ("pending", False, False)
    assert repr(future) == "<Future: pending, key: three>"
    gate.set()
    assert future.result() == 3
    assert (future.status, future.done(), future.exception(), future.traceback()) == ("finished", True, None, None)
    assert repr(future) == "<Future: finished, type: int, key: three>"
    assert "finished" in future._repr_html_()


def test_a_result_is_the_same_object_every_time(client):
    future = client.submit(dict)
    assert future.result() is future.result()


def test_a_failure_is_raised_with_its_own_type_its_traceback_and_a_note(client):
    future = client.submit(fail, ZeroDivisionError("of mine"), key="broken")
    with pytest.raises(ZeroDivisionError, match="of mine") as raised:
        future.result()
    assert raised.value.__notes__ == ["wukong: call 'broken' failed"]
    assert future.status == "error"
    names = []
    trace = future.traceback()
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names[-1] == "fail"
    assert "ZeroDivisionError: of mine" in repr(future)


def test_raising_an_error_many_times_does_not_let_its_traceback_grow(client):
    future = client.submit(fail, ValueError("again"))
    lengths = set()
    for _ in range(10):
        with pytest.raises(ValueError, match="again") as raised:
            future.result()
        lengths.add(len(traceback.extract_tb(raised.value.__traceback__)))
    assert len(lengths) == 1


def test_a_time_out_names_what_was_waited_for(client, gate):
    future = client.submit(int, key="late")
    with pytest.raises(TimeoutError, match=r"the future 'late' was not done after 0.01 s"):
        future.result(timeout=0.01)
    with pytest.raises(TimeoutError, match=r"'late' and 1 more of 2"):
        wait([future, client.submit(int)], timeout=0.01)
    gate.set()
    assert future.result(timeout=20) == 0


def test_cancelled_futures_raise_and_those_that_need_them_too(client, gate):
    future = client.submit(int, key="unwanted")
    reader = client.submit(str, future)
    assert future.cancel()
    assert future.cancelled()
    assert reader.cancelled()
    for one in (future, reader):
        with pytest.raises(FutureCancelled, match="'unwanted' was cancelled"):
            one.result()
    running = gate.futures[0]
    assert not running.cancel()
    assert running.status == "cancelled"
    gate.set()
    assert not gate.futures[1].cancelled()
    assert gate.futures[1].result() == "held"
    assert not gate.futures[1].cancel()
    assert gate.futures[1].result() == "held"


def test_a_future_inside_of_an_object_is_refused_where_it_would_be_packed(client):
    with pytest.raises(CannotTravel, match="give it as an argument"):
        pickle.dumps(client.submit(int))


def test_callbacks_are_called_with_the_future_before_or_after_it_is_done(client, gate):
    called = []
    future = client.submit(int)
    future.add_done_callback(lambda f: called.append((f.key, f.result())))
    gate.set()
    future.result()
    future.add_done_callback(lambda _: called.append("at once"))
    assert "at once" in called
    deadline = time.monotonic() + 20
    while len(called) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert (future.key, 0) in called


def test_waiting_for_the_first_for_the_first_failure_and_for_all(client, gate):
    late, quick = client.submit(int), gate.futures[0]
    gate.set()
    done, not_done = wait([late, quick])
    assert (done, not_done) == ({late, quick}, set())
    stop = threading.Event()
    try:
        slow, bad = client.submit(stop.wait, 20), client.submit(fail, OSError())
        assert wait([slow, bad], return_when="FIRST_EXCEPTION").not_done == {slow}
        good = client.submit(int)
        assert wait([slow, good], return_when="FIRST_COMPLETED").done == {good}
    finally:
        stop.set()
    assert wait(slow).done == {slow}
    assert wait([]) == (set(), set())
    with pytest.raises(ValueError, match="FIRST_COMPLETED"):
        wait([], return_when="SOON")


def test_as_completed_yields_what_is_done_first(client):
    order = [threading.Event() for _ in range(2)]

    def task(n):
        assert order[n].wait(20)
        return n

    futures = client.map(task, range(2))
    found = as_completed(futures)
    assert found.count() == 2
    assert not found.has_ready()
    order[1].set()
    assert next(found) == futures[1]
    order[0].set()
    assert next(found) == futures[0]
    assert found.is_empty()
    with pytest.raises(StopIteration):
        next(found)


def test_as_completed_takes_more_while_it_runs(client):
    found = as_completed([client.submit(int, 3)], with_results=True)
    results = []
    for _, value in found:
        results.append(value)
        if value:
            found.add(client.submit(int, value - 1))
    assert results == [3, 2, 1, 0]


def test_as_completed_yields_a_future_as_often_as_it_was_given(client):
    future = client.submit(int)
    assert list(as_completed([future, future])) == [future, future]


def test_as_completed_in_batches(client):
    futures = client.map(int, range(50))
    batches = list(as_completed(futures).batches())
    assert all(batches)
    assert sorted(f.key for batch in batches for f in batch) == sorted(f.key for f in futures)
    assert as_completed([]).next_batch(block=False) == []


def test_as_completed_raises_or_gives_the_error(client):
    with pytest.raises(OSError, match="mine"):
        list(as_completed([client.submit(fail, OSError("mine"))], with_results=True))
    ((_, error),) = as_completed([client.submit(fail, OSError("mine"))], with_results=True, raise_errors=False)
    assert type(error) is OSError


@pytest.mark.usefixtures("gate")
def test_as_completed_raises_when_time_is_up(client):
    future = client.submit(int, key="late")
    with pytest.raises(TimeoutError, match="'late'"):
        list(as_completed([future], timeout=0.01))


def test_futures_are_awaited_in_any_loop(client):
    async def main():
        first = client.submit(int, "1")
        assert await first == 1
        assert await first == 1
        values = await asyncio.gather(*client.map(int, range(20)))
        with pytest.raises(OSError, match="mine"):
            await client.submit(fail, OSError("mine"))
        seen = [f async for f in as_completed(client.map(int, range(10)))]
        pairs = [pair[1] async for pair in as_completed(client.map(int, range(3)), with_results=True)]
        return values, len(seen), sorted(pairs)

    assert asyncio.run(main()) == (list(range(20)), 10, [0, 1, 2])


def test_awaiting_does_not_hold_up_the_loop(client, gate):
    async def main():
        future = client.submit(int)
        waiting = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        assert not waiting.done()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_await(future), 0.01)
        with pytest.raises(TimeoutError, match="was not done"):
            async for _ in as_completed([future], timeout=0.01):
                pass
        gate.set()
        return await waiting

    async def _await(future):
        return await future

    assert asyncio.run(main()) == 0


def test_where_a_loop_runs_in_the_thread_tasks_do_not_run_in_it(client):
    async def main():
        # In a notebook a loop runs around every cell, and a task may want one of its own.
        return [client.submit(lambda: asyncio.run(one())).result() for _ in range(20)]

    async def one():
        return 1

    assert asyncio.run(main()) == [1] * 20


def test_a_value_is_freed_with_its_last_future(client):
    class Value:
        pass

    future = client.submit(Value)
    value = weakref.ref(future.result())
    assert isinstance(value(), Value)
    del future
    client.submit(int).result()
    deadline = time.monotonic() + 20
    while value() is not None:
        assert time.monotonic() < deadline
        gc.collect()
        time.sleep(0.001)


def test_a_call_runs_though_nobody_has_its_future(client):
    ran = threading.Event()
    client.submit(ran.set)
    assert ran.wait(20)


def test_a_future_is_what_dask_takes_for_one(client):
    from dask.delayed import delayed

    future = client.submit(int, "5")
    assert isinstance(future, Future)
    assert delayed(sum)([future, 1]).compute() == 6


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    number: int


def test_errors_that_let_nothing_be_set_come_out_as_themselves(client):
    bad = client.submit(fail, FrozenError(3))
    read = client.submit(str, bad)
    for future in (bad, read, client.map(fail, [FrozenError(3)])[0]):
        with pytest.raises(FrozenError):
            future.result(20)


@pytest.mark.parametrize("how", ["result", "wait", "gather", "skip"])
def test_ctrl_c_comes_out_of_the_waiting_thread_that_runs_a_call_itself(client, monkeypatch, how):
    monkeypatch.setattr(client._engine.threads, "_summon", lambda: None)  # no other thread comes for it
    began = threading.Event()

    def forever():
        began.set()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.001)

    def interrupt():
        if began.wait(20):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    first, second = client.submit(forever), client.submit(int)
    waits = {
        "result": first.result,
        "wait": lambda: wait([first, second]),
        "gather": lambda: client.submit(client.gather, [first, second]).result(),
        "skip": lambda: client.gather([second, first], errors="skip"),
    }
    shooter = threading.Thread(target=interrupt)
    shooter.start()
    with pytest.raises(KeyboardInterrupt):
        waits[how]()
    shooter.join(20)
    assert isinstance(first.exception(), KeyboardInterrupt)
    assert client._engine.threads.working == 0
    monkeypatch.undo()
    assert client.submit(int).result(20) == 0
