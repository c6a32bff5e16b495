"""What people call: the functions of a Dask scheduler, and the client with its futures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from wukong.client.functions import compute, get, last_run, persist

if TYPE_CHECKING:
    from wukong.client.client import Client
    from wukong.client.current import get_client

__all__ = ["Client", "compute", "get", "get_client", "last_run", "persist"]

_HOMES = {"Client": "wukong.client.client", "get_client": "wukong.client.current"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'wukong.client' has no attribute {name!r}")
