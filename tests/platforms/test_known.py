"""Books that both ends keep without a word between them."""

from hypothesis import given
from hypothesis import strategies as st

from wukong.platforms.local.known import Known, Parcel


@given(st.lists(st.integers(1, 30)), st.integers(1, 60))
def test_the_receiver_has_whatever_the_sender_does_not_send(things, most):
    sender, receiver = Known(most), Known(most)
    for thing in things:
        parcel = Parcel(b"%d" % thing, bytes([thing]) * thing)
        digest, frame = sender.send(parcel)
        assert receiver.receive(digest, frame) == parcel.frame
        assert digest in receiver


def test_it_is_sent_once():
    sender = Known()
    assert sender.send(Parcel(b"a", b"frame")) == (b"a", b"frame")
    assert sender.send(Parcel(b"a", b"frame")) == (b"a", b"")
