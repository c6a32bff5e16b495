"""Trying again, with pauses that grow, and never running twice: calls and graphs, in threads and in processes."""

import os
import signal
import threading
import time
from functools import partial

import dask
import pytest
from dask import delayed

import wukong
from wukong.errors import AnnotationError, ConfigError, TaskLost
from wukong.scheduler import tries
from wukong.scheduler.tries import again, is_once, retry_of

QUICK = wukong.retry(2, 0.001)


@pytest.fixture(params=["threads", "auto", "processes"])
def client(request):
    with wukong.Client(workers=2, granules=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def processes():
    with wukong.Client(workers=2, granules="processes") as client:
        yield client


def flaky(path, fails, kind=ValueError):
    """Fail so many times, by a file."""
    with open(path, "a") as file:
        file.write("x")
    if path.stat().st_size <= fails:
        raise kind(f"time {path.stat().st_size}")
    return "through"


def die(path):
    with open(path, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


@wukong.retry(2, 0.001)
def decorated(path, fails):
    """Fail so many times, and try again."""
    return flaky(path, fails)


@wukong.once
def marked(path):
    return die(path)


def test_calls_are_tried_again_and_the_last_error_tells_of_the_others(client, tmp_path):
    assert client.submit(flaky, tmp_path / "a", 2, retries=QUICK).result(30) == "through"
    error = client.submit(flaky, tmp_path / "b", 9, retries=QUICK).exception(30)
    assert str(error) == "time 3"
    assert [note for note in error.__notes__ if " of 3 " in note] == [
        "wukong: try 1 of 3 raised ValueError: time 1",
        "wukong: try 2 of 3 raised ValueError: time 2",
    ]
    assert (tmp_path / "b").stat().st_size == 3


def test_only_the_errors_named_are_tried_again(client, tmp_path):
    rule = wukong.retry(5, 0.001, on=(OSError, KeyError))
    assert client.submit(flaky, tmp_path / "a", 1, OSError, retries=rule).result(30) == "through"
    with pytest.raises(ValueError, match="time 1"):
        client.submit(flaky, tmp_path / "b", 1, retries=rule).result(30)
    with pytest.raises(ValueError, match="time 1"):
        dask.compute(delayed(wukong.retry(5, 0.001, on=OSError)(flaky))(tmp_path / "c", 1))


def test_tasks_of_graphs_are_tried_again_and_counted(tmp_path):
    for granules in ("threads", "inline", "processes"):
        with wukong.Client(workers=2, granules=granules) as client:
            with dask.annotate(retries=QUICK):
                parts = [delayed(flaky)(tmp_path / f"{granules}{n}", 2) for n in range(5)]
            assert dask.compute(*parts) == ("through",) * 5
            assert client.last_run.retries == 10
            assert "retries" in repr(client.last_run)
            error = client.compute(delayed(flaky)(tmp_path / f"{granules}x", 9), retries=QUICK).exception(30)
            assert str(error) == "time 3"
            assert "wukong: try 2 of 3 raised ValueError: time 2" in error.__notes__


def test_a_decorated_function_is_tried_again_wherever_it_is_called(client, tmp_path):
    assert decorated.__name__ == "decorated"
    assert decorated(tmp_path / "a", 2) == "through"
    assert dask.compute(delayed(decorated)(tmp_path / "b", 2)) == ("through",)
    assert client.submit(decorated, tmp_path / "c", 2).result(30) == "through"
    with pytest.raises(ValueError, match="time 3"):
        client.submit(decorated, tmp_path / "d", 9).result(30)


def test_a_call_waits_for_its_next_try_without_a_worker(tmp_path):
    with wukong.Client(workers=1, granules="threads") as client:
        waiting = client.submit(flaky, tmp_path / "a", 9, retries=wukong.retry(1, 60))
        deadline = time.monotonic() + 30
        while not (tmp_path / "a").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert client.submit(abs, -1).result(20) == 1
        assert waiting.cancel()
        assert waiting.cancelled()


def test_a_task_that_waits_for_its_next_try_hears_that_it_is_cancelled(tmp_path):
    with wukong.Client(workers=2, granules="threads") as client:
        future = client.compute(delayed(flaky)(tmp_path / "a", 9), retries=wukong.retry(1, 60))
        while not (tmp_path / "a").exists():
            time.sleep(0.001)
        client.cancel(future)
        deadline = time.monotonic() + 20
        while client._engine.jobs.working:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert (tmp_path / "a").stat().st_size == 1


def test_pauses_double_up_to_a_minute_and_are_cut_by_chance():
    rule = wukong.retry(9, 0.5)
    for tried, most in ((1, 0.5), (2, 1.0), (4, 4.0), (20, 60.0)):
        pauses = [rule.pause(tried) for _ in range(50)]
        assert all(most / 2 <= pause <= most for pause in pauses)
        assert len(set(pauses)) > 1


def test_nobody_waits_longer_than_the_pauses(monkeypatch):
    waited = []
    monkeypatch.setattr(tries, "_wait", lambda seconds: waited.append(seconds) or True)
    left = [3]

    def fails():
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(left[0])
        return "through"

    assert again(wukong.retry(3, 1.0), fails) == "through"
    assert [0.5 <= waited[0] <= 1, 1 <= waited[1] <= 2, 2 <= waited[2] <= 4] == [True] * 3


def test_what_is_no_rule_is_refused(processes):
    for wrong in ({"times": -1}, {"times": 1.5}, {"times": 1, "backoff": -1}, {"times": 1, "on": "ValueError"}):
        with pytest.raises(ConfigError, match="not allowed"):
            wukong.retry(**wrong)
    with pytest.raises(ConfigError, match="retries='x'"):
        retry_of("x")
    with pytest.raises(ConfigError, match="times=-1"):
        retry_of(-1)
    with pytest.raises(ConfigError, match="take one of the two away"):
        wukong.retry(1)(marked)
    with pytest.raises(ConfigError, match="take one of the two away"):
        wukong.once(decorated)
    with pytest.raises(ConfigError, match="cannot be marked"):
        wukong.once(abs)
    with pytest.raises(ConfigError, match="take one of the two away"):
        processes.submit(marked, "x", retries=1)
    with dask.annotate(once=True, retries=1):
        part = delayed(abs)(-1)
    with pytest.raises(AnnotationError, match="take one of the two away"):
        part.compute()


def test_a_call_that_is_to_run_once_is_lost_with_its_worker(processes, tmp_path):
    for name, submit in (
        ("a", lambda path: processes.submit(die, path, once=True)),
        ("b", lambda path: processes.submit(marked, path)),
        ("c", lambda path: processes.map(die, [path], once=True)[0]),
    ):
        with pytest.raises(TaskLost):
            submit(tmp_path / name).result(60)
        assert (tmp_path / name).stat().st_size == 1


@pytest.mark.usefixtures("processes")
def test_a_task_that_is_to_run_once_is_lost_with_its_worker(tmp_path):
    with dask.annotate(once=True):
        annotated = delayed(die)(tmp_path / "a")
    for path, task in (
        ("a", annotated),
        ("b", delayed(marked)(tmp_path / "b")),
        ("c", delayed(partial(marked, tmp_path / "c"))()),
    ):
        with pytest.raises(TaskLost):
            task.compute()
        assert (tmp_path / path).stat().st_size == 1
    assert is_once(marked)
    assert not is_once(die)


def test_once_does_not_keep_a_task_from_running(client, tmp_path):
    with dask.annotate(once=True):
        parts = [delayed(flaky)(tmp_path / str(n), 0) for n in range(5)]
    assert dask.compute(*parts) == ("through",) * 5
    # Not even where the whole graph is retried.
    with pytest.raises(ValueError, match="time 1"), dask.annotate(once=True):
        client.compute(delayed(flaky)(tmp_path / "x", 1), retries=QUICK).result(30)
    assert threading.active_count() < 50
