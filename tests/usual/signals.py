"""Signals and sounds [SciPy: signal; NumPy: tutorials]."""

import numpy as np

import fastgrad.numpy as fnp

from . import labels, positive, static, usual

t = np.arange(16) / 16
noisy = np.sin(2 * np.pi * 3 * t) + 0.3 * np.cos(2 * np.pi * 5 * t)
angles = 2 * np.pi * np.outer(np.arange(16), np.arange(16)) / 16
COS, SIN = np.cos(angles), np.sin(angles)


@usual(x=16)
def power_spectrum(x):
    """A transform by two matrices [textbooks: Fourier]."""
    return (COS @ x) ** 2 + (SIN @ x) ** 2


@usual(x=16)
def spectral_flatness(x):
    """The geometric against the arithmetic mean [textbooks: audio]."""
    p = (COS[:8] @ x) ** 2 + (SIN[:8] @ x) ** 2 + 1e-9
    return np.exp(np.mean(np.log(p))) / np.mean(p)


@usual(x=16)
def total_variation(x):
    """A noisy signal and its jumps [textbooks: denoising]."""
    return np.sum((x - noisy) ** 2) + 0.5 * np.sum(np.abs(np.diff(x)))


@usual(x=16)
def detrended_energy(x):
    """Less its mean and slope [SciPy: detrend]."""
    A = np.column_stack([np.ones(16), t])
    c = np.linalg.solve(A.T @ A, A.T @ x)
    return np.sum((x - A @ c) ** 2)


@usual(x=16, width=static(2))
def smoothed(x, width):
    """Means of a window that is cut at the ends [textbooks: signals]."""
    out = [np.mean(x[max(0, k - width):k + width + 1]) for k in range(len(x))]
    return fnp.stack(out)


@usual(x=12)
def peak_heights(x):
    """The sum of what is higher than its neighbours [SciPy: find_peaks]."""
    inner = x[1:-1]
    peaks = (inner > x[:-2]) & (inner > x[2:])
    return np.sum(inner[peaks])


@usual(x=12)
def zero_crossings(x):
    """Where it crosses zero, between the samples [textbooks: signals]."""
    k = np.where(np.sign(x[1:]) != np.sign(x[:-1]))[0]
    return np.sum(k + x[k] / (x[k] - x[k + 1]))


@usual(x=12)
def envelope(x):
    """The largest so far [NumPy: maximum.accumulate]."""
    return np.sum(np.maximum.accumulate(x))


@usual(x=10, y=10)
def correlation(x, y):
    """Pearson's coefficient [NumPy: corrcoef]."""
    a, b = x - x.mean(), y - y.mean()
    return np.sum(a * b) / np.sqrt(np.sum(a ** 2) * np.sum(b ** 2))


@usual(x=10, lags=static((1, 2, 3)))
def autocorrelation(x, lags):
    """At some lags [statsmodels: acf]."""
    z = x - np.mean(x)
    return fnp.array([np.dot(z[:-k], z[k:]) / np.dot(z, z) for k in lags])


@usual(knots=5, at=positive(8))
def interpolated(knots, at):
    """Between knots, at places that are given [SciPy: interp1d]."""
    where = np.clip(at * 2, 0, 3.999)
    low = np.floor(where).astype(int)
    part = where - low
    return (1 - part) * knots[low] + part * knots[low + 1]


@usual(knots=5)
def interpolated_by_numpy(knots):
    """NumPy's interpolation in a table [NumPy: interp]."""
    return np.interp(t, np.linspace(0, 1, 5), knots)


@usual(x=(3, 8), kernel=3)
def rows_convolved(x, kernel):
    """Each row by itself [SciPy: convolve1d]."""
    padded = np.pad(x, ((0, 0), (1, 1)))
    return sum(kernel[k] * padded[:, k:k + 8] for k in range(3))


@usual(x=8, order=labels(8, 8))
def reordered(x, order):
    """Samples in an order that is given [NumPy: take]."""
    return np.cumsum(np.take(x, order) * np.hanning(8))
