"""A pack of workers: how it begins, whom it offers work, what it does when workers die, and that it leaves nothing."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.platforms.packs import PATIENCE, Started, is_alive, until
from wukong import errors
from wukong.cost import PROCESSES
from wukong.errors import ClientClosed, WorkerLost
from wukong.platforms.local import keeper
from wukong.platforms.local.pack import DEATHS, Pack, Work
from wukong.platforms.local.processors import workers_here

ROOT = Path(__file__).resolve().parents[2]


class Echoes:
    """A source of work that is sent back as it is."""

    def __init__(self, *messages):
        self.left = list(messages)
        self.came = []
        self.lost = []
        self.abandoned = []

    def next(self, _):
        if not self.left:
            return None
        message = self.left.pop(0)
        return Work(("echo", *message), (), lambda fds, *reply: self.came.append((reply, fds)), self.lost.append)

    def abandon(self, error):
        self.abandoned.append(error)


@pytest.fixture(scope="module")
def pack():
    with Pack(2) as pack:
        yield pack


def descriptors():
    gc.collect()
    return sorted(os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.exists())


def test_work_goes_round(pack):
    source = Echoes((1, "a"), (bytes(300_000),))
    pack.attach(source)
    assert pack.wait(lambda: len(source.came) == 2, PATIENCE)
    assert sorted(source.came, key=repr) == [((1, "a"), []), ((bytes(300_000),), [])]
    pack.detach(source)


def test_work_is_taken_from_the_source_with_fewest_workers_at_work_for_it():
    unfair, given = [], []

    class Greedy:
        def next(self, _):
            if len(given) >= 60:
                return None
            at_work = pack._sources
            unfair.extend(other for other in at_work if at_work[other] < at_work[self])
            given.append(self)
            return Work(("echo",), (), lambda *_: None, lambda _: None)

        def abandon(self, _):
            pass

    with Pack(3) as pack:
        sources = [Greedy(), Greedy()]
        for source in sources:
            pack.attach(source)
        assert pack.wait(lambda: len(given) >= 60, PATIENCE)
    # The first was alone when it was attached, and had every worker.
    assert len(unfair) == 0
    assert {*given} == {*sources}


def test_an_idle_pack_notices_that_a_worker_has_died_and_starts_another():
    with Pack(2) as pack:
        until(lambda: len(pack.pids) == 2)
        dead = pack.pids[0]
        os.kill(dead, signal.SIGKILL)
        until(lambda: dead not in pack.pids and len(pack.pids) == 2)
        source = Echoes(*[(i,) for i in range(10)])
        pack.attach(source)
        assert pack.wait(lambda: len(source.came) == 10, PATIENCE)


def test_a_pack_outlives_its_keeper():
    with Started(2) as started:
        started.run(len, "")
        started.run(len, "")
        first = started.pack.keeper
        workers = started.pack.pids
        os.kill(first, signal.SIGKILL)
        until(lambda: started.pack.keeper != first)
        assert started.run(len, "abc") == 3
        until(lambda: not any(map(is_alive, workers)), "the end of the workers of the first keeper")


def test_a_pack_whose_workers_all_die_gives_up_and_says_why():
    with Started(1) as started:
        outcomes = [started.submit(os._exit, 3) for _ in range(DEATHS + 3)]
        through = DEATHS // PROCESSES.attempts
        for outcome in outcomes[:through]:
            with pytest.raises(WorkerLost, match="exit status 3"):
                outcome.get()
        for outcome in outcomes[through:]:
            until(lambda outcome=outcome: outcome.done)
            assert "nothing was done in between" in str(outcome.error)
        with pytest.raises(WorkerLost, match="the workers of this client are gone"):
            started.run(len, "")
        with pytest.raises(WorkerLost, match="the workers of this client are gone"):
            started.pack.wait(lambda: False, PATIENCE)
        assert not started.pack.usable


def test_what_a_handler_raises_is_raised_where_it_was_asked():
    def asks():
        from wukong.platforms.local import worker

        try:
            worker.current.ask("refuse", 7)
        except errors.ConfigError as error:
            return str(error)
        return "nothing was raised"

    def refuse(_worker, _fds, number):
        raise errors.ConfigError(f"not {number}")

    with Started(1) as started:
        started.pack.serve("refuse", refuse)
        assert started.run(asks) == "not 7"


def test_descriptors_travel_both_ways():
    def reads(name):
        from wukong.platforms.local import worker

        reply, (fd,) = worker.current.ask("open", name)
        with os.fdopen(fd) as file:
            return reply, file.read()

    def open_file(_worker, _fds, name):
        return "here it is", [os.open(name, os.O_RDONLY)]

    with Started(1) as started:
        started.pack.serve("open", open_file)
        reply, text = started.run(reads, __file__)
    assert reply == "here it is"
    assert text.startswith('"""A pack of workers')


