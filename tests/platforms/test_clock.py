"""How long a thread has been at work, as another thread sees it."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from wukong.platforms.local.clock import ThreadClock

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells how often a thread is preempted"
)


@pytest.fixture
def thread():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def spin(seconds):
    """Take so much of the processor; return how long that took."""
    began, ran = time.perf_counter(), time.thread_time()
    while time.thread_time() - ran < seconds:
        pass
    return time.perf_counter() - began


def test_running_is_work(thread):
    clock = thread.submit(ThreadClock).result()
    thread.submit(spin, 0.1).result()
    assert clock.worked() >= 0.1


@linux
def test_sleeping_is_work(thread):
    clock = thread.submit(ThreadClock).result()
    thread.submit(time.sleep, 0.3).result()
    clock.worked()  # begins to count how often others were given its processor
    thread.submit(time.sleep, 0.1).result()
    assert clock.worked() >= 0.4


@linux
def test_waiting_for_a_processor_is_hardly_work(thread):
    here = {min(os.sched_getaffinity(0))}
    command = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {here})\nwhile 1: pass"]
    others = [subprocess.Popen(command) for _ in range(3)]
    try:
        thread.submit(os.sched_setaffinity, 0, here).result()  # of this thread only
        clock = thread.submit(ThreadClock).result()
        took = thread.submit(spin, 0.2).result()
        clock.worked()
        took += thread.submit(spin, 0.2).result()
        assert clock.worked() < 0.4 + (took - 0.4) / 2 + 0.1
    finally:
        for other in others:
            other.kill()
            other.wait()
