"""A pack when signals, forks and a system without room come at the worst time: nobody waits for ever."""

import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

from tests.platforms.packs import PATIENCE, Started, until
from wukong.errors import ClientClosed, TaskFailed, WorkerLost
from wukong.platforms.local.calls import Input
from wukong.platforms.local.pack import Pack
from wukong.platforms.local.processes import Processes
from wukong.platforms.local.watch import Watch
from wukong.storage.channel import Channel


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_what_the_keeper_has_no_room_for_waits_and_arrives():
    stranger = types.SimpleNamespace(number=0)
    with Started(1) as started:
        pid, keeper = started.run(os.getpid), started.pack.keeper
        os.kill(keeper, signal.SIGSTOP)
        try:
            for _ in range(1000):
                started.pack.kill(stranger)
            started.pack.kill(*started.pack._processes.members.values())
        finally:
            os.kill(keeper, signal.SIGCONT)
        until(lambda: pid not in started.pack.pids, "the end of the worker")
        assert started.run(len, "ab") == 2


def test_a_pack_that_cannot_replace_its_keeper_says_so(monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EAGAIN, "no more processes")

    with Started(1) as started:
        call = started.submit(time.sleep, 1000)
        assert started.pack.wait(lambda: started.pack.ready, PATIENCE)
        monkeypatch.setattr(subprocess, "Popen", refuse)
        os.kill(started.pack.keeper, signal.SIGKILL)
        with pytest.raises(WorkerLost, match=r"another cannot be started.*no more processes"):
            call.get()
        with pytest.raises(WorkerLost, match=r"another cannot be started.*no more processes"):
            started.run(len, "ab")
    monkeypatch.undo()


def test_a_pack_that_has_no_room_for_its_workers_leaves_nothing():
    Pack(1).close()
    before, threads = descriptors(), threading.active_count()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = set(range(1000)).difference(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (sorted(free)[30], hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            Pack(50)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # What tests before this one left may go meanwhile.
    assert descriptors() <= before
    assert threading.active_count() <= threads


def test_an_interrupt_while_work_is_given_costs_the_worker_and_nobody_waits_for_it(monkeypatch):
    send = Channel.send

    def interrupted(self, message, fds=()):
        if message[0] == "calls":
            monkeypatch.undo()
            raise KeyboardInterrupt
        send(self, message, fds)

    with Started(1) as started:
        pid = started.run(os.getpid)
        monkeypatch.setattr(Channel, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            started.submit(len, "ab")
        assert started.run(os.getpid) != pid


def test_a_fork_while_another_thread_has_the_locks_is_told_to_make_its_own():
    held, over = threading.Event(), threading.Event()

    def hold():
        with started.pack.lock, started.pack.arena._guard:
            held.set()
            over.wait(PATIENCE)

    with Started(1) as started:
        started.run(len, "")
        assert started.pack.arena.find("job", ["x"]) == [None]
        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(PATIENCE)
        child = os.fork()
        if not child:
            status = 1
            try:
                started.pack.arena.find("job", ["x"])
                started.submit(len, "")
            except ClientClosed:
                status = 7
            finally:
                os._exit(status)
        over.set()
        thread.join(PATIENCE)
        ended = []
        try:
            until(lambda: ended.extend(os.waitpid(child, os.WNOHANG)) or ended[-2], "the end of the fork")
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        assert os.waitstatus_to_exitcode(ended[-1]) == 7


def test_an_interrupt_while_a_worker_asks_does_not_cost_it_the_answer():
    def asks():
        from wukong.platforms.local import worker

        return [worker.current.ask("strike", os.getpid(), i)[0] for i in range(5)]

    def strike(_worker, _fds, pid, i):
        os.kill(pid, signal.SIGINT)
        return i, ()

    with Started(1) as started:
        started.pack.serve("strike", strike)
        assert started.run(asks) == [0, 1, 2, 3, 4]


def test_an_error_that_cannot_be_loaded_here_is_told_of():
    def fails():
        module = sys.modules["only_there"] = types.ModuleType("only_there")
        exec("class Odd(Exception): pass", module.__dict__)
        raise module.Odd("what it says")

    with Started(1) as started:
        with pytest.raises(TaskFailed, match=r"only_there.Odd: what it says.*cannot be loaded here") as caught:
            started.run(fails)
        assert "in fails" in caught.value.__notes__[0]
        assert started.run(len, "ab") == 2


def test_a_worker_without_room_for_descriptors_says_why_it_ends(capfd):
    def narrow():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))

    with Started(1) as started:
        started.run(narrow)
        value = started.pack.arena.seal(np.zeros(100_000))
        # The next one has room.
        assert started.submit(np.sum, Input(0), inputs=[value]).get() == 0
    assert "descriptors were lost on their way" in capfd.readouterr().err


def test_a_keeper_that_the_system_does_not_let_go_of_is_named_and_not_waited_for():
    class Stuck:
        pid, killed = 4321, False

        def wait(self, timeout):
            raise subprocess.TimeoutExpired("python", timeout)

        def kill(self):
            self.killed = True

    stuck = Stuck()
    with pytest.warns(ResourceWarning, match="process 4321, which kept the workers of a client, was killed"):
        Processes._wait_for_keeper(None, stuck)
    assert stuck.killed


def test_one_look_that_raises_is_printed_and_does_not_end_those_of_others(monkeypatch, capsys):
    monkeypatch.setattr("wukong.platforms.local.watch.EVERY", 0.01)
    looked = []

    def fails():
        raise RuntimeError("one job is in trouble")

    def looks():
        return [fails, lambda: looked.append(None)]

    work = [types.SimpleNamespace(pid=os.getpid())]
    watch = Watch(lambda: work, work.remove, looks, lambda: None, work.clear, 5.0)
    watch.begin()
    try:
        until(lambda: len(looked) > 2, "other looks, again and again")
    finally:
        watch.end()
        watch._thread.join(PATIENCE)
    assert "one job is in trouble" in capsys.readouterr().err
