"""Ending what runs: by cancel, by closing the client, by Ctrl-C, by a spent budget; and what is left of it: nothing."""

import gc
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import dask
import pytest
from dask import delayed

import wukong
from tests.drivers import idle
from wukong.errors import AttachUnsupported, BudgetSpent, ClientClosed, JobCancelled
from wukong.futures import FutureCancelled
from wukong.scheduler import launch as launch_

EVERYWHERE = [("threads", None), ("inline", None), ("auto", None), ("processes", None), ("processes", "embedded")]


@pytest.fixture(params=EVERYWHERE, ids=lambda where: "-".join(filter(None, where)))
def client(request):
    granules, store = request.param
    with wukong.Client(workers=2, granules=granules, store=store) as client:
        yield client


def until(true):
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def note(directory, number, *inputs):
    """Leave word of having begun, and last a while."""
    (Path(directory) / str(number)).touch()
    until((Path(directory) / "open").exists)
    return number + sum(inputs)


def slowly(*inputs):
    time.sleep(0.0005)
    return 1 + sum(inputs)


def names(directory):
    """The tasks that have begun."""
    return {path.name for path in directory.iterdir()} - {"open"}


def begun(directory):
    return len(list(directory.iterdir())) - (directory / "open").exists()


def nothing_is_left():
    until(idle)


def test_a_cancelled_graph_begins_nothing_more_and_says_what_runs(client, tmp_path):
    futures = client.compute([delayed(note)(tmp_path, number) for number in range(20)])
    until(lambda: begun(tmp_path))
    left = client.cancel(futures[:10])
    assert not futures[10].done()
    left += client.cancel(futures[10:])
    assert left
    assert {one.where.split()[0] for one in left} <= {"thread", "worker"}
    assert {one.key for one in left} <= {future.key for future in futures}
    assert all(future.cancelled() for future in futures)
    at_work = begun(tmp_path)
    assert at_work <= 4
    (tmp_path / "open").touch()
    nothing_is_left()
    # Who works for a new job is through with the old one.
    assert client.gather(client.compute([delayed(abs)(-n) for n in range(10)])) == list(range(10))
    assert begun(tmp_path) == at_work


def test_what_only_cancelled_futures_need_does_not_begin_and_the_others_go_on(client, tmp_path):
    shared = delayed(note)(tmp_path, 1)
    alone = [delayed(note)(tmp_path, number, shared) for number in range(10, 20)]
    gone = [delayed(note)(tmp_path, 100 + n, part) for n, part in enumerate(alone[1:])]
    kept, *futures = client.compute([alone[0], *gone])
    until(lambda: begun(tmp_path))
    assert client.cancel(futures[:4]) == []
    assert client.cancel(futures[4:]) == []
    with pytest.raises(FutureCancelled):
        futures[0].result()
    (tmp_path / "open").touch()
    assert kept.result(30) == 11
    assert names(tmp_path) == {"1", "10"}
    nothing_is_left()


def test_a_task_that_runs_for_a_cancelled_future_is_named_while_others_go_on(client, tmp_path):
    first, *rest = client.compute([delayed(note)(tmp_path, number) for number in range(6)])
    until(lambda: "0" in names(tmp_path))
    (left,) = client.cancel(first)
    assert left.key == first.key
    assert left.where.split()[0] in ("thread", "worker")
    (tmp_path / "open").touch()
    assert client.gather(rest) == [1, 2, 3, 4, 5]


def test_a_task_is_named_that_began_while_its_job_was_still_being_launched(tmp_path, monkeypatch):
    launch, told, cancelled = launch_.Client.launch, threading.Event(), threading.Event()

    def launch_and_wait(self):
        launch(self)
        told.wait(30)
        until(lambda: begun(tmp_path))
        left.extend(client.cancel(futures))
        cancelled.set()

    left, futures = [], []
    monkeypatch.setattr(launch_.Client, "launch", launch_and_wait)
    with wukong.Client(workers=2, granules="threads") as client:
        futures += client.compute([delayed(note)(tmp_path, number) for number in range(6)])
        told.set()
        assert cancelled.wait(30)
        assert left
        assert {one.key for one in left} <= {future.key for future in futures}
        (tmp_path / "open").touch()
        nothing_is_left()


