"""`kill -9` of a client whose workers are busy in every way: nothing of it is left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.platforms.packs import is_alive, until

ROOT = Path(__file__).resolve().parents[2]

CLIENT = """
import os, subprocess, sys, time
import numpy as np
from tests.platforms.packs import Started, until

def program(folder):
    child = subprocess.Popen(["sleep", "1000"])
    open(os.path.join(folder, "program-%d" % child.pid), "w").close()
    child.wait()

def forked(folder):
    child = os.fork()
    if not child:
        open(os.path.join(folder, "forked-%d" % os.getpid()), "w").close()
        while True:
            pass
    os.waitpid(child, 0)

def busy(folder):
    open(os.path.join(folder, "busy-%d" % os.getpid()), "w").close()
    while True:
        pass

def asleep(folder):
    open(os.path.join(folder, "asleep-%d" % os.getpid()), "w").close()
    time.sleep(1000)

folder = sys.argv[1]
started = Started(5)
large = started.submit(np.zeros, 1_000_000)
large.get()
calls = [started.submit(function, folder) for function in (program, forked, busy, asleep)]
queued = [started.submit(busy, folder) for _ in range(2)]
until(lambda: len(os.listdir(folder)) >= 5 or started.pack.wait(lambda: False, 0.01), "the calls")
keeper = started.pack.keeper
print("ready", keeper, *started.pack.pids, flush=True)
started.pack.wait(lambda: False, 1000)
"""


def holdings(pids):
    """Inodes of the sockets, and (device, inode) of the memory without a name, that processes hold."""
    sockets, memory = set(), set()
    for pid in pids:
        try:
            fds = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        for fd in fds:
            try:
                target = os.readlink(fd)
                status = os.stat(fd)
            except OSError:
                continue
            if target.startswith("socket:"):
                sockets.add(status.st_ino)
            elif target.startswith("/memfd:"):
                memory.add((status.st_dev, status.st_ino))
    return sockets, memory


def unix_sockets():
    lines = Path("/proc/net/unix").read_text().splitlines()[1:]
    return {int(line.split()[6]) for line in lines}


def everybody():
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def kill_a_busy_client(folder):
    """Start a client, kill it, and return what it had and what is left of that."""
    marks, temporary = folder / "marks", folder / "temporary"
    marks.mkdir(parents=True)
    temporary.mkdir()
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(marks)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with client:
        try:
            _, *line = client.stdout.readline().split()
            pids = {client.pid, *map(int, line), *(int(mark.name.rpartition("-")[2]) for mark in marks.iterdir())}
            sockets, memory = holdings(pids)
            had = {"processes": sorted(pids), "sockets": len(sockets), "blocks of memory": len(memory)}
        finally:
            client.kill()
    assert client.returncode == -signal.SIGKILL
    until(lambda: not any(map(is_alive, pids)), "the end of every process")
    left = {
        "processes": sorted(filter(is_alive, pids)),
        "sockets": sorted(sockets & unix_sockets()),
        "blocks of memory": sorted(memory & holdings(everybody())[1]),
        "files": sorted(str(path) for path in temporary.rglob("*")),
    }
    return had, left


def check(folder):
    had, left = kill_a_busy_client(folder)
    print("before", json.dumps(had))
    print("after ", json.dumps(left))
    # The client, its keeper, five workers, a program, and a fork of a worker.
    assert len(had["processes"]) == 9
    assert had["sockets"] >= 12
    assert had["blocks of memory"] >= 1
    assert not any(left.values()), left


@pytest.mark.parametrize("time", range(3))
def test_nothing_is_left_of_a_client_that_was_killed(tmp_path, time):
    check(tmp_path / str(time))


@pytest.mark.soak
def test_nothing_is_left_of_a_hundred_clients_that_were_killed(tmp_path):
    for time in range(100):
        check(tmp_path / str(time))
