"""Going on with a job whose client was killed: over a real server, with workers of both kinds."""

import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import dask.array as da
import pytest
from dask import delayed

import wukong
from tests.drivers import idle, keys_of, until
from tests.faults.stores import Server
from wukong.errors import AttachUnsupported, ConfigError, TaskLost
from wukong.scheduler import stores

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def server():
    with Server() as one:
        yield one
        # Clients of these tests share a link, which would wait for it.
        stores.close()


def run(directory, name, *inputs, gate=""):
    """Leave a file of this run; if there is a gate, wait for it to be opened."""
    with open(Path(directory) / "ran", "a") as log:
        log.write(f"{name}\n")
    if gate:
        until(lambda: (Path(directory) / gate).exists(), "the gate is opened", 60.0)
    return 1 + sum(inputs)


def graph(directory, once=False):
    """Eight short tasks, four that wait, each for two of these, and a sum: 4 * 3 + 1."""
    first = [delayed(run)(str(directory), f"a{n}") for n in range(8)]
    middle = wukong.once(run_once) if once else run
    second = [delayed(middle)(str(directory), f"b{n}", *first[2 * n : 2 * n + 2], gate="open") for n in range(4)]
    return delayed(run)(str(directory), "c", *second)


def run_once(*args, **kwargs):
    return run(*args, **kwargs)


def ran(directory):
    log = Path(directory) / "ran"
    return Counter(log.read_text().split()) if log.exists() else Counter()


CLIENT = """
    import sys, time
    sys.path.insert(0, {root!r})
    import wukong
    from tests.client import test_attaching as job
    if __name__ == "__main__":
        client = wukong.Client(workers=2, granules={granules!r}, store={store!r})
        futures = client.compute([job.graph({directory!r}, {once!r})], name={name!r})
        print(futures[0].job, futures[0].key, flush=True)
        time.sleep(600)
"""


def killed(server, directory, granules="threads", name=None, once=False):
    """Have a client begin, kill it when two of the tasks that wait have begun, and return job and key."""
    root = str(Path(__file__).parents[2])
    text = textwrap.dedent(CLIENT).format(
        root=root, granules=granules, store=server.url, directory=str(directory), name=name, once=once
    )
    script = directory / "client.py"
    script.write_text(text)
    client = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout is not None
        job, key = client.stdout.readline().split()
        until(lambda: sum(task[0] == "b" for task in ran(directory)) == 2, "two have begun", 40.0)
        with wukong.Client(workers=2, store=server.url) as early, pytest.raises(AttachUnsupported, match="lives"):
            early.attach(job)
    finally:
        client.send_signal(signal.SIGKILL)
        client.wait(30)
        client.stdout.close()
    return job, key


@pytest.mark.parametrize("granules", ["threads", "processes"])
def test_another_client_goes_on_when_one_was_killed_and_runs_nothing_again_that_is_stored(server, tmp_path, granules):
    job, key = killed(server, tmp_path, granules)
    before = ran(tmp_path)
    begun = [task for task in before if task[0] == "b"]
    inputs = [f"a{2 * int(task[1]) + n}" for task in begun for n in range(2)]
    (tmp_path / "open").touch()
    with wukong.Client(workers=2, granules=granules, store=server.url) as client:
        (future,) = client.attach(job).values()
        assert (future.key, future.job) == (key, job)
        assert future.result(20) == 13
        after = ran(tmp_path)
        # Of those it is certain that they were settled, since what needs them had begun.
        assert [after[task] for task in inputs] == [1, 1, 1, 1]
        assert [after[task] for task in begun] == [2, 2]
        assert after["c"] == 1
        until(idle, "nothing is left")
        until(lambda: not keys_of(server.url), "the store is empty")
        with pytest.raises(AttachUnsupported, match="it is over"):
            client.attach(job)


def test_a_job_goes_from_client_to_client_under_its_name(server, tmp_path):
    job, _ = killed(server, tmp_path, name="night-run.7")
    assert job == "night-run.7"
    with wukong.Client(workers=2, store=server.url) as client:
        with pytest.raises(ConfigError, match=r"attach\('night-run.7'\)"):
            client.compute(delayed(abs)(-1), name=job)
        (future,) = client.attach(job).values()
        assert [one.name for one in client.jobs()] == [job]
        assert client.attach(job)[future.key].call is future.call
        (tmp_path / "open").touch()
        assert future.result(20) == 13
        assert client.compute(delayed(abs)(-1), name=job).result(30) == 1


def test_what_may_run_only_once_and_had_begun_is_not_run_by_the_next_client(server, tmp_path):
    job, _ = killed(server, tmp_path, once=True)
    (tmp_path / "open").touch()
    with wukong.Client(workers=2, store=server.url) as client:
        (future,) = client.attach(job).values()
        with pytest.raises(TaskLost, match="only once"):
            future.result(20)
    assert max(ran(tmp_path).values()) == 1
    until(lambda: not keys_of(server.url), "the store is empty")


def test_names_of_jobs_are_told_and_checked(server):
    with wukong.Client(workers=2, store=server.url) as client:
        x = client.persist(da.ones(10, chunks=5), name="ones")
        assert {future.job for future in wukong.futures_of(x)} == {"ones"}
        assert client.submit(abs, -1).job is None
        assert float(x.sum().compute()) == 10
        for name in ("", "a/b", "x" * 101, 7):
            with pytest.raises(ConfigError, match="not allowed"):
                client.compute(delayed(abs)(-1), name=name)
        with pytest.raises(AttachUnsupported, match="the store has none"):
            client.attach("nobody")
    until(lambda: not keys_of(server.url), "the store is empty")


def test_results_that_the_client_puts_together_are_put_together_by_the_next(server, tmp_path):
    """A whole array is joined by the client, here the second."""
    text = f"""
        import os, time, dask.array as da, numpy as np, wukong
        def slow(block, block_id=None):
            open({str(tmp_path / "begun")!r}, "w").close()
            while not os.path.exists({str(tmp_path / "open")!r}):
                time.sleep(0.01)
            return block + block_id[0]
        client = wukong.Client(workers=1, granules="threads", store={server.url!r})
        client.compute(da.zeros((6,), chunks=2).map_blocks(slow, meta=np.empty(0)), name="joined")
        time.sleep(600)
    """
    (tmp_path / "client.py").write_text(textwrap.dedent(text))
    client = subprocess.Popen([sys.executable, tmp_path / "client.py"])
    try:
        until((tmp_path / "begun").exists, "it has begun", 20.0)
    finally:
        client.kill()
        client.wait(30)
    (tmp_path / "open").touch()
    with wukong.Client(workers=2, store=server.url) as again:
        (future,) = again.attach("joined").values()
        assert future.result(20).tolist() == [0, 0, 1, 1, 2, 2]
    until(lambda: not keys_of(server.url), "the store is empty")
