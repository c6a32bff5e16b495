"""What every value store does, asked of each: heap, arena (from both sides), embedded, Redis, cluster, and tiers."""

import threading
from contextlib import suppress

import pytest

from tests.conftest import SERVERS
from wukong.errors import ValueTooLarge
from wukong.ids import new_job
from wukong.storage.arena import Arena
from wukong.storage.channel import Channel, pair
from wukong.storage.holder import Holder, serve
from wukong.storage.open import open_values
from wukong.storage.values.arena import ArenaValueStore
from wukong.storage.values.heap import HeapValueStore
from wukong.storage.values.tiered import Placement, Tier, TieredValueStore


class Thresholds:
    inline_limit = 100


@pytest.fixture
def arena():
    arena = Arena()
    yield ArenaValueStore(arena, "job")
    arena.close()


@pytest.fixture
def holder():
    """A worker's store, which speaks through a socket with a thread that keeps the books."""
    arena = Arena()
    here, there = map(Channel, pair())
    asking = threading.Lock()

    def serve_here():
        answers = serve(arena)
        with suppress(EOFError):
            while True:
                (answered, op, *args), fds = there.receive()
                answer = answers[op]("holder", fds, *args)
                if answered:
                    there.send((answer[0],), answer[1])

    def ask(op, *args, fds=()):
        with asking:
            here.send((True, op, *args), fds)
            (reply,), received = here.receive()
            return reply, received

    books = threading.Thread(target=serve_here)
    books.start()
    holder = Holder(ask, lambda op, *args, fds=(): here.send((False, op, *args), fds))
    yield ArenaValueStore(holder, "job")
    holder.close()
    here.close()
    books.join(60.0)
    there.close()
    arena.close()


@pytest.fixture(params=["heap", "arena", "holder", *SERVERS, "tiered"])
def store(request):
    if request.param == "heap":
        store = HeapValueStore()
    elif request.param in ("arena", "holder"):
        store = request.getfixturevalue(request.param)
    elif request.param == "tiered":
        remote = open_values(request.getfixturevalue("embedded_url"), new_job())
        tiers = [Tier("heap", HeapValueStore(), 1000), Tier("redis", remote, 10**9)]
        store = TieredValueStore(tiers, Thresholds())
    else:
        store = open_values(request.getfixturevalue(request.param), new_job())
    yield store
    store.clear()
    store.close()


@pytest.mark.parametrize("size", [0, 1, 300, 20_000, 100_000, 3_000_000])
def test_a_value_comes_back_as_it_was(store, size):
    value = (bytes(range(256)) * (size // 256 + 1))[:size]
    store.put("1.1", value)
    (found,) = store.get(["1.1"])
    assert bytes(found) == value


def test_a_frame_of_several_buffers_is_one_value(store):
    large = bytearray(b"b" * 50_000)
    store.put("1.1", [b"a", memoryview(large), b"", memoryview(bytearray(8)).cast("d"), b"c" * 20_000])
    assert bytes(store.get(["1.1"])[0]) == b"a" + b"b" * 50_000 + bytes(8) + b"c" * 20_000


def test_values_come_in_the_order_asked_for_and_none_for_what_is_not_there(store):
    for i in range(50):
        store.put(f"{i}.1", b"%d" % i * 40)
    names = [f"{i}.1" for i in (7, 99, 3, 7, 49)]
    assert [None if v is None else bytes(v) for v in store.get(names)] == [
        b"7" * 40,
        None,
        b"3" * 40,
        b"7" * 40,
        b"49" * 40,
    ]
    assert store.get([]) == []


def test_deleted_values_are_gone_and_deleting_them_again_is_no_error(store):
    store.put("1.1", b"x")
    store.put("2.1", b"y")
    for _ in range(2):
        store.delete(["1.1", "9.9"])
    assert store.get(["1.1"]) == [None]
    assert bytes(store.get(["2.1"])[0]) == b"y"
    store.delete([])


def test_clearing_removes_every_value_of_the_job(store):
    for i in range(100):
        store.put(f"{i}.1", b"x")
    store.clear()
    assert store.get([f"{i}.1" for i in range(100)]) == [None] * 100


def test_the_same_value_may_be_put_twice(store):
    store.put("1.1", b"x")
    store.put("1.1", b"x")
    assert bytes(store.get(["1.1"])[0]) == b"x"


def test_threads_do_not_disturb_each_other(store):
    wrong = []

    def work(member):
        for i in range(20):
            store.put(f"{member}.{i}", b"%d" % member * 1000)
            if bytes(store.get([f"{member}.{i}"])[0]) != b"%d" % member * 1000:
                wrong.append((member, i))

    threads = [threading.Thread(target=work, args=(member,)) for member in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert wrong == []


def test_bytes_and_round_trips_are_counted(store):
    store.put("1.1", b"x" * 10_000)
    store.get(["1.1"])
    counters = store.counters
    assert counters.round_trips >= 2
    assert counters.bytes_sent >= 10_000
    assert counters.bytes_received >= 10_000


def test_jobs_do_not_see_each_other_and_values_expire(embedded_url):
    job = new_job()
    one, two = open_values(embedded_url, job, ttl=1000), open_values(embedded_url, new_job())
    one.put("1.1", b"x")
    assert two.get(["1.1"]) == [None]
    (key,) = one.link.call(b"", b"KEYS", b"*%b*" % job.encode())
    assert 900 < one.link.call(key, b"TTL", key) <= 1000
    one.clear()
    assert one.link.call(b"", b"KEYS", b"*%b*" % job.encode()) == []
    one.close()
    two.close()


def test_a_value_beyond_the_limit_is_refused_before_anything_is_sent(embedded_url):
    store = open_values(embedded_url, new_job())
    store._limit = 1000
    sent = store.counters.bytes_sent
    with pytest.raises(ValueTooLarge, match=r"1\.1 has 1001 bytes.*at most 1000"):
        store.put("1.1", [b"x" * 1000, b"y"])
    assert store.counters.bytes_sent == sent


def test_tiers_are_chosen_by_size_and_say_why():
    heap, remote = HeapValueStore(), HeapValueStore()
    store = TieredValueStore([Tier("heap", heap, 1000), Tier("redis", remote, 5000)], Thresholds())
    assert store.place(100) == Placement("inline", "100 bytes <= 100: sent with its record it saves a round trip")
    assert store.place(101).tier == "heap"
    assert store.place(1001).tier == "redis"
    assert "more than heap takes (1000)" in store.place(1001).reason
    with pytest.raises(ValueTooLarge, match="heap 1000, redis 5000"):
        store.place(5001)
    store.put("small", b"x" * 500)
    store.put("large", b"x" * 2000)
    assert heap.get(["small", "large"]) == [b"x" * 500, None]
    assert remote.get(["small", "large"]) == [None, b"x" * 2000]
