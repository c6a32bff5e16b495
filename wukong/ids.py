"""Names that nobody else will ever give: jobs and executors.

A nonce names one entry into an executor, so a retried invocation is a new executor. What both begin with comes from the
operating system's random source: they stay distinct after a fork and across machines.
"""

import os
import secrets
from itertools import count

# One system call for a process, not for each executor: nonces are told apart, not kept secret.
_process = secrets.token_hex(8)
_count = count()


def new_nonce() -> str:
    """Return a name for one executor: 16 hexadecimal digits that name this process, and a number."""
    return f"{_process}{next(_count):x}"


def new_job() -> str:
    """Return a name for one job: ``j`` and 16 hexadecimal digits, usable in any store's key."""
    return "j" + secrets.token_hex(8)


def _forget() -> None:
    global _process
    _process = secrets.token_hex(8)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
