"""Messages and descriptors between two ends."""

import gc
import os
import threading

import pytest

from wukong.storage import channel
from wukong.storage.channel import DESCRIPTORS, PACKET, Channel


@pytest.fixture
def ends():
    one, other = (Channel(sock) for sock in channel.pair())
    yield one, other
    one.close()
    other.close()


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [0, 10, PACKET - 100, PACKET, PACKET + 1, 3 << 20])
def test_messages_of_every_size_arrive_as_they_were(ends, size):
    one, other = ends
    thread = threading.Thread(target=one.send, args=(("op", bytes(size), {"n": size}),))
    thread.start()
    message, fds = other.receive()
    thread.join(10)
    assert message == ("op", bytes(size), {"n": size})
    assert fds == []


@pytest.mark.parametrize("count", [1, DESCRIPTORS - 1, DESCRIPTORS, 2 * DESCRIPTORS + 1])
@pytest.mark.parametrize("size", [10, PACKET + 1])
def test_descriptors_arrive_in_order_with_their_message_and_stay_open_here(ends, count, size):
    one, other = ends
    before = descriptors()
    mine = [os.memfd_create(str(i)) for i in range(count)]
    one.send(("before",))
    one.send(("op", bytes(size)), mine)
    one.send(("after",))
    assert other.receive() == (("before",), [])
    message, theirs = other.receive()
    assert len(message[1]) == size
    assert other.receive() == (("after",), [])
    assert [os.fstat(fd).st_ino for fd in theirs] == [os.fstat(fd).st_ino for fd in mine]
    assert not any(os.get_inheritable(fd) for fd in theirs)
    for fd in (*mine, *theirs):
        os.close(fd)
    assert descriptors() == before


def test_what_a_closed_end_sent_is_received_before_the_end_is(ends):
    one, other = ends
    other.send(("never read",))
    one.send(("last words",))
    one.close()
    assert other.receive() == (("last words",), [])
    with pytest.raises(EOFError):
        other.receive()


def test_sending_to_a_closed_end_is_refused(ends):
    one, other = ends
    other.close()
    with pytest.raises(OSError):  # noqa: PT011 - which one is the kernel's choice
        one.send(("op",))


def test_an_end_that_does_not_block_keeps_what_finds_no_room_and_its_descriptors(ends):
    one, other = ends
    one._socket.setblocking(False)
    before = descriptors()
    sent = 0
    while not one.unsent:
        one.send((sent, bytes(50_000)))
        sent += 1
    memory = os.memfd_create("kept")
    inode = os.fstat(memory).st_ino
    one.send((sent,), [memory])
    os.close(memory)
    received = 0
    while received <= sent:
        message, fds = other.receive()
        assert message[0] == received
        received += 1
        one.flush()
    assert os.fstat(fds[0]).st_ino == inode
    os.close(fds[0])
    assert one.flush()
    assert descriptors() == before


def test_an_end_that_does_not_block_says_when_nothing_is_there(ends):
    one, _ = ends
    one._socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.receive()


def test_what_cannot_be_pickled_is_refused_and_sends_nothing(ends):
    one, other = ends
    with pytest.raises(TypeError):
        one.send(("op", threading.Lock()))
    one.send(("next",))
    assert other.receive() == (("next",), [])


def test_messages_of_many_threads_stay_whole(ends):
    one, other = ends
    memory = os.memfd_create("shared")

    def talk(who):
        for i in range(20):
            one.send((who, i, bytes(200_000 if i % 5 == 0 else 10)), [memory] * (300 if i % 7 == 0 else 1))

    threads = [threading.Thread(target=talk, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    seen = {}
    for _ in range(80):
        (who, i, body), fds = other.receive()
        assert seen.setdefault(who, 0) == i
        seen[who] += 1
        assert len(body) == (200_000 if i % 5 == 0 else 10)
        assert len(fds) == (300 if i % 7 == 0 else 1)
        for fd in fds:
            os.close(fd)
    for thread in threads:
        thread.join(10)
    os.close(memory)
