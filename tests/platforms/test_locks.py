"""Locks that hold between threads and between the processes of a pack, and Dask's on top of them."""

import os
import pickle
import signal
import threading
import time

import dask.array as da
import numpy as np
import pytest
from dask.utils import SerializableLock

import wukong
from wukong.platforms.local.locks import SharedLock, shares
from wukong.scheduler.dask.locks import lock_of

pytestmark = [pytest.mark.timeout(60), pytest.mark.skipif(not shares, reason="no process granules here")]


@pytest.fixture(scope="module")
def client():
    with wukong.Client(workers=2, granules="processes", set_as_default=False) as client:
        yield client


def count_up(path, times, lock):
    """Add to a number in a file, in a way that loses some if two do it at once."""
    for _ in range(times):
        with lock:
            number = int(path.read_text())
            time.sleep(1e-4)
            path.write_text(str(number + 1))


class Unlocked:
    """What guards nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def race(client, path, lock, threads=2, times=40):
    path.write_text("0")
    futures = [client.submit(count_up, path, times, lock) for _ in range(2)]
    threads = [threading.Thread(target=count_up, args=(path, times, lock)) for _ in range(threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    client.gather(futures)
    return int(path.read_text())


def test_threads_and_processes_exclude_each_other(client, tmp_path):
    assert race(client, tmp_path / "counter", SerializableLock()) == 160


def test_without_a_lock_the_race_is_lost(client, tmp_path):
    # If it were not, the test above would show nothing.
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if race(client, tmp_path / "counter", Unlocked(), threads=0, times=400) < 800:
                return
        except ValueError:  # read while it was empty
            return
    raise AssertionError("a race that is always won shows nothing")


def test_a_lock_made_before_is_shared_once_it_is_pickled(client, tmp_path):
    lock = SerializableLock()
    lock.lock = threading.Lock()
    assert race(client, tmp_path / "counter", lock) == 160
    assert isinstance(lock.lock, SharedLock)


def test_locks_of_one_token_are_one_lock_and_others_are_others():
    lock = SerializableLock("one")
    same, other = pickle.loads(pickle.dumps(lock)), SerializableLock("other")
    assert type(same) is SerializableLock
    assert same.lock is lock.lock is lock_of("one").lock
    with lock:
        assert same.locked()
        assert not same.acquire(blocking=False)
        assert not same.acquire(timeout=0.01)
        with other:
            assert other.locked()
    assert not lock.locked()
    assert same.acquire(timeout=5)
    same.release()


def hold(lock, path):
    lock.acquire()
    path.write_text(str(os.getpid()))
    time.sleep(60)


def test_a_lock_is_free_again_when_the_process_that_holds_it_dies(client, tmp_path):
    lock, path = SerializableLock(), tmp_path / "pid"
    client.submit(hold, lock, path)
    deadline = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not lock.acquire(blocking=False)
    assert not lock.acquire(timeout=0.01)
    os.kill(int(path.read_text()), signal.SIGKILL)
    assert lock.acquire(timeout=20)
    lock.release()


class File:
    """A target of `Array.store` that is read and written as a whole, so that writes which meet are lost."""

    def __init__(self, path, shape):
        self.path, self.shape, self.dtype = path, shape, np.dtype(float)

    def __setitem__(self, key, block):
        values = np.load(self.path)
        time.sleep(1e-4)
        values[key] = block
        np.save(self.path, values)


@pytest.mark.parametrize("scheduler", ["client", "get"])
def test_what_dask_locks_for_storing_an_array_holds_between_processes(client, tmp_path, scheduler):
    x = da.arange(60, chunks=2, dtype=float)
    path = tmp_path / "array.npy"
    np.save(path, np.zeros(60))
    if scheduler == "client":
        x.store(File(path, x.shape), scheduler=client.get)
    else:
        x.store(File(path, x.shape), scheduler=lambda *args, **kw: wukong.get(*args, granules="processes", **kw))
    np.testing.assert_array_equal(np.load(path), np.arange(60))
