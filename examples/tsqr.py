"""The trend of a landscape by least squares, through a QR factorisation of a tall and skinny matrix (TSQR).

    python examples/tsqr.py [DEGREE]

The landscape is the elevation model of the Jacksboro fault in Tennessee that comes with Matplotlib: 344 x 403 heights.
A surface of Chebyshev polynomials up to DEGREE (11) in both directions is fitted to it. Each block of rows is factored
by itself, and the small triangles on top of each other once more; Q is never put together. The triangle and the fit are
held against NumPy's of the whole matrix. Needs ``pip install 'wukong[demo]'``.
"""

import sys

import dask.array as da
import numpy as np
from matplotlib.cbook import get_sample_data
from numpy.polynomial.chebyshev import chebvander2d
from timing import by_wukong_and_dask, timed

from wukong.diagnostics.summary import size


def design(places: np.ndarray, degree: int) -> np.ndarray:
    """Return the polynomials at places: (n, 2) in [-1, 1] gives (n, (degree + 1)**2)."""
    return chebvander2d(places[:, 0], places[:, 1], [degree, degree])


def main(degree: int = 11) -> None:
    """Fit, check, and say what the run was like."""
    heights = get_sample_data("jacksboro_fault_dem.npz")["elevation"].astype(float)
    across, down = (np.linspace(-1, 1, n) for n in heights.shape)
    places = np.stack(np.meshgrid(across, down, indexing="ij"), axis=-1).reshape(-1, 2)
    z = heights.ravel()
    terms = (degree + 1) ** 2
    print(f"TSQR of {len(z):,} places x {terms} polynomials, {size(len(z) * terms * 8)}")

    rows = -(-len(z) // 16)
    blocks = da.from_array(places, chunks=(rows, 2))
    x = blocks.map_blocks(design, degree, chunks=(blocks.chunks[0], (terms,)), dtype=float)
    q, r = da.linalg.tsqr(x)
    triangle, projected = by_wukong_and_dask(r, q.T @ da.from_array(z, chunks=rows))
    coefficients = np.linalg.solve(triangle, projected)

    matrix = design(places, degree)
    with timed("NumPy"):
        whole_q, whole_r = np.linalg.qr(matrix)
        expected = np.linalg.solve(whole_r, whole_q.T @ z)
    # QR is unique but for the signs of the rows of R.
    triangle, whole_r = (each * np.sign(each.diagonal())[:, None] for each in (triangle, whole_r))
    tolerance = 1e-11 * np.linalg.norm(matrix)
    assert np.abs(triangle - whole_r).max() < tolerance, "the triangle differs from NumPy's"
    assert np.abs(matrix @ (coefficients - expected)).max() < 1e-6, "the surface differs from NumPy's by over a micron"

    left = z - matrix @ coefficients
    print(f"{'checked':<12} the triangle and the surface are NumPy's")
    print(f"{'found':<12} the surface explains {1 - left.var() / z.var():.1%} of the heights' variance")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
