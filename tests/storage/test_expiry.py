"""What a job has in a store stays for as long as its client lives, however short its `ttl`, and not much longer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wukong
from tests import drivers
from wukong.errors import ConfigError, StoreUnavailable
from wukong.scheduler import stores
from wukong.storage.address import parse
from wukong.storage.expiry import Expiry
from wukong.storage.open import connect
from wukong.storage.values.redis import RedisValueStore


def wait(seconds: float, array: Any) -> Any:
    time.sleep(seconds)
    return array


def forget(url: str) -> None:
    stores._links.pop(url)[0].close()


@pytest.mark.parametrize(("granules", "server"), [("threads", "cluster_url"), ("processes", "tcp_url")])
def test_a_job_that_takes_longer_than_its_ttl_loses_nothing(
    request: pytest.FixtureRequest, granules: str, server: str
) -> None:
    server_url = request.getfixturevalue(server)
    url = f"{server_url}?ttl=2"
    graph: dict[str, Any] = {
        "early": (np.arange, 100_000),
        "long": (wait, 3.0, 1),
        "late": (lambda array, one: array + one, "early", "long"),
    }
    found = wukong.get(graph, "late", store=url, granules=granules, workers=2)
    np.testing.assert_array_equal(found, np.arange(100_000) + 1)
    run = wukong.last_run()
    assert run is not None
    assert not any("lost data" in reason for reason in run.reasons)
    assert drivers.keys_of(server_url) == set()
    forget(url)


CLIENT = """
import sys, time, numpy, wukong
graph = {"a": (numpy.arange, 100_000), "b": (lambda a: (print("there", flush=True), time.sleep(60)), "a")}
wukong.get(graph, "b", store=sys.argv[1], granules="threads", workers=2)
"""


def test_what_a_killed_client_had_is_gone_when_its_ttl_has_passed(tcp_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLIENT, f"{tcp_url}?ttl=1&spill={tmp_path}"]
    client = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert client.stdout is not None
    with client.stdout:
        assert client.stdout.readline() == b"there\n"
    assert drivers.keys_of(tcp_url)
    os.kill(client.pid, signal.SIGKILL)
    client.wait(20.0)
    drivers.until(lambda: not drivers.keys_of(tcp_url), "the store is empty")


def test_a_client_that_dies_while_it_puts_a_value_leaves_no_key_without_an_expiry(tcp_url: str) -> None:
    link = connect(tcp_url)
    values = RedisValueStore(link, "job", 100)
    sent: list[Any] = []
    deliver = link._deliver
    link._deliver = lambda key, commands, patience: sent.extend(commands) or deliver(key, commands, patience)  # type: ignore[method-assign, func-returns-value]
    values.put("1.1", b"x")
    names = [bytes(command[0]).split(b"\r\n")[2] for command in sent]
    assert names[:4] == [b"MULTI", b"HSET", b"EXPIRE", b"EXEC"]
    # Whatever of it arrives before a client dies, the end of it is missing, or all of it is there.
    other = connect(tcp_url)
    for count in range(1, 4):
        values.clear()
        half = connect(tcp_url)
        commands = (
            (b"MULTI",),
            (b"HSET", values._keys[0], b"1.1", b"x"),
            (b"EXPIRE", values._keys[0], b"100"),
        )
        half.pipeline(b"", *commands[:count])
        half.close()
        assert other.call(b"", b"EXISTS", values._keys[0]) == 0
    for each in (link, other):
        each.close()


class Kept:
    def __init__(self) -> None:
        self.times = 0

    def prolong(self) -> None:
        self.times += 1
        raise StoreUnavailable("no answer")


def test_what_lives_is_prolonged_again_and_again_though_the_store_fails_and_what_has_died_is_not() -> None:
    expiry = Expiry()
    far, near, gone = Kept(), Kept(), Kept()
    for what, ttl in ((far, 1e9), (near, 0.03), (gone, 0.03)):
        expiry.put_off(what, ttl)
    del what, gone
    drivers.until(lambda: near.times >= 3, "it is prolonged three times")
    assert far.times == 0
    drivers.until(lambda: len(expiry._due) == 2, "what has died is forgotten")


def test_the_ttl_is_a_number_of_seconds() -> None:
    assert parse("redis://host?ttl=60").ttl == 60
    assert parse("redis://host").ttl == 86400
    with pytest.raises(ConfigError, match="ttl is at least 1"):
        parse("redis://host?ttl=0")
