"""Filters of states and of signals [CasADi: estimation; SciPy: signal]."""

import numpy as np

import fastgrad.numpy as fnp

from . import positive, static, usual

rng = np.random.default_rng(19)
F = np.array([[1.0, 0.1], [0.0, 1.0]])
H = np.array([[1.0, 0.0]])
measured = np.cumsum(rng.normal(size=8))
positions = rng.normal(size=(6, 2))
beacons = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
ranges = np.array([3.0, 4.0, 2.5])
u = np.sin(np.linspace(0, 6, 16))


@usual(q=0.5, r=0.8)
def kalman(q, r):
    """A state and its covariance, both begun as constants [textbooks: Kalman filter]."""
    m, P, total = np.zeros(2), np.eye(2), 0.0
    for z in measured:
        m, P = F @ m, F @ P @ F.T + q * np.eye(2)
        S = H @ P @ H.T + r
        v = z - H @ m
        K = P @ H.T / S
        m, P = m + (K @ v), P - K @ H @ P
        total = total + 0.5 * (v ** 2 / S + np.log(S))
    return np.sum(total)


@usual(q=0.5, r=0.8)
def kalman_scalar(q, r):
    """With one number for a state [textbooks: Kalman filter]."""
    m, p, nll = 0.0, 1.0, 0.0
    for z in measured:
        p = p + q
        s = p + r
        nll += 0.5 * np.log(s) + 0.5 * (z - m) ** 2 / s
        gain = p / s
        m = m + gain * (z - m)
        p = (1 - gain) * p
    return nll


@usual(q=positive(2), r=0.8)
def kalman_solve(q, r):
    """The gain by a solution, in Joseph's form [textbooks: Kalman filter]."""
    Q, R = np.diag(q), r * np.eye(2)
    m, P = np.zeros(2), np.eye(2)
    C = np.array([[1.0, 0.0], [0.5, 1.0]])
    for z in positions:
        P = F @ P @ F.T + Q
        K = np.linalg.solve(C @ P @ C.T + R, C @ P).T
        m = F @ m + K @ (z - C @ F @ m)
        I_KC = np.eye(2) - K @ C
        P = I_KC @ P @ I_KC.T + K @ R @ K.T
    return np.sum(m ** 2) + np.trace(P)


@usual(q=0.3)
def smoother(q):
    """A pass back over what was kept [textbooks: Rauch-Tung-Striebel]."""
    means, variances = [0.0], [1.0]
    for z in measured:
        p = variances[-1] + q
        k = p / (p + 1.0)
        means.append(means[-1] + k * (z - means[-1]))
        variances.append((1 - k) * p)
    s = means[-1]
    for m, p in zip(reversed(means[:-1]), reversed(variances[:-1])):
        s = m + p / (p + q) * (s - m)
    return s


@usual(x=2)
def triangulation(x):
    """Distances to beacons [SciPy: least_squares]."""
    return np.sum((np.linalg.norm(beacons - x, axis=1) - ranges) ** 2)


@usual(x=positive(2))
def bearings(x):
    """Angles to beacons [textbooks: navigation]."""
    d = x - beacons
    return np.arctan2(d[:, 1], d[:, 0]).sum()


@usual(x=2)
def extended_kalman_step(x):
    """A linearised step [textbooks: extended Kalman filter]."""
    predicted = fnp.array([x[0] + 0.1 * x[1], x[1] - 0.1 * np.sin(x[0])])
    A = fnp.array([[1.0, 0.1], [-0.1 * np.cos(x[0]), 1.0]])
    P = A @ np.eye(2) @ A.T + 0.01 * np.eye(2)
    K = P @ H.T / (H @ P @ H.T + 0.1)
    return predicted + K[:, 0] * (0.7 - predicted[0])


@usual(w=5)
def weights_resampled(w):
    """The number of particles that count [textbooks: particle filters]."""
    p = np.exp(w - np.max(w))
    p = p / np.sum(p)
    return 1 / np.sum(p ** 2)


@usual(b=3, a=2)
def recursive_filter(b, a):
    """A difference equation with lists of what was [SciPy: lfilter]."""
    y = []
    for n in range(len(u)):
        value = sum(b[k] * u[n - k] for k in range(3) if n - k >= 0)
        value = value - sum(0.3 * a[k - 1] * y[n - k] for k in range(1, 3) if n - k >= 0)
        y.append(value)
    return fnp.stack(y)


@usual(taps=4)
def finite_response(taps):
    """A convolution with a signal [SciPy: fftconvolve]."""
    return np.sum(np.convolve(u, taps, mode="valid") ** 2)


@usual(window=static(3), x=8)
def running_mean(window, x):
    """A mean that runs, by differences of sums [textbooks: signals]."""
    total = np.cumsum(x)
    return (total[window:] - total[:-window]) / window


@usual(x=8)
def running_median_of_three(x):
    """A median that runs, by sorting [SciPy: medfilt]."""
    windows = np.stack([x[:-2], x[1:-1], x[2:]])
    return np.sort(windows, axis=0)[1]


@usual(smooth=0.5, x=10)
def whittaker(smooth, x):
    """Smoothing by a banded system [textbooks: Whittaker]."""
    second = np.diff(np.eye(10), n=2, axis=0)
    return np.linalg.solve(np.eye(10) + smooth * second.T @ second, x)


@usual(p={"kp": 1.0, "ki": 0.3, "kd": 0.1})
def pid(p):
    """A controller's cost, its state in names [textbooks: control]."""
    x, integral, last, cost = 0.0, 0.0, 1.0, 0.0
    for _ in range(10):
        error = 1.0 - x
        integral = integral + 0.1 * error
        force = p["kp"] * error + p["ki"] * integral + p["kd"] * (error - last) / 0.1
        last = error
        x = x + 0.1 * (force - x)
        cost = cost + error ** 2
    return cost
