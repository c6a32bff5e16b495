"""The client: graphs and calls in the background."""

import asyncio
import gc
import operator
import os
import threading
import time
import weakref
from typing import NamedTuple

import dask
import dask.array as da
import dask.bag as db
import pytest
from dask import delayed

import wukong
from wukong.errors import ClientClosed, ConfigError
from wukong.futures import Future, FutureCancelled

pytestmark = pytest.mark.timeout(60)


class Pair(NamedTuple):
    one: object
    other: object


def inc(x):
    return x + 1


def fail(error):
    raise error


# --- graphs -----------------------------------------------------------------------------------------------------------


def test_dask_computes_with_an_open_client_and_no_longer_with_a_closed_one():
    with wukong.Client(workers=2) as client:
        before = client.last_run
        assert delayed(inc)(1).compute() == 2
        assert client.last_run is not before
        assert dask.config.get("scheduler") == client.get
    assert dask.config.get("scheduler", None) is None
    assert delayed(inc)(1).compute() == 2


def test_the_functions_of_the_package_compute_with_the_current_client(client):
    assert wukong.compute(delayed(operator.add)(client.submit(int, "2"), 3)) == (5,)
    assert wukong.compute(delayed(operator.add)(client.submit(int, "2"), 3), granules="inline") == (5,)
    (kept,) = wukong.persist(delayed(inc)(1))
    assert wukong.compute(delayed(inc)(kept)) == (3,)


def test_clients_may_be_nested_and_closed_in_any_order():
    with dask.config.set({"dataframe.shuffle.method": "disk"}):
        one = wukong.Client(workers=1)
        two = wukong.Client(workers=1, granules="threads")
        assert wukong.get_client() is two
        assert dask.config.get("dataframe.shuffle.method") == "disk"
        three = wukong.Client(workers=1, set_as_default=False)
        assert wukong.get_client() is two
        two.close()
        assert wukong.get_client() is one
        assert dask.config.get("dataframe.shuffle.method") == "tasks"
        one.close()
        three.close()
        assert dask.config.get("dataframe.shuffle.method") == "disk"
    with pytest.raises(ConfigError, match=r"wukong\.Client\(\)"):
        wukong.get_client()


def test_options_are_checked_before_anything_is_started():
    threads = threading.active_count()
    with pytest.raises(ConfigError, match="granules='fibres'"):
        wukong.Client(granules="fibres")
    with pytest.raises(ConfigError, match="workers=0"):
        wukong.Client(workers=0)
    with pytest.raises(ConfigError, match="store"):
        wukong.Client(store="mysql://x")
    assert threading.active_count() <= threads
    assert dask.config.get("scheduler", None) is None


def test_compute_gives_futures_in_the_shape_of_what_it_was_given(client):
    x = da.arange(10, chunks=3)
    future = client.compute(x.sum())
    assert isinstance(future, Future)
    assert future.result() == 45
    both = client.compute([x.min(), 5, {"k": x.max(), "list": [x.sum()]}])
    assert type(both) is list
    assert both[1] == 5
    assert client.gather(both) == [0, 5, {"k": 9, "list": [45]}]
    named = client.compute({"a": x.min(), "b": x.max()})
    assert {key: future.result() for key, future in named.items()} == {"a": 0, "b": 9}
    assert client.compute((x.min(), 1), sync=True) == (0, 1)
    assert (client.compute(x) is x, list(client.compute(x, sync=True))) == (False, list(range(10)))
    assert client.compute([1, 2]) == [1, 2]


def test_compute_raises_what_a_task_raises_with_its_key(client):
    future = client.compute(delayed(fail)(OSError("mine"), dask_key_name="bad"))
    with pytest.raises(OSError, match="mine") as raised:
        future.result()
    assert "wukong: task 'bad' failed" in raised.value.__notes__[0]


