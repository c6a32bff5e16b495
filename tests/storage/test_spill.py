"""Where values go that a store refuses: a directory that lives as long as its client, whatever ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from tests import drivers
from wukong.errors import StoreFull, StoreUnavailable, ValueTooLarge
from wukong.ids import new_job
from wukong.storage import spill
from wukong.storage.link import Script
from wukong.storage.open import connect
from wukong.storage.room import SHARE, Room
from wukong.storage.spill import Spill
from wukong.storage.values.disk import DiskValueStore
from wukong.storage.values.heap import HeapValueStore
from wukong.storage.values.redis import RedisValueStore
from wukong.storage.values.tiered import Tier, TieredValueStore


class Thresholds:
    inline_limit = 100


class Refusing(HeapValueStore):
    """One that is full."""

    def put(self, *_: object) -> None:
        raise StoreFull("there is no room")


CLIENT = """
import sys, time
from wukong.storage.spill import Spill
from wukong.storage.values.disk import DiskValueStore
DiskValueStore(Spill(sys.argv[1]).path, "job").put("1.1", b"x" * 1000)
print("there", flush=True)
time.sleep(60)
"""


def client(directory: Path) -> "subprocess.Popen[bytes]":
    """Start a client that has spilled a value."""
    process = subprocess.Popen([sys.executable, "-c", CLIENT, str(directory)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    return process


def end(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20.0)
    assert process.stdout is not None
    process.stdout.close()


def test_what_a_client_left_that_was_killed_the_next_one_removes_and_not_what_another_has(tmp_path: Path) -> None:
    dies, lives = client(tmp_path), client(tmp_path)
    try:
        assert spill.find(str(tmp_path)) == []
        there = set(tmp_path.iterdir())
        assert len(there) == 2
        end(dies)
        drivers.until(lambda: len(spill.find(str(tmp_path))) == 1, "its lock is gone")
        (dead,) = spill.find(str(tmp_path))
        assert (dead.files, dead.nbytes) == (1, 1000)
        mine = Spill(str(tmp_path))
        assert not dead.path.exists()
        assert set(map(str, tmp_path.iterdir())) == {mine.path, *map(str, there - {dead.path})}
        mine.close()
        assert set(tmp_path.iterdir()) == there - {dead.path}
    finally:
        end(lives)


def test_a_directory_that_another_client_removes_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(**where: Any) -> str:
        made.append(mkdtemp(**where))
        if len(made) == 1:
            for dead in spill.find(str(tmp_path)):
                spill.remove(dead)
        return made[-1]

    monkeypatch.setattr(spill.tempfile, "mkdtemp", make)
    mine = Spill(str(tmp_path))
    assert len(made) == 2
    assert list(map(str, tmp_path.iterdir())) == [mine.path] == made[1:]
    mine.close()


FORKS = """
import os, sys
from wukong.scheduler import stores
from wukong.storage.spill import Spill
stores._spills[None] = Spill(sys.argv[1])
if os.fork():
    os.kill(os.getpid(), 9)
sys.stdin.read()
os._exit(0)
"""


def test_a_forked_child_does_not_keep_what_its_killed_client_left(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FORKS, str(tmp_path)], stdin=subprocess.PIPE)
    assert process.stdin is not None
    try:
        assert process.wait(20.0) == -signal.SIGKILL
        # The child lives until its input ends.
        drivers.until(lambda: len(spill.find(str(tmp_path))) == 1, "nobody has a lock on it")
    finally:
        process.stdin.close()


def test_files_of_a_job_go_though_its_server_does_not_answer(tmp_path: Path) -> None:
    class Away(HeapValueStore):
        def clear(self) -> None:
            raise StoreUnavailable("it is away")

    disk = DiskValueStore(str(tmp_path), "job")
    disk.put("1.1", b"x")
    store = TieredValueStore([Tier("away", Away(), 10), Tier("disk", disk, 10)], Thresholds())
    with pytest.raises(StoreUnavailable):
        store.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_locked_after_it_was_found_stays(tmp_path: Path) -> None:
    mine = Spill(str(tmp_path))
    spill.remove(spill.Dead(Path(mine.path), 0, 0))
    assert os.path.isdir(mine.path)
    mine.close()


def test_what_a_tier_refuses_goes_to_the_next_and_is_found_and_deleted_there(tmp_path: Path) -> None:
    disk = DiskValueStore(str(tmp_path), "job")
    store = TieredValueStore([Tier("full", Refusing(), 10**9), Tier("disk", disk, 10**9)], Thresholds())
    store.put("1.1", [b"a", memoryview(b"bc")])
    assert store.get(["1.1", "2.1"]) == [b"abc", None]
    assert (tmp_path / "job" / "1.1").exists()
    store.delete(["1.1", "2.1"])
    assert store.get(["1.1"]) == [None]
    assert not (tmp_path / "job" / "1.1").exists()
    store.put("3.1", b"x")
    store.clear()
    assert os.listdir(tmp_path) == []


def test_what_a_job_has_put_on_disk_is_known_to_all_its_processes_until_it_is_cleared(tmp_path: Path) -> None:
    mine, theirs = (DiskValueStore(str(tmp_path), "job") for _ in range(2))
    assert mine.sizes == []
    mine.put("1.1", [b"a", b"bc"])
    theirs.put("2.1", b"x" * 10)
    theirs.delete(["1.1"])
    assert mine.sizes == theirs.sizes == [3, 10]
    mine.clear()
    assert mine.sizes == []


def test_if_no_tier_takes_a_value_the_error_is_of_the_first_and_names_the_others() -> None:
    disk = DiskValueStore("/proc/none", "job")
    store = TieredValueStore([Tier("full", Refusing(), 10**9), Tier("disk", disk, 10**9)], Thresholds())
    with pytest.raises(StoreFull, match="there is no room") as failed:
        store.put("1.1", b"x")
    (note,) = failed.value.__notes__
    assert "nor was there room elsewhere: value 1.1 of 1 bytes has no place in /proc/none" in note
    with pytest.raises(ValueTooLarge):
        TieredValueStore([Tier("small", Refusing(), 10)], Thresholds()).put("1.1", b"x" * 11)


def test_a_value_that_is_half_written_is_not_there_and_leaves_no_file(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from wukong.errors import StoreFull
from wukong.storage.values.disk import DiskValueStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = DiskValueStore(sys.argv[1], "job")
try:
    store.put("1.1", [b"x" * 90_000, b"y" * 90_000])
except StoreFull as error:
    print(error)
print(store.get(["1.1"]))
"""
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert "value 1.1 of 180000 bytes has no place" in said.stdout
    assert "is full (File too large; " in said.stdout
    assert said.stdout.endswith("[None]\n")
    assert os.listdir(tmp_path / "job") == []


