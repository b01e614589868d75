"""Whether a replay returns what the plain function returns: `fg.compile(f, verify=k)`."""

import numpy as np

from fastgrad._core import core, trees

__all__ = ["compare", "difference"]

Tensor = core.Tensor


def compare(name, path, replay, answer, plain):
    """Complain unless the plain function has returned the same."""
    try:
        expected = trees.flatten_like(trees.flatten(answer)[1], plain)
    except ValueError as error:
        raise RuntimeError(f"{name}: verify: a replay differs from the function: {error}") from None
    for (where, got), wanted in zip(trees.leaves_with_paths(answer), expected):
        wrong = difference(got, wanted)
        if wrong:
            raise RuntimeError(
                f"{name}: verify: replay {replay} of the path {path.signature} differs from the "
                f"function in the result{where}: {wrong}. What the function depends on besides its "
                "arguments must be reached by a name, and must not change while it runs")


def difference(got, wanted):
    """How two results differ; "" where they agree but for rounding."""
    if isinstance(wanted, Tensor):
        wanted = wanted.detach().numpy()
    if not isinstance(got, (float, np.ndarray, np.generic)):
        return "" if got == wanted else f"{got!r} instead of {wanted!r}"
    a, b = np.asarray(got), np.asarray(wanted)
    if a.shape != b.shape:
        return f"shape {a.shape} instead of {b.shape}"
    if a.dtype.kind != "f" or b.dtype.kind != "f":
        return "" if np.array_equal(a, b) else f"{got!r} instead of {wanted!r}"
    tolerance = 1e-4 if np.float32 in (a.dtype, b.dtype) else 1e-9
    with np.errstate(all="ignore"):
        finite = np.isfinite(b)
        scale = np.max(np.abs(b[finite]), initial=0.0)
        gap = np.abs(a - b)
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (gap <= tolerance * max(scale, 1e-300))
    if same.all():
        return ""
    return (f"{np.count_nonzero(~same)} of {same.size} entries differ, by up to "
            f"{np.max(gap[~same & ~np.isnan(gap)], initial=0.0):.3g}, nothing but rounding is "
            "allowed")
