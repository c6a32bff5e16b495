"""A photograph from its leading singular vectors: a compressed SVD, run by Wukong.

    python examples/photograph.py [DIRECTORY [STEP]]

Writes the picture at several ranks, a contact sheet of them, and the singular values to DIRECTORY (out/demo). With STEP
2, only every second row and column of the photograph is looked at. The result is held against NumPy's full SVD: no
picture may be more than 1 % further from the photograph than the best one of its rank.
Needs ``pip install 'wukong[demo]'``.
"""

import sys
from pathlib import Path

import dask.array as da
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image
from timing import by_wukong_and_dask, timed

RANKS = (2, 8, 24, 64, 128)
INK, FAINT, ACCENT = "#22272e", "#b4bcc4", "#c2410c"

plt.rcParams.update(
    {
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": INK,
        "ytick.color": INK,
        "savefig.facecolor": "white",
    }
)


def main(directory: Path, step: int = 1) -> None:
    """Compute, check, draw, and say what the run was like."""
    photograph = load_sample_image("china.jpg")[::step, ::step] / 255
    height, width, colours = photograph.shape
    matrix = photograph.reshape(height, width * colours)

    x = da.from_array(matrix, chunks=(108, 480))
    u, s, v = da.linalg.svd_compressed(x, k=max(RANKS), iterator="QR", n_power_iter=2, n_oversamples=72, seed=0)
    approximations = [(u[:, :rank] * s[:rank]) @ v[:rank] for rank in RANKS]
    print(f"Compressed SVD of a photograph, {height} x {width} x {colours}")
    values, *found = by_wukong_and_dask(s, *approximations)

    with timed("NumPy, whole"):
        best = np.linalg.svd(matrix, full_matrices=False)[1]
    length = np.linalg.norm(best)
    errors = []
    for rank, approximation in zip(RANKS, found, strict=True):
        error, least = np.linalg.norm(matrix - approximation), np.linalg.norm(best[rank:])
        assert error < 1.01 * least, f"rank {rank}: the error is {error:.4g}, but {least:.4g} is possible"
        errors.append(error / length)
    assert np.allclose(values, best[: len(values)], rtol=1e-2), "a singular value is off by more than 1 %"

    directory.mkdir(parents=True, exist_ok=True)
    pictures = [np.clip(approximation.reshape(photograph.shape), 0, 1) for approximation in found]
    for rank, picture in zip(RANKS, pictures, strict=True):
        plt.imsave(directory / f"rank-{rank:03}.png", picture)
    titles = [
        f"rank {rank}: {rank * (sum(matrix.shape) + 1) / matrix.size:.1%} of the numbers, error {error:.1%}"
        for rank, error in zip(RANKS, errors, strict=True)
    ]
    draw_sheet(directory / "ranks.png", [*pictures, photograph], [*titles, "the photograph"])
    draw_values(directory / "singular-values.png", values, best)

    print(f"{'checked':<12} as close to the photograph as NumPy's within 1 %")
    for path in [*sorted(directory.glob("rank*.png")), directory / "singular-values.png"]:
        print(f"{'wrote':<12} {path}")


def draw_sheet(path: Path, pictures: list[np.ndarray], titles: list[str]) -> None:
    """Draw pictures in three columns, each under its title."""
    rows = -(-len(pictures) // 3)
    figure, axes = plt.subplots(rows, 3, figsize=(15, 3.75 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, picture, title in zip(axes.flat, pictures, titles, strict=False):
        axis.imshow(picture, interpolation="lanczos")
        axis.set_title(title, loc="left", pad=6)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_values(path: Path, values: np.ndarray, best: np.ndarray) -> None:
    """Draw the singular values found over all there are."""
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axis.loglog(np.arange(1, len(best) + 1), best, color=FAINT, lw=4.5, solid_capstyle="round", label="NumPy, all")
    axis.loglog(np.arange(1, len(values) + 1), values, color=ACCENT, lw=1.6, label=f"compressed, first {len(values)}")
    for rank in RANKS:
        axis.plot(rank, values[rank - 1], "o", color=ACCENT, ms=6, mec="white")
        axis.annotate(f"rank {rank}", (rank, values[rank - 1]), (6, 6), textcoords="offset points")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xlabel("number")
    axis.set_ylabel("singular value")
    axis.set_title("Singular values of the photograph", loc="left")
    axis.legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1] if sys.argv[1:] else "out/demo"), *map(int, sys.argv[2:]))
