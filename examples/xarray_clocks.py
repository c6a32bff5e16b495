"""The climate of the world's clocks: by how much each time zone's month is ahead of its standard time, by xarray.

    python examples/xarray_clocks.py [YEARS]

The data is the time zone database: the offset from UTC of every zone, at noon of each day of YEARS (50) years from
1970 on, is a labelled array of zones and days in blocks of zones. Its mean over all months of one name, less the year's
least, shows summer time: in July in the north, in January in the south. Held against plain NumPy.
Needs ``pip install 'wukong[demo]'``.
"""

import sys
from importlib.resources import files

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from timing import by_wukong_and_dask, timed

from wukong.diagnostics.summary import size

SHOWN = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney", "America/Santiago")


def offsets(zones: np.ndarray, days: pd.DatetimeIndex) -> np.ndarray:
    """Return hours ahead of UTC: (zones, days)."""
    local = (days.tz_convert(zone).tz_localize(None) for zone in zones)
    return np.array([(each - days.tz_localize(None)) / pd.Timedelta("1h") for each in local], dtype=np.float32)


def main(years: int = 50) -> None:
    """Group, average, check, and say what the run was like."""
    names = files("tzdata").joinpath("zones").read_text().split()
    zones = np.array(sorted(name for name in names if "/" in name and not name.startswith("Etc/")))
    days = pd.date_range("1970-01-01 12:00", f"{1970 + years - 1}-12-31 12:00", freq="D", tz="UTC")
    print(f"Clocks of {len(zones)} zones on {len(days):,} days, {size(len(zones) * len(days) * 4)}")

    blocks = da.from_array(zones, chunks=24)
    hours = da.map_blocks(offsets, blocks, days, dtype=np.float32, new_axis=1, chunks=(blocks.chunks[0], (len(days),)))
    clocks = xr.DataArray(
        hours, {"zone": zones, "time": days.tz_localize(None)}, ("zone", "time"), "hours ahead of UTC"
    )
    months = clocks.groupby("time.month").mean()
    (found,) = by_wukong_and_dask(months - months.min("month"))

    with timed("NumPy"):
        plain = offsets(zones, days).astype(float)
        means = np.stack([plain[:, days.month == month].mean(axis=1) for month in range(1, 13)], axis=1)
        expected = means - means.min(axis=1, keepdims=True)
    # Hours are quarters, exact in single precision; their means are not.
    np.testing.assert_allclose(found.transpose("zone", "month"), expected, rtol=0, atol=1e-4)
    print(f"{'checked':<12} the means are NumPy's")
    print(f"{'found':<12} hours ahead of the least of the year, by month:\n")
    print(found.sel(zone=list(SHOWN)).to_pandas().round(1).to_string())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
