"""Annotations: who needs memory waits for it, who names workers runs there, and nobody waits in vain."""

import os
import signal
import threading
import time

import dask
import dask.array as da
import pytest
from dask import delayed

import wukong
from tests import drivers
from wukong.errors import AnnotationError, ConfigError, WorkerLost
from wukong.futures import FutureCancelled
from wukong.platforms.local import admission

pytestmark = pytest.mark.timeout(60)
HERE = os.getpid()


@pytest.fixture(params=["threads", "processes", "auto"])
def client(request):
    """A client of three workers whose tasks may need ten bytes at once."""
    yield from a_client(granules=request.param)


@pytest.fixture
def threads():
    """The same, with threads only."""
    yield from a_client(granules="threads")


@pytest.fixture
def both():
    """The same, with threads and processes."""
    yield from a_client(granules="auto")


def a_client(**options):
    with wukong.Client(workers=3, memory_limit=10, **options) as client:
        yield client
        drivers.until(lambda: client._engine.admission.held == 0, "all memory is given back")
        drivers.until(drivers.idle, "the crew is idle")
    assert dask.config.get("scheduler", None) is None


class Crowd:
    """Tasks that count, in a file each, how many of them run at once.

    The first ones wait until so many are `together`.
    """

    def __init__(self, folder, together=1):
        self.folder = str(folder)
        self.together = together

    def __call__(self, number):
        mine, met = os.path.join(self.folder, str(number)), self.folder + ".met"
        open(mine, "w").close()
        deadline = time.monotonic() + 20
        while len(os.listdir(self.folder)) < self.together and not os.path.exists(met) and time.monotonic() < deadline:
            time.sleep(0.001)
        open(met, "w").close()
        # Whoever begins though there is no room for it is seen.
        time.sleep(0.02)
        most = len(os.listdir(self.folder))
        os.remove(mine)
        return most


def where(_=None):
    return os.getpid()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


# --- memory: graphs ---------------------------------------------------------------------------------------------------


def test_tasks_of_a_graph_run_together_only_within_the_limit(client, tmp_path):
    with dask.annotate(memory=5):
        tasks = [delayed(Crowd(tmp_path, 2))(number) for number in range(8)]
    most = client.gather(client.compute(tasks))
    assert max(most) == 2


@pytest.mark.usefixtures("client")
def test_tasks_that_do_not_fit_together_run_one_after_the_other_beside_others(tmp_path):
    with dask.annotate(memory="6 B"):
        tasks = [delayed(Crowd(tmp_path))(number) for number in range(5)]
    others = [delayed(where)(number) for number in range(30)]
    *most, pids = dask.compute(*tasks, others)
    assert most == [1] * 5
    assert len(pids) == 30


@pytest.mark.usefixtures("client")
def test_a_chain_of_tasks_gives_back_what_each_needs():
    x = delayed(where)()
    for _ in range(10):
        with dask.annotate(memory=10):
            x = delayed(where)(x)
        x = delayed(where)(x)
    assert x.compute() > 0


@pytest.mark.usefixtures("threads")
def test_memory_may_be_a_function_of_the_key(tmp_path):
    with dask.annotate(memory=lambda key: 10 if key.endswith("big") else 1):
        tasks = [delayed(Crowd(tmp_path))(n, dask_key_name=f"{n}-{'big' if n % 2 else 'small'}") for n in range(6)]
    most = dask.compute(*tasks)
    assert [most[n] for n in (1, 3, 5)] == [1, 1, 1]


@pytest.mark.usefixtures("threads")
def test_what_needs_nothing_runs_while_others_wait_for_memory():
    gate = threading.Event()
    with dask.annotate(memory=10):
        tasks = [delayed(gate.wait)(20) for _ in range(4)]
    opener = delayed(gate.set)()
    assert dask.compute(*tasks, opener)[:4] == (True,) * 4


@pytest.mark.usefixtures("threads")
def test_annotations_of_arrays_hold_where_dask_keeps_them(tmp_path):
    with dask.annotate(memory=10):
        x = da.ones(6, chunks=1).map_blocks(lambda block: block * Crowd(tmp_path)(id(block)), dtype=float)
    assert list(x.compute(optimize_graph=False)) == [1] * 6


