"""Curves that are fitted to data [SciPy: optimize, curve_fit, least_squares]."""

import numpy as np

from . import positive, usual

t = np.linspace(0.0, 4.0, 20)
rng = np.random.default_rng(7)
decay = 2.5 * np.exp(-1.3 * t) + 0.5 + 0.01 * rng.normal(size=20)
wave = 3.0 * np.sin(2.0 * t + 0.3) + 0.05 * rng.normal(size=20)
sigma = 0.1 + 0.02 * t
peak = np.exp(-((t - 1.5) ** 2) / 0.5)


def model(p, t):
    return p[0] * np.exp(-p[1] * t) + p[2]


@usual(x=5)
def rosenbrock(x):
    """Rosenbrock's function [SciPy: optimize.rosen]."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@usual(x=4)
def himmelblau_pairs(x):
    """Himmelblau's function of pairs [textbooks: test functions]."""
    a, b = x[::2], x[1::2]
    return np.sum((a * a + b - 11) ** 2 + (a + b * b - 7) ** 2)


@usual(x=3)
def rastrigin(x):
    """Rastrigin's function [SciPy: dual_annealing]."""
    return 10 * len(x) + np.sum(x * x - 10 * np.cos(2 * np.pi * x))


@usual(x=2)
def ackley(x):
    """Ackley's function [SciPy: differential_evolution]."""
    arg1 = -0.2 * np.sqrt(0.5 * (x[0] ** 2 + x[1] ** 2))
    arg2 = 0.5 * (np.cos(2. * np.pi * x[0]) + np.cos(2. * np.pi * x[1]))
    return -20. * np.exp(arg1) - np.exp(arg2) + 20. + np.e


@usual(x=2)
def eggholder(x):
    """The eggholder function [SciPy: shgo]."""
    return (-(x[1] + 47.0) * np.sin(np.sqrt(abs(x[0] / 2.0 + (x[1] + 47.0))))
            - x[0] * np.sin(np.sqrt(abs(x[0] - (x[1] + 47.0)))))


@usual(x=2)
def booth(x):
    """Booth's function by names [textbooks: test functions]."""
    a, b = x
    return (a + 2 * b - 7) ** 2 + (2 * a + b - 5) ** 2


@usual(p=3)
def decay_residuals(p):
    """The residuals of a decay [SciPy: least_squares]."""
    return p[0] * np.exp(-p[1] * t) + p[2] - decay


@usual(p=3)
def decay_cost(p):
    """Half the sum of squares through a model function [SciPy: least_squares]."""
    r = model(p, t) - decay
    return 0.5 * np.dot(r, r)


@usual(p=3)
def decay_weighted(p):
    """Weighted by the deviations of the data [SciPy: curve_fit sigma]."""
    return np.sum(((model(p, t) - decay) / sigma) ** 2)


@usual(p=3)
def decay_soft_l1(p):
    """A robust loss with a scale [SciPy: least_squares loss='soft_l1']."""
    z = ((model(p, t) - decay) / 0.1) ** 2
    rho = 2 * ((1 + z) ** 0.5 - 1)
    return 0.5 * 0.1 ** 2 * np.sum(rho)


@usual(p=3)
def decay_huber(p):
    """Huber's loss by a mask [SciPy: least_squares loss='huber']."""
    r = np.abs(model(p, t) - decay)
    small = r <= 0.3
    return np.sum(np.where(small, 0.5 * r ** 2, 0.3 * (r - 0.15)))


@usual(p=3)
def decay_cauchy(p):
    """Cauchy's loss [SciPy: least_squares loss='cauchy']."""
    return np.sum(np.log1p((model(p, t) - decay) ** 2))


@usual(amplitude=2.0, frequency=2.0, phase=0.3)
def sine_fit(amplitude, frequency, phase):
    """A sine's residuals with scalars for parameters [SciPy: curve_fit]."""
    return np.mean((amplitude * np.sin(frequency * t + phase) - wave) ** 2)


@usual(c=4)
def polynomial_fit(c):
    """A polynomial by Horner's rule [textbooks: least squares]."""
    y = np.zeros_like(t)
    for a in c[::-1]:
        y = y * t + a
    return np.sum((y - decay) ** 2)


@usual(c=4)
def vandermonde_fit(c):
    """A polynomial by its Vandermonde matrix [NumPy: polyfit]."""
    V = np.vander(t, len(c), increasing=True)
    return np.sum((V @ c - decay) ** 2)


@usual(c=4)
def powers_fit(c):
    """A polynomial by powers of the abscissae [textbooks: least squares]."""
    return np.sum((np.sum(c * t[:, None] ** np.arange(4), axis=1) - decay) ** 2)


@usual(p=positive(3))
def gaussian_peak(p):
    """A peak with height, place and width [SciPy: curve_fit]."""
    height, place, width = p
    return np.sum((height * np.exp(-0.5 * ((t - place) / width) ** 2) - peak) ** 2)


@usual(p=positive(6))
def two_peaks(p):
    """A sum of two peaks in a loop [SciPy: curve_fit]."""
    y = 0.0
    for k in range(0, len(p), 3):
        y = y + p[k] * np.exp(-((t - p[k + 1]) / p[k + 2]) ** 2)
    return np.sum((y - peak) ** 2)


@usual(p=positive(3))
def michaelis_menten(p):
    """An enzyme's rate [SciPy: curve_fit]."""
    rate = p[0] * t / (p[1] + t) + p[2]
    return np.linalg.norm(rate - decay)


@usual(p=positive(4))
def logistic_growth(p):
    """A curve with four parameters [SciPy: curve_fit]."""
    low, high, middle, slope = p
    y = low + (high - low) / (1 + np.exp(-slope * (t - middle)))
    return np.sum(np.square(y - decay)) / len(t)


@usual(p=2)
def line_orthogonal(p):
    """Squared distances to a line [SciPy: odr]."""
    return np.sum((p[0] * t + p[1] - decay) ** 2) / (1 + p[0] ** 2)


@usual(p=3)
def circle_fit(p):
    """Distances from a circle [SciPy: least_squares cookbook]."""
    r = np.hypot(t - p[0], decay - p[1])
    return np.sum((r - p[2]) ** 2)


@usual(p=3)
def circle_fit_mean(p):
    """Distances from a circle whose radius is their mean [SciPy: least_squares cookbook]."""
    r = np.sqrt((t - p[0]) ** 2 + (decay - p[1]) ** 2)
    return np.sum((r - r.mean()) ** 2) + p[2] ** 2