def test_what_is_cancelled_before_its_graph_begins_never_runs(tmp_path):
    with wukong.Client(workers=2, granules="threads") as client:
        first = client.submit(note, tmp_path, 0)
        parts = [delayed(note)(tmp_path, number, first) for number in (1, 2)]
        one, other = client.compute(parts)
        assert client.cancel(one) == []
        (tmp_path / "open").touch()
        assert other.result(30) == 2
    assert names(tmp_path) == {"0", "2"}


def test_a_cancelled_part_is_not_kept_as_a_result(tmp_path):
    with wukong.Client(workers=2, granules="threads") as client, wukong.cache("1MB") as kept:
        parts = [delayed(note, pure=True)(str(tmp_path), number) for number in range(6)]
        futures = client.compute([delayed(sum, pure=True)([part, 1]) for part in parts])
        until(lambda: begun(tmp_path) == 2)
        number = min({0, 1, 2} - set(map(int, names(tmp_path))))
        gone = futures.pop(number)
        assert client.cancel(gone) == []
        (tmp_path / "open").touch()
        assert client.gather(futures) == [n + 1 for n in range(6) if n != number]
        assert len(kept) == 5
        assert gone.key not in kept
        assert dask.compute(delayed(sum, pure=True)([parts[number], 1])) == (number + 1,)


def test_random_graphs_of_which_some_futures_are_cancelled_give_the_rest(client):
    for seed in range(12):
        chance = Random(seed)
        layers = [[delayed(abs)(number) for number in range(4)]]
        for _ in range(4):
            layers.append([delayed(slowly)(*chance.sample(layers[-1], 2)) for _ in range(4)])
        asked = [*layers[-1], *layers[-2], *layers[1]]
        right = dask.compute(*asked, scheduler="sync")
        futures = client.compute(asked)
        gone = chance.sample(range(len(asked)), 8)
        for number in gone:
            if chance.random() < 0.3:
                time.sleep(0.003 * chance.random())
            client.cancel(futures[number])
        for number, future in enumerate(futures):
            if number not in gone:
                assert future.result(30) == right[number]
            else:
                assert future.cancelled() or future.result() == right[number]
    nothing_is_left()


def test_a_closed_client_begins_nothing_more(tmp_path):
    for granules in ("threads", "inline"):
        directory = tmp_path / granules
        directory.mkdir()
        client = wukong.Client(workers=2, granules=granules)
        futures = client.compute([delayed(note)(directory, number) for number in range(20)])
        failed = []

        def wait(client=client, directory=directory, failed=failed):
            try:
                client.get({number: (note, directory, 100 + number) for number in range(20)}, list(range(20)))
            except JobCancelled as cancelled:
                failed.append(cancelled)

        waiting = threading.Thread(target=wait)
        waiting.start()
        until(lambda directory=directory: begun(directory) >= 2)
        client.close()
        (directory / "open").touch()
        waiting.join(30)
        assert [type(error) for error in failed] == [JobCancelled]
        assert "closed" in str(failed[0])
        assert all(future.cancelled() for future in futures)
        nothing_is_left()
        assert begun(directory) <= 6


@pytest.mark.usefixtures("client")
def test_ctrl_c_ends_a_compute_and_all_who_work_on_it(tmp_path):
    def interrupt():
        until(lambda: begun(tmp_path))
        interrupt_main()

    shooter = threading.Thread(target=interrupt)
    shooter.start()
    with pytest.raises(KeyboardInterrupt):
        dask.compute(*[delayed(note)(tmp_path, number) for number in range(40)])
    shooter.join(30)
    (tmp_path / "open").touch()
    nothing_is_left()
    assert dask.compute(delayed(abs)(-1)) == (1,)
    assert begun(tmp_path) < 20


def test_a_compute_inside_of_a_task_ends_with_it(tmp_path):
    inner = []

    def outer():
        try:
            dask.compute(*[delayed(note)(tmp_path, number) for number in range(10)])
        except JobCancelled as error:
            inner.append(error)
            raise

    with wukong.Client(workers=2, granules="threads") as client:
        future = client.compute(delayed(outer)())
        until(lambda: begun(tmp_path))
        client.cancel(future)
        (tmp_path / "open").touch()
        until(lambda: inner)
    nothing_is_left()
    assert begun(tmp_path) <= 4