def test_the_last_tenth_of_a_server_is_kept_for_records(embedded_url: str) -> None:
    link = connect(embedded_url)
    link.call(b"", b"PING")
    job = new_job()
    store = RedisValueStore(link, job)
    used = Room(bytes(link.call(b"", b"INFO", b"memory"))).used
    limit = used + 20_000_000
    link.call(b"", b"CONFIG", b"SET", b"maxmemory", b"%d" % limit)
    try:
        room = link.room(b"")
        assert room is not None
        room.note(bytes(link.call(b"", b"INFO", b"memory")))
        for i in range(14):
            store.put(f"{i}.1", bytes(1_000_000))
        with pytest.raises(StoreFull, match=rf"of 6000000 bytes would fill .* of {limit}, .* 90% .* for records"):
            store.put("17.1", bytes(6_000_000))
        room.note(bytes(link.call(b"", b"INFO", b"memory")))
        assert room.used < limit * 0.95
        # Room that was made is noticed by whoever needs it.
        store.clear()
        store.put("17.1", bytes(6_000_000))
    finally:
        link.call(b"", b"CONFIG", b"SET", b"maxmemory", b"0")
        store.clear()
        link.close()


def test_values_that_fit_one_by_one_but_not_together_are_refused_though_they_were_taken(embedded_url: str) -> None:
    link, other = connect(embedded_url), connect(embedded_url)
    link.call(b"", b"PING")
    mine, its = RedisValueStore(link, new_job()), RedisValueStore(other, new_job())
    its.put("1.1", bytes(100_000_000))
    used = Room(bytes(link.call(b"", b"INFO", b"memory"))).used
    room = link.room(b"")
    assert room is not None
    # Room for half of what comes, and more beyond it than the server takes to receive it.
    other.call(b"", b"CONFIG", b"SET", b"maxmemory", b"%d" % ((used + 2_000_000) / SHARE))
    try:
        room.note(bytes(link.call(b"", b"INFO", b"memory")))
        # As if this process had heard of it before the other put its value.
        room.used = room._then = used - 100_000_000
        with pytest.raises(StoreFull, match=r"value 2\.1 of 4000000 bytes would fill"):
            mine.put("2.1", bytes(4_000_000))
        assert mine.get(["2.1"]) == [None]
    finally:
        other.call(b"", b"CONFIG", b"SET", b"maxmemory", b"0")
        for store in (mine, its):
            store.clear()
            store.close()


def test_a_record_that_a_full_server_refuses_is_sent_again_for_a_while(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, other = connect(embedded_url), connect(embedded_url)
    write = Script("return redis.call('SET', KEYS[1], ARGV[1])")
    refused = []
    full = link._full

    def make_room(*given: Any) -> StoreFull:
        refused.append(full(*given))
        if len(refused) == 3:
            other.call(b"", b"CONFIG", b"SET", b"maxmemory", b"0")
        return refused[-1]

    monkeypatch.setattr(link, "_full", make_room)
    other.call(b"", b"CONFIG", b"SET", b"maxmemory", b"1")
    try:
        assert link.evaluate(write, (b"record",), b"1") == b"OK"
        assert len(refused) == 3
    finally:
        other.call(b"", b"CONFIG", b"SET", b"maxmemory", b"0")
        link.call(b"", b"DEL", b"record")
        link.close()
        other.close()
