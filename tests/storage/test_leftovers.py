"""What jobs left in a store is found and removed, and what is alive is not touched."""

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wukong
from tests import drivers
from wukong import cli
from wukong.ids import new_job
from wukong.protocol import messages as m
from wukong.scheduler import stores
from wukong.storage import leftovers, orphans
from wukong.storage.control.redis import RedisControlStore
from wukong.storage.open import connect
from wukong.storage.server import EmbeddedServer
from wukong.storage.spill import Spill
from wukong.storage.values.disk import DiskValueStore
from wukong.storage.values.redis import RedisValueStore


@pytest.fixture
def link(server_url: str) -> Iterator[Any]:
    link = connect(server_url)
    for left in leftovers.find(link):
        leftovers.remove(link, left)
    yield link
    link.close()


def leave(link: Any, lease: float = 0.0) -> str:
    """Leave a job of two shards and some values; return its name."""
    job = new_job()
    control = RedisControlStore(link, 2)
    for shard in range(2):
        root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), (m.Edge(shard, 1), m.Edge(7, 100)))
        control.apply(job, shard, m.Arrive("client", 1, lease, (root,)))
    values = RedisValueStore(link, job)
    for name in range(9):
        values.put(f"{name}.1", b"x" * 1000)
    return job


@pytest.fixture(autouse=True)
def _of_this_test_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What others left on this machine is none of these tests' business."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(orphans, "_BASES", ())


def test_every_key_of_a_job_is_found_wherever_it_lies(link: Any, server_url: str) -> None:
    before = drivers.keys_of(server_url)
    job = leave(link)
    (left,) = [left for left in leftovers.find(link) if left.job == job]
    assert set(left.keys) == drivers.keys_of(server_url) - before
    assert left.nbytes > 9 * 1000
    assert left.idle < 60
    assert left.age < 60
    assert not left.leased
    assert leftovers.remove(link, left) == len(left.keys)
    assert drivers.keys_of(server_url) == before


def test_a_job_whose_executors_have_leases_is_alive(embedded_url: str) -> None:
    link = connect(embedded_url)
    job = leave(link, lease=60.0)
    (left,) = [left for left in leftovers.find(link) if left.job == job]
    assert left.leased
    leftovers.remove(link, left)
    link.close()


def test_every_key_of_a_job_expires(link: Any) -> None:
    job = leave(link)
    (left,) = [left for left in leftovers.find(link) if left.job == job]
    for key in left.keys:
        assert 0 < link.call(key, b"TTL", key) <= 86400, key
    leftovers.remove(link, left)


def test_a_sweep_has_every_record_of_a_job_stay_longer(link: Any) -> None:
    job = leave(link)
    control = RedisControlStore(link, 2)
    (left,) = [left for left in leftovers.find(link) if left.job == job]
    records = [key for key in left.keys if not key.endswith(b"}:values") or b"/v" not in key]
    assert any(b":wide:" in key for key in records)
    for key in records:
        link.call(key, b"EXPIRE", key, b"100")
    for shard in range(2):
        control.apply(job, shard, m.Sweep(60.0))
    for key in records:
        assert link.call(key, b"TTL", key) > 100, key
    leftovers.remove(link, left)


def test_clean_removes_what_is_dead_and_only_if_it_is_told_to(
    link: Any, server_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link.call(b"mine", b"SET", b"mine", b"of somebody else")
    job = leave(link)
    assert cli.main(["clean", "--store", server_url, "--yes"]) == 0
    told = capsys.readouterr().out
    assert job in told
    assert "recent" in told
    assert "Nothing to remove" in told
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert cli.main(["clean", "--store", server_url, "--idle", "0"]) == 1
    assert "Nothing was removed" in capsys.readouterr().out
    assert [left.job for left in leftovers.find(link)] == [job]
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert cli.main(["clean", "--store", server_url, "--idle", "0"]) == 0
    assert "of 1 jobs" in capsys.readouterr().out
    assert leftovers.find(link) == []
    assert link.call(b"mine", b"GET", b"mine") == b"of somebody else"
    link.call(b"mine", b"DEL", b"mine")
    assert cli.main(["clean", "--store", server_url]) == 0
    assert "No job has anything" in capsys.readouterr().out


def test_clean_does_not_touch_a_job_that_lives_however_little_idle_is_asked_for(
    embedded_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    link = connect(embedded_url)
    job = leave(link, lease=60.0)
    assert cli.main(["clean", "--store", embedded_url, "--idle", "0", "--yes"]) == 0
    assert "leased" in capsys.readouterr().out
    (left,) = [left for left in leftovers.find(link) if left.job == job]
    leftovers.remove(link, left)
    link.close()


def test_clean_of_an_embedded_store_says_that_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["clean", "--store", "embedded"]) == 1
    assert "ends with its client" in capsys.readouterr().err


def test_clean_ends_a_server_whose_guard_was_killed_and_none_that_has_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Paths of sockets are short.
    with tempfile.TemporaryDirectory(prefix="w", dir="/tmp") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        with EmbeddedServer() as lives, EmbeddedServer() as orphan:
            assert orphans.find() == []
            path = Path(orphan.directory)
            os.kill(orphan._process.pid, signal.SIGKILL)
            drivers.until(lambda: [each.directory for each in orphans.find()] == [path], "it has no guard")
            ((_, pid),) = orphans.find()
            assert cli.main(["clean", "--yes"]) == 0
            assert f"{path}: a server without its client, process {pid}" in capsys.readouterr().out
            assert not path.exists()
            assert Path(lives.directory).exists()
            assert connect(lives.url).call(b"", b"PING") == b"PONG"
            drivers.until(lambda: not os.path.exists(f"/proc/{pid}/exe"), "the server has ended")
        assert cli.main(["clean"]) == 0
        assert "Nothing to remove" in capsys.readouterr().out


def test_clean_beside_a_job_that_is_at_work_takes_what_is_dead_and_the_job_ends_right(
    embedded_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link = connect(embedded_url)
    dead = leave(link)
    spilled = tmp_path / "spilled"
    spilled.mkdir()

    def wait(array: Any) -> int:
        (tmp_path / "waits").touch()
        drivers.until((tmp_path / "cleaned").exists, "it is cleaned")
        return int(array.sum())

    url = f"{embedded_url}?spill={spilled}"
    graph = {"a": (np.arange, 100_000), "b": (wait, "a"), "c": (lambda a, b: int(a.sum()) == b, "a", "b")}
    found: list[Any] = []

    def compute() -> None:
        found.append(wukong.get(graph, "c", store=url, granules="threads", workers=2))
        found.append(wukong.last_run())

    job = threading.Thread(target=compute)
    job.start()
    drivers.until((tmp_path / "waits").exists, "the job is at work")
    lost = Spill(str(spilled))
    DiskValueStore(lost.path, dead).put("1.1", b"x")
    os.close(lost._lock)
    assert cli.main(["clean", "--store", url, "--idle", "0", "--yes"]) == 0
    told = capsys.readouterr().out
    assert "leased" in told
    assert f"{lost.path}: 1 values that a dead client spilled, 1 bytes" in told
    assert not os.path.exists(lost.path)
    assert os.path.isdir(stores._spills[str(spilled)].path)
    assert dead not in {left.job for left in leftovers.find(link)}
    (tmp_path / "cleaned").touch()
    job.join(60.0)
    right, run = found
    assert right is True
    assert not any("lost data" in reason for reason in run.reasons)
    link.close()
    stores._links.pop(url)[0].close()