def test_closing_ends_every_process_and_leaves_no_descriptor_and_no_thread():
    Started(1).pack.close()
    before, threads = descriptors(), threading.active_count()
    started = Started(3)
    started.run(len, "")
    until(lambda: len(started.pack.pids) == 3)
    pids = [started.pack.keeper, *started.pack.pids]
    started.pack.close()
    started.pack.close()
    until(lambda: not any(map(is_alive, pids)))
    # What tests before this one left may go meanwhile.
    assert threading.active_count() <= threads
    assert not set(descriptors()) - set(before)


def test_a_program_that_ends_without_closing_its_pack_ends_its_processes():
    code = """
from tests.platforms.packs import Started
started = Started(2)
print(started.run(len, "ab"), started.pack.keeper, *started.pack.pids)
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert ended.stderr == ""
    two, *pids = map(int, ended.stdout.split())
    assert two == 2
    until(lambda: not any(map(is_alive, pids)))


def test_a_fork_of_the_client_is_told_to_make_its_own_and_keeps_nothing_alive():
    with Started(1) as started:
        started.run(len, "")
        pids = [started.pack.keeper, *started.pack.pids]
        ours, its = socket.socketpair()
        child = os.fork()
        if not child:
            said = b"nothing"
            try:
                started.run(len, "")
            except ClientClosed as error:
                said = str(error).encode()
            its.send(said)
            # Until the parent has looked.
            its.recv(1)
            os._exit(0)
        said = ours.recv(10_000).decode()
        assert started.run(len, "abc") == 3
        started.pack.close()
        # It was told by the end of its socket, and not killed.
        assert started.pack._processes._process.returncode == 0
        until(lambda: not any(map(is_alive, pids)), "the end of the workers, with a fork of the client alive")
        ours.send(b"x")
        os.waitpid(child, 0)
        ours.close()
        its.close()
    assert "forked" in said


def test_a_worker_does_not_import_dask_until_a_task_needs_it():
    code = """
import sys
from tests.platforms.packs import Started
from tests.platforms.loads import modules, uses_wukong, uses_dask
for name in list(sys.modules):
    if name.partition(".")[0] in ("numpy", "pandas", "scipy", "pyarrow"):
        raise SystemExit(f"{name} is imported here")
with Started(1) as started:
    print(started.run(modules), started.run(uses_wukong), started.run(uses_dask))
"""
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert ended.stdout.split() == ["[]", "1", "wukong"], ended.stderr


def test_a_worker_has_its_share_of_the_processors_for_libraries_with_threads():
    with Started(1) as alone, Started(8) as together:
        limit = str(workers_here())
        assert alone.run(os.getenv, "OMP_NUM_THREADS") == limit
        assert together.run(os.getenv, "OPENBLAS_NUM_THREADS") == str(max(1, workers_here() // 8))


def test_stdin_of_a_task_is_empty():
    with Started(1) as started:
        assert started.run(lambda: sys.stdin.read()) == ""


def test_a_worker_that_is_interrupted_goes_on():
    with Started(1) as started:
        pid = started.run(os.getpid)
        os.kill(pid, signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            started.run(lambda: [os.kill(os.getpid(), signal.SIGINT), *range(10_000_000)])
        assert started.run(os.getpid) == pid


def test_well_known_packages_are_sorted_and_can_be_looked_up():
    assert list(keeper.WELL_KNOWN) == sorted(keeper.WELL_KNOWN)
