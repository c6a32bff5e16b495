"""Jobs without memory, disk or descriptors: right, or a typed error in bounded time, and nothing left."""

import pytest

from tests.faults import memory

pytestmark = pytest.mark.timeout(110)


def test_jobs_without_memory_disk_or_descriptors_are_right_or_end_with_a_typed_error_and_leave_nothing() -> None:
    found = {row.fault: row for row in memory.rows(1)}
    for row in found.values():
        assert row.injected == 1
        assert (row.wrong, row.hangs, row.leftovers) == (0, 0, 0), row
    ends = {fault: row.last.split(":")[0].strip() for fault, row in found.items()}
    assert ends == {
        "memory limit of 8 MB, values go to disk": "right",
        "no block of memory is given (RLIMIT_FSIZE)": "error MemoryLimitReached",
        "memory limit of 8 MB, disk full": "error MemoryLimitReached",
        "no descriptor left (RLIMIT_NOFILE)": "error MemoryLimitReached",
        "store full, values go to disk": "right",
        "store full, disk full": "error StoreFull",
    }
