import pytest

from wukong.errors import ConfigError
from wukong.sizes import parse_bytes


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [(None, None), (5, 5), (2.5e3, 2500), ("10", 10), ("500e6", 500_000_000), ("4GB", 4 * 10**9), ("4 gib", 4 * 2**30)],
)
def test_sizes_are_read_as_people_write_them(size, nbytes):
    assert parse_bytes(size) == nbytes


@pytest.mark.parametrize("size", ["much", "", "4 XB", "-1", 0, -3, True, [], float("nan"), float("inf"), "1.2.3"])
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ConfigError, match="memory_limit="):
        parse_bytes(size)
