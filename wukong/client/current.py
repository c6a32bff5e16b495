"""Which client is current: the one that Dask computes with, and that `get_client` finds. Clients may be nested.

While one is current, Dask's configuration has its `get` as scheduler, and dataframes are shuffled by tasks where tasks
may run in several processes. The current one is kept alive here; those under it are not.
"""

import weakref
from functools import cache
from threading import RLock
from typing import TYPE_CHECKING, Any

from dask import config as dask_config

from wukong.errors import ConfigError
from wukong.platforms.local.packs import in_worker
from wukong.scheduler.futures.lanes import here

if TYPE_CHECKING:
    from wukong.client.client import Client

_lock = RLock()
_stack: list["weakref.ref[Client]"] = []
_top: "Client | None" = None
_undo: Any = None


def enter(client: "Client") -> None:
    """Make a client the current one."""
    with _lock:
        _stack.append(weakref.ref(client))
        _install()


def leave(client: "Client") -> None:
    """Make the client current that was before this one, if this one is."""
    with _lock:
        _stack[:] = [ref for ref in _stack if ref() not in (client, None)]
        _install()


def _install() -> None:
    """See to it that Dask's configuration is what the top of the stack wants."""
    global _top, _undo
    top = next((client for ref in reversed(_stack) if (client := ref()) is not None and not client.closed), None)
    if top is _top:
        return
    if _undo is not None:
        _undo.__exit__(None, None, None)
    _top = top
    _undo = None if top is None else dask_config.set(top.dask_settings())


@cache
def _of_worker() -> "Client":
    from wukong.client.client import Client

    return Client(set_as_default=False)


def current() -> "Client | None":
    """Return the client whose call runs in this thread, else the current one, else None."""
    call = here.call
    if call is not None and (owner := call.engine.owner()) is not None:
        found: Client = owner
        return found
    return _top


def get_client() -> "Client":
    """Return the client whose call runs in this thread, or else the current one.

    In a worker process it is one that runs calls in that process: tasks do not start others elsewhere.

    Raises
    ------
    ConfigError
        If there is none.
    """
    client = current() or (_of_worker() if in_worker() else None)
    if client is None:
        raise ConfigError("there is no client here; make one: wukong.Client()")
    return client
