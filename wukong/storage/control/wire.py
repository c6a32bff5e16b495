"""Requests and replies of the control store as MessagePack, for the Lua to read and write. No I/O.

Both are flat arrays: making small tables is what takes a server's time (see control.lua). What the Lua never looks into
is packed once more, so that it can keep it and give it back as it is: a value is (attempt, kind, nbytes, body), in
bytes. `cmsgpack` knows one kind of string, that of MessagePack before it had two.
"""

from collections.abc import Iterable
from typing import Any

from msgpack import Packer, packb, unpackb

from wukong.protocol import messages as m

_PROBE, _ARRIVE, _CLAIM, _COMMIT, _RENEW, _SWEEP, _CANCEL, _RELEASE = range(8)
_NOTHING = m.Settlement(m.OK)

Flat = tuple[Any, ...]


def encode(request: m.Request) -> bytes:
    """Pack a request."""
    match request:
        case m.Commit(nonce, seq, lease, outcomes):
            flat = [_COMMIT, nonce, seq, lease, len(outcomes)]
            _add_outcomes(flat, outcomes, nonce)
        case m.Claim(nonce, seq, lease, tasks):
            flat = [_CLAIM, nonce, seq, lease, len(tasks)]
            for task, wanted in tasks:
                flat += (task, len(wanted), *wanted)
        case m.Probe(tasks):
            flat = [_PROBE, *tasks]
        case m.Arrive(nonce, seq, lease, outcomes):
            flat = [_ARRIVE, nonce, seq, lease, len(outcomes)]
            _add_outcomes(flat, outcomes, nonce)
        case m.Release(nonce, seq, lease, tasks, uses, everything, epoch):
            flat = [_RELEASE, nonce, seq, lease, everything, epoch, len(tasks), *tasks]
            for use in uses:
                flat += use
        case m.Renew(nonce, lease):
            flat = [_RENEW, nonce, lease]
        case m.Sweep(patience, dead, late):
            flat = [_SWEEP, patience, len(dead), *dead, *late]
        case m.Cancel(status, reason):
            flat = [_CANCEL, status, reason]
    return bytes(packb(flat, use_bin_type=False))


def _add_outcomes(flat: list[Any], outcomes: Iterable[m.Outcome], nonce: str) -> None:
    pack = Packer().pack
    for task, attempt, (kind, nbytes, body), edges, claims, hold, inputs, settled in outcomes:
        value = pack((attempt, kind, nbytes, nonce if kind == m.HELD else body))
        flat += (task, attempt, kind, value, claims, hold, settled, len(inputs), len(edges))
        for use in inputs:
            flat += use
        for child, indegree, wanted in edges:
            if wanted is None:
                flat += (child, indegree, -1)
            else:
                flat += (child, indegree, len(wanted))
                flat += wanted


def decode(request: m.Request, packed: bytes) -> m.Reply:
    """Unpack the reply to `request`."""
    flat: Flat = unpackb(packed, raw=True, use_list=False, strict_map_key=False)
    status, reason = flat[:2]
    body: Flat = ()
    if len(flat) > 2:
        match request:
            case m.Commit() | m.Arrive():
                body = _settlements(flat, len(request.outcomes))
            case m.Claim():
                body = _grants(flat)
            case m.Probe():
                body = tuple([_state(*flat[at : at + 4]) for at in range(2, len(flat), 4)])
            case m.Sweep():
                body = tuple(flat[2]), tuple(flat[3])
            case m.Release():
                body = _pairs(flat, 2, len(flat))
    return m.Reply(status, reason, body)


def _settlements(flat: Flat, count: int) -> Flat:
    body = []
    at = 2
    for _ in range(count):
        verdict, children, freed = flat[at : at + 3]
        at += 3
        if not (verdict or children or freed):
            body.append(_NOTHING)
            continue
        granted, ready = [], []
        for _ in range(children):
            task, attempt = flat[at : at + 2]
            at += 2
            if attempt:
                inputs, at = _inputs(flat, at)
                granted.append(m.Grant(task, attempt, inputs))
            else:
                ready.append(task)
        end = at + 2 * freed
        body.append(m.Settlement(verdict, tuple(granted), tuple(ready), _pairs(flat, at, end)))
        at = end
    return tuple(body)


def _grants(flat: Flat) -> Flat:
    body = []
    at = 2
    while at < len(flat):
        task, attempt, committed = flat[at : at + 3]
        inputs, at = _inputs(flat, at + 3)
        body.append(m.Grant(task, attempt, inputs, _value(committed)))
    return tuple(body)


def _inputs(flat: Flat, at: int) -> tuple[tuple[m.Input, ...], int]:
    end = at + 1 + 2 * flat[at]
    return tuple([_input(flat[i], flat[i + 1]) for i in range(at + 1, end, 2)]), end


def _input(task: int, packed: bytes) -> m.Input:
    attempt, kind, nbytes, body = unpackb(packed)
    return m.Input(task, attempt, m.Value(kind, nbytes, body))


def _value(packed: bytes | bool) -> m.Value | None:
    return m.Value(*unpackb(packed)[1:]) if packed else None


def _state(state: int, attempt: int, owner: bytes, packed: bytes | bool) -> m.State:
    return m.State(state, attempt, owner.decode(), _value(packed))


def _pairs(flat: Flat, start: int, end: int) -> tuple[tuple[int, int], ...]:
    return tuple([(flat[i], flat[i + 1]) for i in range(start, end, 2)])