def test_jobs_of_one_client_share_its_memory(client, tmp_path):
    with dask.annotate(memory=6):
        jobs = [client.compute(delayed(Crowd(tmp_path))(number)) for number in range(4)]
    calls = client.map(Crowd(tmp_path), range(4, 8), memory=6)
    assert client.gather([*jobs, *calls]) == [1] * 8


def test_a_task_that_needs_more_than_there_is_is_refused_before_anything_runs(client, tmp_path):
    with dask.annotate(memory="11 B"):
        big = delayed(where)(dask_key_name="big")
    with pytest.raises(AnnotationError, match=r"'big' needs 11 bytes .* may have 10; .*memory_limit"):
        delayed(lambda *_: None)(big, delayed(Crowd(tmp_path).__call__)("first")).compute()
    with pytest.raises(AnnotationError, match=r"needs 11 bytes"):
        client.submit(where, memory=11, key="large")
    with pytest.raises(AnnotationError, match="memory='much' is not allowed"):
        client.submit(where, memory="much")
    assert os.listdir(tmp_path) == []


def test_without_a_client_the_limit_is_the_machines(monkeypatch, tmp_path):
    monkeypatch.setattr(admission, "machine", admission.Admission(10))
    with dask.annotate(memory=6):
        tasks = [delayed(Crowd(tmp_path))(number) for number in range(4)]
    for granules in ("auto", "threads", "inline"):
        assert wukong.compute(*tasks, granules=granules, workers=3) == (1,) * 4
    with pytest.raises(AnnotationError, match="needs 11 bytes"), dask.annotate(memory=11):
        wukong.compute(delayed(where)(), granules="inline")


@pytest.mark.usefixtures("client")
def test_a_failed_task_gives_back_its_memory():
    with dask.annotate(memory=10):
        bad = [delayed(int)("ten") for _ in range(3)]
        good = delayed(where)()
    with pytest.raises(ValueError, match="ten"):
        dask.compute(*bad)
    assert good.compute() > 0


def test_a_killed_worker_gives_back_what_its_task_needs(both):
    with dask.annotate(memory=10, workers="processes"):
        doomed, good = delayed(die)(), delayed(where)()
    with pytest.raises(WorkerLost):
        doomed.compute()
    assert good.compute() != HERE
    call = both.submit(die, memory=10, workers="processes")
    with pytest.raises(WorkerLost):
        call.result()
    assert both.submit(where, memory=10, workers="processes").result() != HERE


# --- memory: tasks inside of tasks ------------------------------------------------------------------------------------


def test_a_task_that_has_memory_may_compute_inside_what_needs_memory(threads):
    def outer(x):
        with dask.annotate(memory=10):
            return sum(dask.compute(*[delayed(abs)(n + x) for n in range(3)]))

    with dask.annotate(memory=10):
        tasks = [delayed(outer)(x) for x in range(4)]
    assert dask.compute(*tasks) == (3, 6, 9, 12)
    assert threads.gather(threads.map(outer, range(4), memory=10)) == [3, 6, 9, 12]


@pytest.mark.usefixtures("threads")
def test_tasks_without_memory_may_compute_inside_what_has_to_wait_for_it():
    def outer(x):
        with dask.annotate(memory=10):
            return sum(dask.compute(*[delayed(abs)(n + x) for n in range(3)]))

    with dask.annotate(memory=10):
        rivals = [delayed(abs)(n) for n in range(10)]
    assert dask.compute(*map(delayed(outer), range(6)), *rivals)[:6] == (3, 6, 9, 12, 15, 18)


def test_a_task_that_has_memory_may_wait_for_calls_that_need_some(threads):
    def waits(others):
        return sum(other.result(20) for other in others)

    gate = threading.Event()
    hold = threads.submit(gate.wait, 20, memory=10)
    drivers.until(lambda: threads._engine.admission.held == 10, "the first has its memory")
    outer = threads.submit(lambda: waits(box), memory=10, priority=1)
    box = [threads.submit(abs, n, memory=10) for n in range(3)]
    gate.set()
    assert outer.result(30) == 3
    assert hold.result()


