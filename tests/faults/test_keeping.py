"""Jobs in a server whose invocations are lost, whose tasks outlast their leases, whose records go while they run."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import wukong
from tests import drivers
from tests.faults.processes import _claims
from tests.faults.stores import Server
from wukong.cost import LOCAL_SERVER
from wukong.errors import TaskLost
from wukong.platforms.local.board import Posted
from wukong.platforms.local.packs import pack_of
from wukong.scheduler import stores
from wukong.storage.address import parse
from wukong.storage.link import Link

#: Somebody looks in on jobs ten times a second.
WATCHFUL = LOCAL_SERVER.replace(lease=0.3)
GRANULES = ("threads", "processes")


pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as started:
        yield started
        stores.close()


@pytest.fixture(params=GRANULES)
def get(server: Server, request: pytest.FixtureRequest) -> Iterator[drivers.Get]:
    """Executors of each kind, whose leases are short."""
    over = drivers.over if request.param == "threads" else drivers.in_processes
    given = (server.url, 2, WATCHFUL) if request.param == "threads" else (2, WATCHFUL, server.url)
    with over(*given) as get:
        yield get
    # Of a job that was opened again, first copies may still be at work; they would wait for the server when it is gone.
    drivers.until(lambda: drivers.idle() and all_idle(), "nobody is at work")
    drivers.until(lambda: not server.content(), "nothing is left in the store")


def all_idle() -> bool:
    """Whether all worker processes are there, with nothing to do, or there are none."""
    pack = pack_of(2, start=False)
    return pack is None or pack.idle == pack.workers


def comes(path: Path) -> bool:
    """Wait until somebody else has left word."""
    deadline = time.monotonic() + 30
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody has made {path.name} meanwhile")
        time.sleep(0.01)
    return True


def leaves(path: Path, *_: Any) -> bool:
    """Leave word."""
    path.touch()
    return True


def forget(url: str) -> None:
    """Let a server forget everything."""
    link = Link(parse(url))
    link.call(b"", b"FLUSHALL")
    link.close()


def losing(key: str, times: int) -> Callable[..., None]:
    """Invoke, but for a task that is lost so many times."""
    plainly = Posted.invoke
    left = [times]

    def invoke(self: Posted, tasks: list[int], per: int) -> None:
        kept = []
        self.job.plan.load(tasks)
        for task in tasks:
            if left[0] and self.job.plan.key(task) == key:
                left[0] -= 1
            else:
                kept.append(task)
        plainly(self, kept, per)

    return invoke


def test_a_task_whose_invocation_is_lost_is_found_while_others_are_at_work(
    get: drivers.Get, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    get({"warm": (int,)}, "warm")
    monkeypatch.setattr(Posted, "invoke", losing("b", 1))
    assert get({"a": (comes, tmp_path / "b"), "b": (leaves, tmp_path / "b")}, ["a", "b"]) == (True, True)
    assert "ready tasks that nobody came for were started again" in repr(wukong.last_run())


def test_a_task_whose_invocation_is_lost_is_found_when_nobody_is_at_work(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Posted, "invoke", losing("b", 3))
    graph = {"a": (int,), "b": (abs, "a"), "c": (abs, "a"), "d": (max, "b", "c")}
    assert wukong.get({**graph, "b": (abs, -1)}, "d", store=server.url, granules="threads", workers=2) == 1


def test_a_task_that_outlasts_its_lease_runs_once(get: drivers.Get, tmp_path: Path) -> None:
    def long(name: str) -> str:
        with open(tmp_path / name, "a") as runs:
            runs.write("x")
        time.sleep(4 * WATCHFUL.lease)
        return name

    assert get({"a": (long, "runs"), "b": (int,)}, ["a", "b"]) == ("runs", 0)
    # Somebody was idle who could have run it again.
    assert (tmp_path / "runs").read_text() == "x"


def test_a_store_that_forgets_is_no_reason_to_wait_for_a_task_at_work(server: Server, tmp_path: Path, get: Any) -> None:
    url = server.url

    def sleeps() -> bool:
        return not _claims(str(tmp_path)) or comes(tmp_path / "through")

    def flush(x: int) -> int:
        if not (tmp_path / "flushed").exists():
            (tmp_path / "flushed").touch()
            forget(url)
        return x

    def through(x: int) -> int:
        (tmp_path / "through").touch()
        return x

    graph = {"sleeps": (sleeps,), "a": (flush, 1), "b": (abs, "a"), "c": (through, "b")}
    assert get(graph, ["sleeps", "c"]) == (True, 1)
    assert "it lost data, and the job was opened again" in repr(wukong.last_run())


def test_a_store_that_forgets_while_all_the_others_wait_is_noticed(server: Server, tmp_path: Path, get: Any) -> None:
    url = server.url

    def sleeps() -> int:
        if _claims(str(tmp_path)):
            forget(url)
            comes(tmp_path / "again")
        else:
            (tmp_path / "again").touch()
        return 2

    assert get({"a": (sleeps,), "b": (abs, "a"), "c": (int,), "d": (max, "b", "c")}, "d") == 2
    assert "it lost data" in repr(wukong.last_run())


def test_what_runs_once_is_not_begun_again_when_the_store_forgets_while_it_runs(
    server: Server, tmp_path: Path, get: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, fail = server.url, Posted.fail

    def failed(self: Posted, *args: Any) -> None:
        fail(self, *args)
        (tmp_path / "failed").touch()

    @wukong.once
    def runs() -> bool:
        with open(tmp_path / "runs", "a") as runs:
            runs.write("x")
        forget(url)
        # Somebody else has to hear of it, and has nothing to do meanwhile.
        return comes(tmp_path / "failed")

    monkeypatch.setattr(Posted, "fail", failed)
    with pytest.raises(TaskLost, match="may run only once, and it may have run before the store lost data"):
        get({"a": (runs,), "b": (int,), "c": (max, "a", "b")}, "c")
    assert (tmp_path / "runs").read_text() == "x"


def test_what_ran_once_is_not_run_again_when_the_store_forgets_after_its_value_was_used(
    server: Server, tmp_path: Path, get: Any
) -> None:
    url = server.url

    @wukong.once
    def runs() -> int:
        with open(tmp_path / "runs", "a") as runs:
            runs.write("x")
        return 1

    def flush(x: int) -> int:
        forget(url)
        return x + 1

    with pytest.raises(TaskLost, match="task 'a' may run only once"):
        get({"a": (runs,), "b": (flush, "a"), "c": (abs, "a"), "d": (max, "b", "c")}, "d")
    assert (tmp_path / "runs").read_text() == "x"
