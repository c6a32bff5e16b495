"""A server that evicts keys takes one of those that a job has: the job is opened again, or told why it cannot be."""

import shutil

import pytest

import wukong
from tests.servers import free_ports, started
from wukong.errors import StoreForgot
from wukong.storage.open import connect

KEYS = (b"records", b"values", b"active", b"executors")

#: Keys that are not to be evicted once more.
evicted: set[bytes] = set()


def evict(url, part):
    if part not in evicted:
        link = connect(url)
        for key in link.call(b"", b"KEYS", b"wk:*/0}:" + part):
            evicted.add(part)
            link.call(b"", b"DEL", key)
        link.close()
    return 1


def evict_each_time(url):
    evicted.clear()
    return evict(url, b"executors")


def graph_of(*evicting):
    return {"a": evicting, **{f"b{i}": (pow, "a", i) for i in range(8)}, "c": (sum, [f"b{i}" for i in range(8)])}


@pytest.mark.parametrize("part", KEYS)
def test_a_job_of_which_the_store_has_lost_one_key_is_opened_again(tcp_url, part):
    evicted.clear()
    assert wukong.get(graph_of(evict, tcp_url, part), "c", store=tcp_url, granules="threads", workers=2) == 8
    assert evicted == {part}
    assert "the job was opened again, 1 times" in str(wukong.last_run())
    link = connect(tcp_url)
    assert link.call(b"", b"KEYS", b"wk:*") == []
    link.close()


def test_who_evicts_again_and_again_is_named_with_what_to_do_and_nothing_is_left():
    (port,) = free_ports(1)
    url = f"redis://127.0.0.1:{port}"
    options = ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
    with started(shutil.which("redis-server"), port, *options) as link:
        with pytest.raises(StoreForgot) as raised:
            wukong.get(graph_of(evict_each_time, url), "c", store=url, granules="threads", workers=2)
        assert any("volatile-lru" in note and "noeviction" in note for note in raised.value.__notes__)
        assert link.call(b"", b"KEYS", b"wk:*") == []