def test_persisted_collections_compute_once_in_the_background(client):
    calls = []
    opened = threading.Event()

    def count(block):
        assert opened.wait(20)
        calls.append(1)
        return block

    x = da.ones(10, chunks=5).map_blocks(count, dtype=float, meta=da.ones(1)._meta)
    begun = time.monotonic()
    y = x.persist()
    assert not calls, f"persist waited for {time.monotonic() - begun} s"
    opened.set()
    assert (y + 1).sum().compute() == 20
    assert y.sum().compute() == 10
    assert len(calls) == 2
    assert type(y) is type(x)
    frame, bag = dask.persist(da.zeros(3, chunks=1), db.range(5, npartitions=2))
    assert (frame.sum().compute(), bag.sum().compute()) == (0, 10)
    assert client.persist([delayed(inc)(1)])[0].compute() == 2


def test_persisted_collections_are_waited_for_and_cancelled_like_futures(client):
    dd, pd = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    x, one = da.ones(4, chunks=2).persist(), client.submit(int)
    assert wukong.wait([x, {"k": one}]).done == {*wukong.futures_of(x), one}
    assert len(wukong.wait(dd.from_pandas(pd.DataFrame({"a": [1, 2]}), npartitions=2).persist()).done) == 2
    assert wukong.wait({"k": one}.values()).done == wukong.wait(iter([one])).done == {one}
    opened = threading.Event()
    try:
        held = da.ones(4, chunks=2).map_blocks(lambda block: opened.wait(20) and block, meta=x._meta).persist()
        client.cancel(held)
        assert all(future.cancelled() for future in wukong.futures_of(held + 1))
    finally:
        opened.set()
    for use in (client.cancel, wukong.wait):
        with pytest.raises(TypeError, match="futures are wanted here"):
            use("text")


def test_a_graph_may_be_given_options_of_its_own(client):
    here = delayed(threading.get_ident)
    for granules in ("threads", "inline"):
        assert client.compute(here(), granules=granules, scheduling="of others").result()
        assert ("threads" in client.last_run.where) == (granules == "threads")
    for use in (client.compute, client.persist):
        with pytest.raises(ConfigError, match="granules='fibres'"):
            use(here(), granules="fibres")
        with pytest.raises(ConfigError, match="did you mean 'granules'"):
            use(here(), granule="threads")


def test_dataframes_are_persisted_and_shuffled_by_tasks(client):
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(pd.DataFrame({"key": [1, 2] * 10, "value": range(20)}), npartitions=4)
    kept = frame.persist()
    assert kept.groupby("key").value.sum().compute().to_dict() == {1: 90, 2: 100}
    assert len(kept.shuffle("key").compute()) == 20
    assert client.compute(frame.value.sum()).result() == 190


def test_futures_stand_for_their_values_in_collections_and_graphs(client):
    five = client.submit(int, "5")
    assert delayed(operator.add)(five, 1).compute() == 6
    assert delayed(sum)([five, delayed(inc)(five)]).compute() == 11
    assert client.compute(delayed(inc)(five)).result() == 6
    assert client.get({"x": (inc, "y"), "y": five}, "x") == 6
    assert client.get({"x": (inc, five.key)}, "x") == 6
    assert client.get({"x": five}, ["x"]) == (5,)
    x = client.compute(da.ones(4, chunks=2))
    assert delayed(list)(x).compute() == [1, 1, 1, 1]
    bad = client.submit(fail, OSError("mine"))
    with pytest.raises(OSError, match="mine"):
        delayed(inc)(bad).compute()
    with pytest.raises(OSError, match="mine"):
        client.compute(delayed(inc)(bad)).result()


def test_computing_inside_of_tasks_at_any_depth_ends(client):
    def fib(n):
        if n < 2:
            return n
        inner = wukong.get_client()
        below = inner.submit(fib, n - 1)
        return below.result() + delayed(fib)(n - 2).compute() + sum(inner.gather(inner.map(int, "00")))

    assert client.submit(fib, 9).result() == 34
    assert client.compute(delayed(fib)(7)).result() == 13