def test_calls_of_a_batch_that_is_cancelled_do_not_begin(tmp_path):
    with wukong.Client(workers=2, granules="threads") as client:
        futures = client.map(note, [tmp_path] * 10, range(10), batch_size=10)
        until(lambda: begun(tmp_path))
        (one,) = client.cancel(futures)
        assert one.where == "a thread of this process"
        (tmp_path / "open").touch()
        until(lambda: not client._engine.threads.working)
        assert begun(tmp_path) == 1


def test_a_call_that_runs_is_named_with_its_process():
    with wukong.Client(workers=2, granules="processes") as client:
        pid = client.submit(os.getpid)
        assert pid.result(30) > 0
        future = client.submit(time.sleep, 60)
        until(lambda: client.cancel([]) == [] and client._engine.processes.where(future.call) != "a worker process")
        (one,) = client.cancel(future)
        assert one.key == future.key
        assert one.where.startswith("worker process ")
        again = client.submit(time.sleep, 60)
        until(lambda: client._engine.processes.where(again.call) != "a worker process")
        assert client.cancel(again, force=True) == []


def test_a_budget_ends_a_compute_with_figures(client):
    tasks = [delayed(time.sleep)(0.02) for _ in range(200)]
    with pytest.raises(BudgetSpent, match="of its 200 tasks are through") as raised:
        client.compute(tasks, budget=0.3)[0].result(30)
    assert raised.value.spent >= raised.value.budget == 0.3
    assert raised.value.tasks < 100
    with pytest.raises(BudgetSpent):
        wukong.compute(*tasks, budget=0.1)
    nothing_is_left()
    assert wukong.compute(delayed(abs)(-2), budget=10) == (2,)


def test_a_job_is_found_again_by_its_name(tmp_path):
    with wukong.Client(workers=2, granules="threads") as client:
        client.compute([delayed(note)(tmp_path, number) for number in range(6)])
        gc.collect()
        until(lambda: begun(tmp_path))
        (job,) = client.jobs()
        assert (job.tasks, job.store, len(job.keys)) == (6, None, 6)
        futures = client.attach(job.name)
        (tmp_path / "open").touch()
        assert sorted(client.gather(list(futures.values()))) == list(range(6))
        assert client.jobs() == []
        with pytest.raises(AttachUnsupported, match="executors end with the client"):
            client.attach(job.name)
    with pytest.raises(ClientClosed):
        client.attach(job.name)


def inner_graph(directory):
    dask.compute(*[delayed(note)(directory, number) for number in range(10)], store=None)


def inner_graph_over_the_store(directory):
    wukong.compute(*[delayed(note)(directory, number) for number in range(10)], store="embedded", granules="threads")


def inner_calls(directory):
    client = wukong.get_client()
    client.gather([client.submit(note, directory, number) for number in range(10)])


def inner_job(directory):
    wukong.get_client().compute([delayed(note)(directory, number) for number in range(10)])[-1].result()


@pytest.mark.parametrize("inner", [inner_graph, inner_graph_over_the_store, inner_calls, inner_job])
@pytest.mark.parametrize("granules", ["threads", "processes"])
def test_what_a_task_computes_or_submits_ends_with_its_job(granules, inner, tmp_path):
    with wukong.Client(workers=2, granules=granules) as client:
        future = client.compute(delayed(inner)(tmp_path))
        until(lambda: begun(tmp_path))
        client.cancel(future)
        time.sleep(0.1)
        (tmp_path / "open").touch()
        again = client.compute([delayed(os.getpid)() for _ in range(10)])
        wukong.wait(again, 30)
        nothing_is_left()
    assert begun(tmp_path) <= 4


def fails(directory):
    until(lambda: begun(directory) == 2)
    raise ArithmeticError("of a task")


WHERE = [("threads", None), ("processes", None), ("threads", "embedded"), ("processes", "embedded")]


