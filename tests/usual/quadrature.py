"""Integrals, series and polynomials [SciPy: integrate; NumPy: polynomial; textbooks]."""

import math

import numpy as np

import fastgrad.numpy as fnp

from . import between, positive, usual

t = np.linspace(0, 1, 9)
GAUSS_X, GAUSS_W = np.polynomial.legendre.leggauss(6)


@usual(a=1.0, b=2.0)
def trapezoid(a, b):
    """The trapezoidal rule [NumPy: trapezoid]."""
    return np.trapezoid(np.exp(-a * t) * np.sin(b * t), t)


@usual(a=1.0, b=2.0)
def simpson(a, b):
    """Simpson's rule by slices [SciPy: simpson]."""
    y = np.exp(-a * t) * np.sin(b * t)
    return (y[0] + 4 * y[1:-1:2].sum() + 2 * y[2:-2:2].sum() + y[-1]) / 24


@usual(low=0.3, high=1.8)
def gauss(low, high):
    """Gauss's rule between live ends [SciPy: fixed_quad]."""
    x = (high - low) / 2 * GAUSS_X + (high + low) / 2
    return (high - low) / 2 * np.sum(GAUSS_W * np.sqrt(1 + x ** 3))


@usual(k=between(0.1, 0.8))
def arithmetic_geometric_mean(k):
    """An elliptic integral by means [SciPy: special.ellipk]."""
    a, g = 1.0, np.sqrt(1 - k ** 2)
    while abs(a - g) > 1e-14:
        a, g = (a + g) / 2, np.sqrt(a * g)
    return np.pi / (2 * a)


@usual(x=between(0.2, 1.5))
def sine_series(x):
    """A sine by its series until it is small [HIPS autograd: sine]."""
    term, total, k = x, x, 1
    while abs(term) > 1e-15:
        term = -term * x ** 2 / ((2 * k) * (2 * k + 1))
        total, k = total + term, k + 1
    return total


@usual(x=between(0.5, 2.0))
def bessel_series(x):
    """Bessel's function by a fixed number of terms [SciPy: special.j0]."""
    return sum((-1) ** k / math.factorial(k) ** 2 * (x / 2) ** (2 * k) for k in range(10))


@usual(c=5, x=0.7)
def horner(c, x):
    """A polynomial and its slope [textbooks: Horner]."""
    p, dp = c[-1], 0.0
    for a in c[-2::-1]:
        dp = dp * x + p
        p = p * x + a
    return p, dp


@usual(c=5, x=0.7)
def clenshaw(c, x):
    """A series of Chebyshev's polynomials [NumPy: polynomial.chebyshev]."""
    b1 = b2 = 0.0
    for a in c[:0:-1]:
        b1, b2 = 2 * x * b1 - b2 + a, b1
    return x * b1 - b2 + c[0]


@usual(c=4)
def polyval(c):
    """NumPy's evaluation [NumPy: polyval]."""
    return np.sum(np.polyval(c, t) ** 2)


@usual(values=4, at=0.35)
def lagrange(values, at):
    """Lagrange's interpolation [SciPy: interpolate]."""
    nodes, total = np.array([0.0, 0.3, 0.6, 1.0]), 0.0
    for k in range(4):
        others = np.delete(nodes, k)
        total = total + values[k] * np.prod((at - others) / (nodes[k] - others))
    return total


@usual(values=5)
def spline_energy(values):
    """A natural spline's second derivatives [SciPy: CubicSpline]."""
    A = 4 * np.eye(3) + np.eye(3, k=1) + np.eye(3, k=-1)
    m = np.linalg.solve(A, 6 * (values[2:] - 2 * values[1:-1] + values[:-2]))
    return np.sum(m ** 2)


@usual(x=between(1.5, 5.0))
def stirling(x):
    """The logarithm of the gamma function by its series [SciPy: special.gammaln]."""
    return (x - 0.5) * np.log(x) - x + 0.5 * np.log(2 * np.pi) + 1 / (12 * x) - 1 / (360 * x ** 3)


@usual(a=positive(4))
def continued_fraction(a):
    """From the last to the first [textbooks: series]."""
    value = a[-1]
    for k in reversed(range(len(a) - 1)):
        value = a[k] + 1 / value
    return value


@usual(f=9)
def romberg(f):
    """Trapezoids that are extrapolated, in a table of lists [SciPy: romb]."""
    row = []
    for step in (8, 4, 2, 1):
        y = f[::step]
        row.append(step / 8 * (np.sum(y) - 0.5 * (y[0] + y[-1])))
    for m in range(1, 4):
        row = [(4 ** m * row[k + 1] - row[k]) / (4 ** m - 1) for k in range(len(row) - 1)]
    return row[0]


@usual(rate=1.3)
def monte_carlo(rate):
    """A mean over numbers that a seeded generator draws inside [textbooks: Monte Carlo]."""
    u = np.random.default_rng(0).uniform(size=20)
    return np.mean(np.sin(rate * u))


@usual(x=between(0.1, 0.9))
def double_sum(x):
    """A sum over a grid that is made inside [textbooks: series]."""
    i, j = np.meshgrid(np.arange(4), np.arange(3))
    return np.sum(x ** (i + j) / (1 + i * j))


@usual(w=2)
def expectation(w):
    """An expectation by nodes of Hermite's rule [textbooks: quadrature]."""
    z, weights = np.polynomial.hermite_e.hermegauss(7)
    return np.dot(weights, np.tanh(w[0] + w[1] * z)) / fnp.sqrt(2 * np.pi)