def test_many_threads_may_use_one_client(client):
    def use(n, found):
        futures = client.map(operator.add, range(n, n + 20), [1] * 20)
        x = da.arange(n + 1, chunks=3).sum().compute()
        found.append((n, client.gather(futures) == list(range(n + 1, n + 21)), x == n * (n + 1) // 2))

    found = []
    threads = [threading.Thread(target=use, args=(n, found)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == [(n, True, True) for n in range(12)]


def test_annotated_retries_of_delayed_functions_are_honoured(client):
    left = [2]

    def flaky(x):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("not yet")
        return x

    with dask.annotate(retries=2):
        x = delayed(flaky)(7)
    assert delayed(inc)(x).compute() == 8
    left[0] = 2
    with pytest.raises(OSError, match="not yet"):
        delayed(flaky)(7).compute()
    left[0] = 2
    assert client.compute(delayed(inc)(delayed(flaky)(7)), retries=2).result() == 8


def test_what_failed_is_run_again_here(client):
    ran_in = []

    def bad(x):
        ran_in.append((threading.get_ident(), x))
        raise ArithmeticError(x)

    future = client.submit(str, client.submit(bad, client.submit(int, "7")))
    assert type(future.exception()) is ArithmeticError
    with pytest.raises(ArithmeticError):
        client.recreate_error_locally(future)
    assert ran_in[-1] == (threading.get_ident(), 7)
    made = []
    source = delayed(lambda: made.append("source") or 3)()
    other = delayed(lambda: made.append("other"))()
    future = client.compute(delayed(str)([other, delayed(bad)(delayed(inc)(source))]))
    assert type(future.exception()) is ArithmeticError
    made.clear()
    with pytest.raises(ArithmeticError):
        client.recreate_error_locally(future)
    assert ran_in[-1] == (threading.get_ident(), 4)
    # Only what it needs is computed for it.
    assert made == ["source"]
    with pytest.raises(ConfigError, match="finished"):
        client.recreate_error_locally(client.submit(int))


# --- calls ------------------------------------------------------------------------------------------------------------


def test_submitted_calls_take_futures_anywhere_in_their_arguments(client):
    one, two = client.submit(int, "1"), client.submit(int, "2")
    assert client.submit(operator.add, one, two).result() == 3
    found = client.submit(lambda *args, **kwargs: (args, kwargs), [one, (two, {one})], k={"x": [two]}).result()
    assert found == (([1, (2, {1})],), {"k": {"x": [2]}})


def test_futures_of_another_client_may_be_given_while_they_run(client):
    opened = threading.Event()
    with wukong.Client(workers=1, set_as_default=False) as other:
        try:
            late, lost, gone = other.submit(opened.wait, 20), other.submit(fail, OSError("mine")), other.submit(int)
            number, sad, cancelled = client.submit(int, late), client.submit(int, lost), client.submit(int, gone)
            other.cancel(gone)
        finally:
            opened.set()
        assert number.result(20) == 1
        assert type(sad.exception(20)) is OSError
        assert cancelled.cancelled()
        never = client.submit(int, other.submit(threading.Event().wait, 0.2))
    with pytest.raises(FutureCancelled):
        never.result(20)


def test_futures_of_several_clients_are_waited_for_together(client):
    opened = threading.Event()
    with wukong.Client(workers=1, set_as_default=False) as other:
        futures = [client.submit(opened.wait, 20), other.submit(opened.wait, 20), other.submit(int)]
        with other._engine.lock:  # guards what is waited for there
            waiting = threading.Thread(target=client.gather, args=(futures,))
            waiting.start()
            assert not any(future.call.callbacks for future in futures[1:])
        opened.set()
        waiting.join(20)
        assert not waiting.is_alive()
        assert len(wukong.wait(futures).done) == len(list(wukong.as_completed(futures))) == 3


def test_priorities_and_retries_are_numbers(client):
    for use in (
        client.submit,
        lambda *_, **how: client.map(int, [1], **how),
        lambda *_, **how: client.compute(delayed(int)(), **how),
    ):
        with pytest.raises(ConfigError, match="retries='2' is not allowed; use a whole number"):
            use(int, retries="2")
        with pytest.raises(ConfigError, match="priority='high'"):
            use(int, priority="high")


def test_map_takes_several_iterables_futures_and_keywords(client):
    assert client.gather(client.map(operator.add, [1, 2, 3], [10, 20])) == [11, 22]
    futures = client.map(lambda x, y, base: x + y + base, client.map(int, "12"), [5, 6], base=100)
    assert client.gather(futures) == [106, 108]
    assert [f.key for f in client.map(int, "12", key=["a", "b"])] == ["a", "b"]
    assert [f.key for f in client.map(int, "12", key="n")] == ["n-0", "n-1"]
    assert client.map(int, []) == []
    with pytest.raises(ConfigError, match="2 calls, but 1 keys"):
        client.map(int, "12", key=["a"])


def test_calls_of_a_batch_run_as_one_and_fail_alone(client):
    threads = []

    def work(x, y=0):
        threads.append(threading.get_ident())
        if x == 3:
            raise OSError("three")
        return x + y

    futures = client.map(work, [client.submit(int, 1), 2, 3, 4, 5], y=10, batch_size=4)
    assert client.gather(futures, errors="skip") == [11, 12, 14, 15]
    with pytest.raises(OSError, match="three"):
        futures[2].result()
    with pytest.raises(ConfigError, match="batch"):
        client.recreate_error_locally(futures[2])


def test_calls_of_one_key_are_one_call_while_somebody_holds_it(client):
    ran = []
    first = client.submit(ran.append, 1, key="once")
    second = client.submit(ran.append, 2, key="once")
    wukong.wait([first, second])
    assert ran == [1]
    pure = [client.submit(operator.add, 1, 2, pure=True) for _ in range(2)]
    assert pure[0].key == pure[1].key
    assert client.submit(operator.add, 1, 3, pure=True).key != pure[0].key
    assert client.submit(operator.add, 1, 2).key != client.submit(operator.add, 1, 2).key


def test_gather_raises_at_the_first_failure_or_leaves_it_out(client):
    stop = threading.Event()
    try:
        slow, bad, good = client.submit(stop.wait, 20), client.submit(fail, OSError("mine")), client.submit(int)
        with pytest.raises(OSError, match="mine"):
            client.gather([slow, bad, good])
    finally:
        stop.set()
    assert client.gather([bad, good, [bad], {"a": bad, "b": (good, 7)}], errors="skip") == [0, [], {"b": (0, 7)}]
    assert client.gather(5) == 5
    pair = Pair(good, [good])
    assert client.gather(pair) == Pair(0, [0])
    assert client.gather(Pair(bad, 1), errors="skip") == (1,)
    assert client.gather(future for future in pair[:1]) == [0]
    with pytest.raises(ConfigError, match="skip"):
        client.gather([], errors="ignore")


def test_scattered_values_are_futures_that_are_done(client):
    data = [1, 2]
    future = client.scatter({"a": 1})["a"]
    assert (future.key, future.status, future.result()) == ("a", "finished", 1)
    assert client.gather(client.scatter(data)) == data
    assert client.submit(sum, client.scatter((1, 2, 3), broadcast=True)).result() == 6
    assert client.scatter("text", hash=True).key == client.scatter("text", hash=True).key


def test_cancelling_ends_what_has_not_begun(client):
    opened = threading.Event()
    begun = threading.Barrier(3)

    def hold():
        begun.wait(20)
        return opened.wait(20)

    try:
        holding = [client.submit(hold) for _ in range(2)]
        begun.wait(20)
        ran = []
        waiting = client.map(ran.append, range(10))
        reader = client.submit(len, waiting)
        job = client.compute(delayed(ran.append)(delayed(int)(waiting[0])))
        client.cancel([waiting, {"k": job}])
        assert all(future.cancelled() for future in [*waiting, reader, job])
    finally:
        opened.set()
    assert client.gather(holding) == [True, True]
    assert ran == []
    with pytest.raises(FutureCancelled):
        reader.result()


def test_retries_run_a_call_again(client):
    left = [2]

    def flaky():
        left[0] -= 1
        if left[0] >= 0:
            raise OSError
        return "through"

    assert client.submit(flaky, retries=2).result() == "through"
    left[0] = 1
    assert client.gather(client.map(lambda _: flaky(), [1], retries=1, batch_size=5)) == ["through"]


def test_a_job_of_many_long_tasks_does_not_starve_a_later_small_one(client):
    stop = threading.Event()
    many = client.map(lambda _: stop.wait(0.005), range(1000))
    job = client.compute([delayed(stop.wait)(0.005) for _ in range(1000)])
    assert client.submit(int, "1").result(20) == 1
    assert client.compute(delayed(inc)(1)).result(20) == 2
    undone = sum(not future.done() for future in many)
    stop.set()
    wukong.wait([*many, *job])
    assert undone > 800


# --- the client itself ------------------------------------------------------------------------------------------------


def test_a_closed_client_says_so():
    client = wukong.Client(workers=1)
    kept = client.submit(int, "3")
    assert kept.result() == 3
    pending = client.submit(threading.Event().wait, 0.2)
    client.close()
    client.close()
    assert "closed" in repr(client)
    assert pending.cancelled()
    assert kept.result() == 3
    for use in (lambda: client.submit(int), lambda: client.compute(delayed(inc)(1)), lambda: client.get({"x": 1}, "x")):
        with pytest.raises(ClientClosed, match="closed; make a new one"):
            use()


def test_a_client_that_nobody_has_any_more_closes_itself():
    client = wukong.Client(workers=1, set_as_default=False)
    client.submit(int).result()
    engine, gone = client._engine, weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    deadline = time.monotonic() + 20
    while not engine.closed:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_client_whose_name_is_given_to_another_closes_itself():
    client = wukong.Client(workers=1)
    first = client._engine
    client = wukong.Client(workers=1)
    gc.collect()
    deadline = time.monotonic() + 20
    while not first.closed:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert wukong.get_client() is client
    client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_that_the_client_is_not_its_own(client):
    kept, held = client.submit(int, "3"), threading.Event()
    assert kept.result() == 3
    pending = client.submit(held.wait, 20)
    reading, writing = os.pipe()
    with _quiet_fork():
        pid = os.fork()
    if not pid:
        said = []
        for use in (lambda: client.submit(int), lambda: delayed(inc)(1).compute(), pending.result):
            try:
                use()
            except ClientClosed as error:
                said.append("forked" in str(error))
            except BaseException as error:
                said.append(repr(error))
        with wukong.Client(workers=1) as own:
            said.append(own.submit(kept.result).result())
        os.write(writing, repr(said).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        assert answer.read() == "[True, True, True, 3]"
    os.waitpid(pid, 0)
    held.set()
    assert pending.result()


def _quiet_fork():
    import warnings

    quiet = warnings.catch_warnings()
    quiet.__enter__()
    warnings.simplefilter("ignore", DeprecationWarning)

    class Quiet:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            quiet.__exit__(None, None, None)

    return Quiet()


def test_a_client_does_not_travel(client):
    import pickle

    with pytest.raises(TypeError, match="get_client"):
        pickle.dumps(client)


def test_it_shows_what_it_is(client):
    assert repr(client).startswith("<Client: local, 2 workers, granules: auto; ")
    assert "2 workers" in client._repr_html_()


def test_after_async_with_what_waits_is_awaited():
    async def main():
        async with wukong.Client(workers=2) as client:
            assert client.asynchronous
            values = await client.gather(client.map(int, range(5)))
            with pytest.raises(OSError, match="mine"):
                await client.gather([client.submit(fail, OSError("mine"))])
            skipped = await client.gather([client.submit(fail, OSError()), client.submit(int)], errors="skip")
            job = await client.compute(delayed(inc)(1))
            return values, skipped, job, client

    values, skipped, job, client = asyncio.run(main())
    assert (values, skipped, job) == ([0, 1, 2, 3, 4], [0], 2)
    assert client.closed


def test_in_a_notebook_whose_loop_runs_everything_blocks_as_elsewhere(client):
    async def cell():
        assert client.gather(client.map(int, range(5))) == [0, 1, 2, 3, 4]
        assert delayed(inc)(1).compute() == 2
        return await client.gather(client.map(int, range(5)), asynchronous=True)

    assert asyncio.run(cell()) == [0, 1, 2, 3, 4]
