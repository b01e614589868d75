"""Functions of the daily kind (tests/usual), on data that are drawn anew for every call: compiled
against plain, derivatives against differences, mapped against a loop.
"""

import re

import numpy as np
import pytest
import usual

import fastgrad as fg
from fastgrad._core import trees

usual.load_all()

# Differentiated by nobody yet: the name of NumPy's that has no rule.
NO_RULE = {
    "normal_covariance": "slogdet", "marginal_by_slogdet": "slogdet", "log_determinant": "slogdet",
    "neo_hookean": "det", "trace_of_inverse": "inv", "finite_response": "convolve",
    "envelope": "accumulate", "drawdown": "accumulate", "interpolated_by_numpy": "interp",
    "group_means": "bincount", "quantile_of_numpy": "median", "polyval": "polyval",
}
# The method of an ndarray, of which NumPy asks nobody.
REFUSED = {"lasso": r"write w @ x, or fnp\.dot"}
# Called as they are, and why.
NOT_REPLAYED = {
    **{name: f"{rule} of a recorded value is used" for name, rule in NO_RULE.items()},
    "categorical_counts": "shape of what numpy.bincount returns depends on values",
    "bins_by_digitize": "value of a Tensor leaves it",      # an array of its own, indexed by one
}
HELD = {"temporal_difference"}          # holds a target still: its derivative is not the value's
# (NumPy 2.4 never lets go of what a ufunc's method was called with, if that raises.)
DIFFERENTIATED = [name for name in usual.USUAL
                  if name not in HELD and NO_RULE.get(name) != "accumulate"]
# Decisions that differ between lanes, and counts.
PER_LANE = """
cross_validated triplet perceptron nadaraya_watson cutoff_energy bouncing rocket newton_root
fixed_point line_search barrier simplex_projection ray_sphere peak_heights zero_crossings bilinear
thresholded loan asserted checked_finite arithmetic_geometric_mean sine_series saturated thermostat
""".split()


def is_float(leaf):
    return type(leaf) is float or getattr(leaf, "dtype", None) == np.float64


def floating(args):
    """The positions of the arguments that can be differentiated."""
    return tuple([k for k, x in enumerate(args)
                  if trees.flatten(x)[0] and all(map(is_float, trees.flatten(x)[0]))])


def same(got, wanted, rtol=1e-9):
    ours, theirs = trees.flatten(got), trees.flatten(wanted)
    assert ours[1] == theirs[1]
    for x, y in zip(ours[0], theirs[0]):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-11)


def total(f):
    """The sum of what f returns."""
    def summed(*args):
        leaves = trees.flatten(f(*args))[0]
        return sum([fg.numpy.sum(leaf * 1.0) for leaf in leaves])

    return summed


@pytest.mark.parametrize("name", usual.USUAL)
@pytest.mark.filterwarnings("ignore:compile")
def test_compiled(name):
    f = usual.USUAL[name][0]
    program = fg.compile(f)
    for seed in (0, 1, 2, 3, 0, 1, 2, 3):
        same(program(*usual.draw(name, seed)), f(*usual.draw(name, seed)))
    before = sum([path.calls for path in program.paths])
    for seed in (0, 1, 2, 3):
        program(*usual.draw(name, seed))
    if name in NOT_REPLAYED:
        assert not program.paths and re.search(NOT_REPLAYED[name], program.reasons[0])
    elif name not in REFUSED:
        assert sum([path.calls for path in program.paths]) == before + 4


def slopes(f, name, seed, derivative):
    """The derivative along a direction, and by differences of fourth order."""
    args = usual.draw(name, seed)
    argnums = floating(args)
    leaves, structure = trees.flatten([args[k] for k in argnums])
    rng = np.random.default_rng(seed + 100)
    direction = [rng.normal(size=np.shape(x)) for x in leaves]

    def along(h):
        moved = usual.draw(name, seed)
        shifted = [x + h * v if np.ndim(x) else float(x + h * v) for x, v in zip(leaves, direction)]
        for k, x in zip(argnums, trees.unflatten(structure, shifted)):
            moved[k] = x
        return float(f(*moved))

    gradient = trees.flatten(derivative(*args))[0]
    h = 1e-5
    return (sum([float(np.sum(g * v)) for g, v in zip(gradient, direction)]),
            (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h),
            abs(along(0.0)))


@pytest.mark.parametrize("way", ["recorded", "compiled"])
@pytest.mark.parametrize("name", DIFFERENTIATED)
@pytest.mark.filterwarnings("ignore")
def test_gradient(name, way):
    f = total(usual.USUAL[name][0])
    derivative = fg.grad(f, argnums=floating(usual.draw(name, 0)))
    derivative = fg.compile(derivative) if way == "compiled" else derivative
    if name in NO_RULE or name in REFUSED:
        with pytest.raises((fg.NoDerivativeError, TypeError),
                           match=NO_RULE.get(name) or REFUSED[name]):
            derivative(*usual.draw(name, 0))
        return
    for seed in (0, 1, 2, 0, 1):
        slope, difference, size = slopes(f, name, seed, derivative)
        np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-7 * (1 + size))


def stack(values):
    """One tree of stacked leaves of several."""
    leaves = [trees.flatten(x)[0] for x in values]
    return trees.unflatten(trees.flatten(values[0])[1], [np.stack(xs) for xs in zip(*leaves)])


@pytest.mark.parametrize("name", DIFFERENTIATED)
@pytest.mark.filterwarnings("ignore")
def test_mapped(name):
    f, draws = usual.USUAL[name][0], [usual.draw(name, seed) for seed in range(3)]
    mapped = floating(draws[0])
    lanes = [[args[k] if k in mapped else draws[0][k] for k in range(len(args))] for args in draws]
    stacked = [stack([args[k] for args in lanes])
               if k in mapped else draws[0][k] for k in range(len(lanes[0]))]
    call = fg.vmap(f, in_axes=tuple([0 if k in mapped else None for k in range(len(stacked))]))
    if name in NO_RULE or name in REFUSED or name in PER_LANE:
        why = NO_RULE.get(name) or REFUSED.get(name) or "differs? between lanes"
        with pytest.raises((fg.NoDerivativeError, TypeError, ValueError), match=why):
            call(*stacked)
        return
    same(call(*stacked), stack([f(*args) for args in lanes]))