def test_a_task_that_has_memory_may_submit_what_needs_some(client):
    def outer(n):
        return wukong.get_client().submit(abs, n, memory=10).result(20)

    for workers in ("threads", "processes"):
        if workers == "processes" and client._options.granules == "threads":
            continue
        call = client.submit(outer if workers == "threads" else abs, -3, memory=10, workers=workers)
        assert call.result(30) == 3


# --- memory: calls ----------------------------------------------------------------------------------------------------


def test_calls_run_together_only_within_the_limit(client, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert max(client.gather(client.map(Crowd(one, 2), range(8), memory=5))) == 2
    assert max(client.gather(client.map(Crowd(other, 2), range(8), memory=5, batch_size=2))) == 2


def test_calls_that_need_nothing_pass_those_that_wait(threads):
    gate = threading.Event()
    waiting = threads.map(lambda _: gate.wait(20), range(4), memory=10)
    assert threads.submit(gate.set).result(20) is None
    assert threads.gather(waiting) == [True] * 4


def test_who_came_first_begins_first_though_others_would_fit(threads):
    gate, order = threading.Event(), []
    hold = threads.submit(gate.wait, 20, memory=6)
    drivers.until(lambda: threads._engine.admission.held == 6, "the first has its memory")
    large = threads.submit(order.append, "large", memory=10)
    drivers.until(lambda: threads._engine.admission._line, "the second was refused, and stands in line")
    small = threads.submit(order.append, "small", memory=4)
    with dask.annotate(memory=4):
        job = threads.compute(delayed(order.append)("job"))
    time.sleep(0.05)
    assert order == []
    gate.set()
    threads.gather([hold, large, small, job])
    assert order[0] == "large"


def test_what_waits_for_memory_can_be_cancelled(client):
    gate = threading.Event()
    hold = client.submit(gate.wait, 20, memory=10, workers="threads")
    drivers.until(lambda: client._engine.admission.held == 10, "the first has its memory")
    waiting = client.submit(where, memory=10)
    with dask.annotate(memory=10):
        job = client.compute(delayed(where)())
    client.cancel([waiting, job])
    with pytest.raises(FutureCancelled):
        waiting.result(20)
    gate.set()
    assert hold.result(20)
    assert client.submit(where, memory=10).result(20) > 0


def test_a_closed_client_leaves_nobody_waiting_for_memory():
    gate = threading.Event()
    with wukong.Client(workers=2, granules="threads", memory_limit=10) as client:
        client.submit(gate.wait, 20, memory=10)
        drivers.until(lambda: client._engine.admission.held == 10, "the first has its memory")
        waiting = client.map(abs, range(3), memory=10)
        with dask.annotate(memory=10):
            job = client.compute(delayed(abs)(1))
    with pytest.raises(FutureCancelled):
        waiting[0].result(20)
    assert job.cancelled()
    gate.set()
    drivers.until(drivers.idle, "the crew is idle")


def test_retries_and_memory_go_together(client, tmp_path):
    def flaky(path):
        try:
            open(path, "x").close()
        except FileExistsError:
            return "through"
        raise OSError("not yet")

    assert client.submit(flaky, tmp_path / "a", memory=10, retries=1).result() == "through"
    with dask.annotate(memory=10, retries=1):
        x = delayed(flaky)(tmp_path / "b")
    assert x.compute() == "through"
    with dask.annotate(memory=10):
        x = delayed(flaky)(tmp_path / "c")
    assert client.compute(x, retries=1).result() == "through"


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granules", ["auto", "processes"])
def test_tasks_run_on_the_workers_that_they_name(granules):
    with wukong.Client(workers=2, granules=granules) as client:
        with dask.annotate(workers="processes"):
            there = [delayed(where)(n) for n in range(4)]
        with dask.annotate(workers=["client"]):
            here = [delayed(where)(x) for x in there]
        with dask.annotate(workers="processes"):
            last = [delayed(where)(x) for x in here]
        there, here, last = dask.compute(there, here, last)
        assert HERE not in there
        assert set(here) == {HERE}
        assert HERE not in last
        for workers, home in (("threads", True), ("client", True), ("processes", False)):
            calls = client.map(where, range(4), workers=workers)
            assert all((pid == HERE) == home for pid in client.gather(calls))
            assert (client.submit(where, workers=[workers]).result() == HERE) == home
        either = client.submit(where, workers=["threads", "processes"])
        assert (either.result() == HERE) == (granules == "auto")


def test_what_cannot_travel_may_be_kept_in_the_client():
    lock = threading.Lock()
    with wukong.Client(workers=2, granules="processes") as client:
        pid = delayed(where)(1)
        with dask.annotate(workers="threads"):
            x = delayed(lambda n: (lock.locked(), n))(pid)
        locked, pid = x.compute()
        assert not locked
        assert pid != HERE
        assert client.submit(lock.locked, workers="client").result() is False


@pytest.mark.parametrize("granules", ["auto", "processes"])
def test_what_cannot_travel_is_refused_in_processes(granules):
    lock = threading.Lock()
    with wukong.Client(workers=2, granules=granules) as client:
        with dask.annotate(workers="processes"):
            x = delayed(lambda n: (lock.locked(), n))(1)
        with pytest.raises(wukong.errors.CannotTravel, match="lock"):
            x.compute()
        with pytest.raises(wukong.errors.CannotTravel, match="lock"):
            client.submit(lock.locked, workers="processes").result()
        with dask.annotate(workers="threads"):
            held = delayed(threading.Lock)()
        with dask.annotate(workers="processes"):
            x = delayed(where)(held)
        with pytest.raises(wukong.errors.CannotTravel, match="lock"):
            x.compute()


@pytest.mark.parametrize("granules", ["threads", "inline"])
def test_processes_are_refused_where_there_are_threads_only(granules):
    with wukong.Client(workers=2, granules=granules) as client:
        with dask.annotate(workers="processes"):
            x = delayed(where)(dask_key_name="x")
        with pytest.raises(AnnotationError, match="'x' is to run in processes, but this job has threads only"):
            x.compute()
        with pytest.raises(ConfigError, match="'y' is to run in processes, but this job has threads only"):
            client.submit(where, key="y", workers="processes")
        with dask.annotate(workers="processes", allow_other_workers=True):
            assert delayed(where)().compute() == HERE
        assert client.submit(where, workers="processes", allow_other_workers=True).result() == HERE
        with dask.annotate(workers="threads"):
            assert delayed(where)().compute() == HERE
        assert client.submit(where, workers="threads").result() == HERE


def test_workers_that_there_are_not_are_refused(both):
    with dask.annotate(workers=["alice:8786"]):
        x = delayed(where)(dask_key_name="x")
    allowed = "allowed are 'client', 'threads', 'processes'"
    with pytest.raises(AnnotationError, match=f"task 'x' is to run on the workers 'alice:8786'.*{allowed}"):
        x.compute()
    with pytest.raises(AnnotationError, match=allowed):
        both.submit(where, workers="alice")
    with pytest.raises(AnnotationError, match=allowed):
        both.map(where, range(3), workers=["threads", "alice"])
    with dask.annotate(workers="alice", allow_other_workers=True):
        assert delayed(where)().compute() > 0
    assert both.submit(where, workers="alice", allow_other_workers=True).result() > 0


@pytest.mark.usefixtures("both")
def test_in_a_worker_process_annotations_hold_for_what_it_computes_itself():
    def outer():
        with dask.annotate(workers="client", memory=10):
            return os.getpid(), delayed(where)().compute(scheduler=wukong.get)

    with dask.annotate(workers="processes", memory=10):
        mine, its = delayed(outer)().compute()
    assert mine == its != HERE


def test_a_graph_without_annotations_has_nothing_to_do_with_them(both, monkeypatch):
    monkeypatch.setattr(both._engine.admission, "fits", None)
    monkeypatch.setattr(both._engine.admission, "admit", None)
    assert sum(dask.compute(*[delayed(abs)(n) for n in range(10)], granules="threads")) == 45
    assert both.gather(both.map(abs, range(10))) == list(range(10))
