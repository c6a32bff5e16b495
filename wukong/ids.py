"""Names that nobody else will ever give: jobs and executors.

A nonce names one entry into an executor, so a retried invocation is a new executor. Both kinds come from the
operating system's random source: they stay distinct after a fork and across machines.
"""

import secrets


def new_nonce() -> str:
    """Return a name for one executor: 16 hexadecimal digits."""
    return secrets.token_hex(8)


def new_job() -> str:
    """Return a name for one job: ``j`` and 16 hexadecimal digits, usable in any store's key."""
    return "j" + secrets.token_hex(8)
