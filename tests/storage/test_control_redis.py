"""What only a control store behind a link can get wrong: keys, expiry, scripts, connections, errors."""

import os
import threading

import pytest

from wukong.errors import ConfigError, StoreError, StoreUnavailable
from wukong.ids import new_job
from wukong.protocol import messages as m
from wukong.storage.address import parse
from wukong.storage.link import Link
from wukong.storage.open import connect, open_control
from wukong.storage.server import EmbeddedServer

LEASE = 10.0
WIDTH = 40


@pytest.fixture
def store(embedded_url):
    store = open_control(embedded_url, ttl=1000)
    yield store
    store.close()


def open_job(store, job, *tasks):
    root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), tuple(m.Edge(task, 1) for task in tasks))
    return store.apply(job, 0, m.Arrive("client", 1, LEASE, (root,)))


def arrive_at_wide_child(store, job, count=WIDTH - 1):
    outcomes = tuple(m.Outcome(100 + i, 1, m.Value(m.INLINE, 1, b"x"), (m.Edge(5, WIDTH),)) for i in range(count))
    store.apply(job, 0, m.Arrive("a", 1, LEASE, outcomes))


def keys_of(store, job):
    return store.link.call(b"", b"KEYS", b"*%b*" % job.encode())


def test_every_key_of_a_job_expires_and_a_sweep_puts_it_off(store):
    job = new_job()
    open_job(store, job, 0, 1)
    arrive_at_wide_child(store, job)
    store.apply(job, 0, m.Cancel(m.CANCELLED, b""))
    keys = keys_of(store, job)
    assert len(keys) == 7
    for key in keys:
        assert 900 < store.link.call(key, b"TTL", key) <= 1000
    job = new_job()
    open_job(store, job, 0)
    key = b"wk:{%b/0}:records" % job.encode()
    store.link.call(key, b"EXPIRE", key, b"10")
    store.apply(job, 0, m.Sweep(1.0))
    assert store.link.call(key, b"TTL", key) > 900


def test_a_released_job_leaves_no_key(store):
    job = new_job()
    open_job(store, job, 0, 1)
    arrive_at_wide_child(store, job)
    store.apply(job, 0, m.Cancel(m.CANCELLED, b""))
    store.apply(job, 0, m.Release("a", 2, LEASE, everything=True))
    assert keys_of(store, job) == []


def test_the_edges_of_a_complete_task_are_removed(store):
    job = new_job()
    open_job(store, job, 0)
    arrive_at_wide_child(store, job, WIDTH)
    assert not [key for key in keys_of(store, job) if b":wide" in key]


def test_a_server_that_has_forgotten_the_script_is_sent_it_again(store):
    job = new_job()
    open_job(store, job, 0)
    store.link.call(b"", b"SCRIPT", b"FLUSH")
    assert store.apply(job, 0, m.Probe((0,))).status == m.RUNNING


def test_a_broken_connection_is_replaced_and_the_request_sent_again(store):
    job = new_job()
    open_job(store, job, 0)
    other = Link(store.link.address)
    other.call(b"", b"CLIENT", b"KILL", b"TYPE", b"normal", b"SKIPME", b"yes")
    other.close()
    assert store.apply(job, 0, m.Claim("a", 1, LEASE, ((0, ()),))).body == (m.Grant(0, 1),)


def test_a_thread_that_ends_leaves_no_connection():
    with EmbeddedServer() as server:
        store = open_control(server.url)
        for _ in range(5):
            thread = threading.Thread(target=store.link.call, args=(b"", b"PING"))
            thread.start()
            thread.join(10.0)
        clients = store.link.call(b"", b"CLIENT", b"LIST").strip().split(b"\n")
        assert len(clients) == 1
        assert store.counters.round_trips == 6
        store.close()


def test_a_forked_child_has_connections_of_its_own(store):
    job = new_job()
    open_job(store, job, 0, 1)
    child = os.fork()
    if child == 0:
        reply = store.apply(job, 0, m.Claim("child", 1, LEASE, ((1, ()),)))
        os._exit(0 if reply.body == (m.Grant(1, 1),) else 1)
    assert store.apply(job, 0, m.Claim("a", 1, LEASE, ((0, ()),))).body == (m.Grant(0, 1),)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    (one,) = store.apply(job, 0, m.Probe((1,))).body
    assert one.owner == "child"


