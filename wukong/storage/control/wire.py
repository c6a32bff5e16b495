"""Requests and replies of the control store as MessagePack, for the Lua to read and write. No I/O.

What the Lua never looks into it gets packed once more, so that it can keep it and give it back as it is: a value is
(attempt, kind, nbytes, body), in bytes. `cmsgpack` knows one kind of string, that of MessagePack before it had two.
"""

from collections.abc import Iterable
from typing import Any

from msgpack import Packer, packb, unpackb

from wukong.protocol import messages as m

_CODES: dict[type, int] = {
    m.Probe: 0,
    m.Arrive: 1,
    m.Claim: 2,
    m.Commit: 3,
    m.Renew: 4,
    m.Sweep: 5,
    m.Cancel: 6,
    m.Release: 7,
}
_NOTHING = m.Settlement(m.OK)


def encode(request: m.Request) -> bytes:
    """Pack a request."""
    code = _CODES[type(request)]
    if isinstance(request, m.Commit | m.Arrive):
        nonce, seq, lease, outcomes = request
        return bytes(packb((code, nonce, seq, lease, _outcomes(outcomes, nonce)), use_bin_type=False))
    return bytes(packb((code, *request), use_bin_type=False))


def _outcomes(outcomes: Iterable[m.Outcome], nonce: str) -> list[tuple[Any, ...]]:
    pack = Packer().pack
    packed = []
    for task, attempt, (kind, nbytes, body), edges, claims, hold, inputs, settled in outcomes:
        value = pack((attempt, kind, nbytes, nonce if kind == m.HELD else body))
        packed.append((task, attempt, kind, value, edges, claims, hold, inputs, settled))
    return packed


def decode(request: m.Request, packed: bytes) -> m.Reply:
    """Unpack the reply to `request`."""
    status, reason, body = unpackb(packed, raw=True, use_list=False, strict_map_key=False)
    if not body:
        return m.Reply(status, reason, ())
    if isinstance(request, m.Commit | m.Arrive):
        body = tuple([_settlement(*x) for x in body])
    elif isinstance(request, m.Claim):
        body = tuple([_grant(*x) for x in body])
    elif isinstance(request, m.Probe):
        body = tuple([_state(*x) for x in body])
    elif isinstance(request, m.Sweep):
        body = tuple([tuple(x) for x in body])
    return m.Reply(status, reason, body)


def _settlement(
    verdict: int, granted: tuple[Any, ...] = (), ready: tuple[int, ...] = (), freed: tuple[Any, ...] = ()
) -> m.Settlement:
    if not (verdict or granted or ready or freed):
        return _NOTHING
    return m.Settlement(verdict, tuple([_grant(*x) for x in granted]), tuple(ready), tuple(freed))


def _grant(task: int, attempt: int, inputs: tuple[Any, ...] = (), committed: bytes | None = None) -> m.Grant:
    return m.Grant(
        task,
        attempt,
        tuple([_input(inputs[i], inputs[i + 1]) for i in range(0, len(inputs), 2)]) if inputs else (),
        None if committed is None else _value(committed),
    )


def _input(task: int, packed: bytes) -> m.Input:
    attempt, kind, nbytes, body = unpackb(packed)
    return m.Input(task, attempt, m.Value(kind, nbytes, body))


def _value(packed: bytes) -> m.Value:
    _, kind, nbytes, body = unpackb(packed)
    return m.Value(kind, nbytes, body)


def _state(state: int, attempt: int, owner: bytes, packed: bytes | None = None) -> m.State:
    return m.State(state, attempt, owner.decode(), None if packed is None else _value(packed))