@pytest.mark.parametrize("cause", ["cancel", "ctrl-c", "error", "budget", "close"])
@pytest.mark.parametrize("where", WHERE, ids=lambda where: "-".join(filter(None, where)))
def test_whatever_ends_a_job_is_seen_before_the_next_task_and_it_is_told_what_may_still_run(where, cause, tmp_path):
    granules, store = where
    client = wukong.Client(workers=3, granules=granules, store=store)
    tasks = [delayed(note)(tmp_path, number) for number in range(2)]
    # They begin when one of the first is through, and need nothing but that.
    tasks += [delayed(note)(tmp_path, 10 + number, tasks[number % 2]) for number in range(20)]
    if cause == "error":
        tasks.append(delayed(fails)(tmp_path))
    error = None
    # The workers are there, or the budget may be spent before anything has begun.
    assert client.gather(client.compute([delayed(abs)(-n) for n in range(6)])) == list(range(6))
    try:
        if cause == "ctrl-c":
            stop = threading.Thread(target=lambda: (until(lambda: begun(tmp_path) >= 2), interrupt_main()))
            stop.start()
            with pytest.raises(KeyboardInterrupt) as raised:
                dask.compute(*tasks)
            error = raised.value
            stop.join(30)
            # A task in this very thread was interrupted.
            allowed = {1, 2}
        else:
            futures = client.compute(tasks, **({"budget": 2.0} if cause == "budget" else {}))
            if cause != "budget":
                until(lambda: begun(tmp_path) >= 2)
            allowed = {1, 2} if cause == "budget" else {2}
            if cause == "cancel":
                left = client.cancel(futures)
            elif cause == "close":
                left = client.close() or []
                allowed = {2} if granules == "threads" else {0}
            else:
                error = futures[-1].exception(30)
                assert isinstance(error, ArithmeticError if cause == "error" else BudgetSpent)
        if error is None:
            assert len(left) in allowed
        else:
            told = "".join(text for text in getattr(error, "__notes__", ()) if "may still run" in text)
            at_work = told.count(" in thread ") + told.count(" in worker process ")
            # On a busy machine the budget may be spent before anything has begun.
            assert at_work in allowed or (cause == "budget" and not begun(tmp_path))
        (tmp_path / "open").touch()
        nothing_is_left()
        if cause != "close":
            assert client.gather(client.compute([delayed(abs)(-n) for n in range(6)])) == list(range(6))
        assert names(tmp_path) <= {"0", "1"}
    finally:
        client.close()


def interrupt_main():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


def work(seed, number, *inputs):
    chance = Random(seed * 1000 + number)
    time.sleep(chance.choice([0, 0, 0.001, 0.003]))
    if chance.random() < 0.04:
        raise ValueError(f"task {number} of seed {seed}")
    return number + sum(inputs)


def graph_of(chance, seed):
    """A random graph of some layers, and what its last tasks give where nothing fails."""
    layers = [[delayed(work)(seed, number) for number in range(chance.randrange(2, 8))]]
    number = len(layers[0])
    for _ in range(chance.randrange(1, 4)):
        layer = []
        for _ in range(chance.randrange(1, 6)):
            layer.append(
                delayed(work)(seed, number, *chance.sample(layers[-1], chance.randrange(1, len(layers[-1]) + 1)))
            )
            number += 1
        layers.append(layer)
    return layers[-1]


@pytest.mark.parametrize("where", EVERYWHERE, ids=lambda where: "-".join(filter(None, where)))
def test_errors_cancellation_and_the_end_at_once_leave_nothing_waiting(where):
    granules, store = where
    for seed in range(3 if store else 5 if granules == "processes" else 15):
        chance = Random(seed)
        with wukong.Client(workers=2, granules=granules, store=store) as client:
            asked = [graph_of(chance, seed) for _ in range(3)]
            futures = [client.compute(items, retries=chance.choice([0, wukong.retry(1, 0.001)])) for items in asked]
            calls = client.map(work, [seed] * 20, range(100, 120), retries=chance.choice([0, wukong.retry(1, 0.001)]))
            every = [*futures[0], *futures[1], *futures[2], *calls]

            def shoot(chance=chance, futures=futures, calls=calls, client=client):
                for _ in range(3):
                    time.sleep(chance.random() * 0.02)
                    with suppress(ClientClosed):
                        client.cancel(chance.choice([*futures, chance.sample(calls, 5)]))

            shooters = [threading.Thread(target=shoot) for _ in range(2)]
            for shooter in shooters:
                shooter.start()
            if chance.random() < 0.5:
                time.sleep(chance.random() * 0.05)
                client.close()
            for future in every:
                error = future.exception(30)
                assert error is None or isinstance(error, FutureCancelled | ValueError | JobCancelled), (seed, error)
                # The first reason stays.
                assert type(future.exception()) is type(error)
            for shooter in shooters:
                shooter.join(30)
            assert client._engine.undone == set()
        nothing_is_left()