def test_a_server_out_of_memory_refuses_a_request_whole():
    with EmbeddedServer(options=("--maxmemory-policy", "noeviction")) as server:
        store = open_control(server.url)
        job = new_job()
        open_job(store, job, 0)
        store.apply(job, 0, m.Claim("a", 1, LEASE, ((0, ()),)))
        store.link.call(b"", b"CONFIG", b"SET", b"maxmemory", b"1")
        outcome = m.Outcome(0, 1, m.Value(m.INLINE, 1, b"x"), (m.Edge(1, 1),))
        commit = m.Commit("a", 2, LEASE, (outcome,))
        with pytest.raises(StoreError, match=r"the store unix://.* is full: OOM"):
            store.apply(job, 0, commit)
        store.link.call(b"", b"CONFIG", b"SET", b"maxmemory", b"0")
        assert [state.state for state in store.apply(job, 0, m.Probe((0, 1))).body] == [2, 0]
        assert store.apply(job, 0, commit).body == (m.Settlement(m.OK, (), (1,)),)
        store.close()


def test_nobody_at_the_address_is_an_error_that_names_it_without_credentials(tmp_path):
    for url in ("redis://ada:secret@127.0.0.1:1/0", f"unix://:secret@{tmp_path}/none"):
        store = open_control(url)
        with pytest.raises(StoreUnavailable) as caught:
            store.apply("j", 0, m.Probe(()))
        assert str(parse(url)) in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_wrong_password_is_an_error_that_does_not_repeat_it(tcp_url):
    store = open_control(tcp_url.replace("//", "//ada:secret@"))
    with pytest.raises(StoreUnavailable, match="WRONGPASS") as caught:
        store.apply("j", 0, m.Probe(()))
    assert "secret" not in str(caught.value)


def test_credentials_and_database_are_used():
    with EmbeddedServer() as server:
        link = connect(server.url)
        link.call(b"", b"CONFIG", b"SET", b"requirepass", b"secret")
        link.close()
        link = connect(server.url.replace("//", "//:secret@") + "?db=3")
        link.call(b"x", b"SET", b"x", b"1")
        assert b"db3:keys=1" in link.call(b"", b"INFO", b"keyspace")
        link.close()


def test_a_silent_server_is_given_up_after_the_timeout(embedded_url):
    link = connect(embedded_url, timeout=0.1)
    with pytest.raises(StoreUnavailable, match="gave no answer"):
        link.call(b"", b"BLPOP", b"nothing", b"5")
    link.close()


def test_a_cluster_is_found_by_any_node_that_lives_and_followed_when_its_slots_move(cluster_url):
    store = open_control(cluster_url.replace("//", "//127.0.0.1:1,"), shards=8)
    job = new_job()
    root = m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), (m.Edge(0, 1),))
    for shard in range(8):
        assert store.apply(job, shard, m.Arrive("client", 1, LEASE, (root,))).status == m.RUNNING
    nodes = set(store.link._slots.values())
    assert len(nodes) > 1
    for slot, node in store.link._slots.items():
        store.link._slots[slot] = next(other for other in nodes if other != node)
    for shard in range(8):
        assert store.apply(job, shard, m.Probe((0,))).body[0].state == 1
        store.apply(job, shard, m.Release("client", 2, LEASE, everything=True))
    store.close()


@pytest.mark.parametrize(
    "url", ["memcached://h", "redis://", "unix://", "redis+sentinel://h", "redis://u:secret@h/x", "redis://h,i", "x"]
)
def test_a_url_of_no_known_form_is_refused_with_those_that_are(url):
    with pytest.raises(ConfigError, match=r"redis\+cluster://") as caught:
        open_control(url)
    assert "secret" not in str(caught.value)


def test_addresses_keep_credentials_out_of_sight():
    address = parse("rediss+cluster://ada:s%40fe@a:1,b?ssl_cert_reqs=none")
    assert address.nodes == (("a", 1), ("b", 6379))
    assert (address.username, address.password, address.tls, address.verify) == ("ada", "s@fe", True, False)
    assert str(address) == "rediss+cluster://a:1,b:6379"
    assert "s@fe" not in repr(address)


def test_the_embedded_server_ends_with_its_link():
    link = connect("embedded")
    assert link.call(b"", b"PING") == b"PONG"
    directory = link.server.directory
    link.close()
    assert not os.path.exists(directory)
