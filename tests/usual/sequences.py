"""Models of sequences [HIPS autograd: rnn, lstm, hmm; JAX: scan]."""

import numpy as onp

import fastgrad.numpy as np

from . import labels, positive, usual

rng = onp.random.default_rng(13)
series = rng.normal(size=(6, 3))
signal = onp.sin(onp.arange(12) * 0.7) + 0.1 * rng.normal(size=12)
letters = onp.array([0, 2, 1, 3, 3, 0])
times = onp.arange(12)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@usual(W=(4, 4), U=(3, 4), h=4)
def rnn(W, U, h):
    """A state through a sequence [HIPS autograd: rnn]."""
    for x in series:
        h = np.tanh(x @ U + h @ W)
    return np.sum(h ** 2)


@usual(W=(4, 4), U=(3, 4), V=(4, 3))
def rnn_predictions(W, U, V):
    """The errors of what is predicted, in a list [HIPS autograd: rnn]."""
    h, errors = np.zeros(4), []
    for t in range(len(series) - 1):
        h = np.tanh(series[t] @ U + h @ W)
        errors.append(np.mean((h @ V - series[t + 1]) ** 2))
    return sum(errors) / len(errors)


@usual(table=(4, 3), W=(3, 3), V=(3, 4))
def rnn_letters(table, W, V):
    """The logarithm of the probability of letters [HIPS autograd: rnn]."""
    h, total = np.zeros(3), 0.0
    for now, then in zip(letters[:-1], letters[1:]):
        h = np.tanh(table[now] + h @ W)
        logits = h @ V
        total = total + logits[then] - np.logsumexp(logits)
    return -total


@usual(p={"i": (7, 4), "f": (7, 4), "o": (7, 4), "c": (7, 4)})
def lstm(p):
    """Gates by names [HIPS autograd: lstm]."""
    h = c = np.zeros(4)
    for x in series:
        z = np.concatenate([x, h])
        c = sigmoid(z @ p["f"]) * c + sigmoid(z @ p["i"]) * np.tanh(z @ p["c"])
        h = sigmoid(z @ p["o"]) * np.tanh(c)
    return np.mean(h)


@usual(Wz=(7, 4), Wr=(7, 4), Wh=(7, 4))
def gru(Wz, Wr, Wh):
    """Gates that reset and update [textbooks: GRU]."""
    h = np.zeros(4)
    for x in series:
        z = sigmoid(np.concatenate((x, h)) @ Wz)
        r = sigmoid(np.concatenate((x, h)) @ Wr)
        h = (1 - z) * h + z * np.tanh(np.hstack([x, r * h]) @ Wh)
    return np.sum(h * h)


@usual(W=(4, 4), U=(3, 4))
def rnn_masked(W, U):
    """A sequence that ends early [JAX: padded batches]."""
    h, length = np.zeros(4), 4
    for t, x in enumerate(series):
        new = np.tanh(x @ U + h @ W)
        h = np.where(t < length, new, h)
    return np.sum(np.cos(h))


@usual(start=3, A=(3, 3), B=(3, 4))
def hmm_forward(start, A, B):
    """The forward pass in logarithms [HIPS autograd: hmm_em]."""
    log_a = A - np.logsumexp(A, axis=1, keepdims=True)
    log_b = B - np.logsumexp(B, axis=1, keepdims=True)
    alpha = start - np.logsumexp(start) + log_b[:, letters[0]]
    for letter in letters[1:]:
        alpha = np.logsumexp(alpha[:, None] + log_a, axis=0) + log_b[:, letter]
    return np.logsumexp(alpha)


@usual(start=3, A=(3, 3), B=(3, 4))
def viterbi_score(start, A, B):
    """The best path's score [textbooks: HMM]."""
    score = start + B[:, letters[0]]
    for letter in letters[1:]:
        score = np.max(score[:, None] + A, axis=0) + B[:, letter]
    return np.max(score)


@usual(start=positive(3), A=positive(3, 3), B=positive(3, 4), seen=labels(5, 4))
def hmm_scaled(start, A, B, seen):
    """The forward pass with scales, on letters that are given [textbooks: HMM]."""
    A, B = A / A.sum(1, keepdims=True), B / B.sum(1, keepdims=True)
    alpha, total = start / start.sum() * B[:, seen[0]], 0.0
    for letter in seen[1:]:
        scale = np.sum(alpha)
        total += np.log(scale)
        alpha = (alpha / scale) @ A * B[:, letter]
    return total + np.log(alpha.sum())


@usual(phi=2)
def autoregression(phi):
    """Residuals by lagged slices [statsmodels: AR]."""
    return np.sum((signal[2:] - phi[0] * signal[1:-1] - phi[1] * signal[:-2]) ** 2)


@usual(theta=2)
def moving_average(theta):
    """Residuals that depend on those before [statsmodels: MA]."""
    e = [0.0, 0.0]
    for y in signal:
        e.append(y - theta[0] * e[-1] - theta[1] * e[-2])
    return sum(r ** 2 for r in e)


@usual(p=positive(3))
def garch(p):
    """A variance that follows its shocks [arch: GARCH]."""
    variance = np.var(signal)
    total = 0.0
    for y in signal:
        total += 0.5 * (np.log(variance) + y ** 2 / variance)
        variance = p[0] + p[1] * y ** 2 + p[2] * variance
    return total


@usual(a=0.4)
def exponential_smoothing(a):
    """One step ahead [statsmodels: smoothing]."""
    level, sse = signal[0], 0.0
    for y in signal[1:]:
        sse = sse + (y - level) ** 2
        level = a * y + (1 - a) * level
    return sse


@usual(a=0.4, b=0.2, g=0.1)
def holt_winters(a, b, g):
    """Level, trend and season, which are kept in a list [statsmodels: Holt-Winters]."""
    level, trend, season = signal[0], 0.0, list(signal[:4] - onp.mean(signal[:4]))
    sse = 0.0
    for t, y in enumerate(signal):
        s = season[t % 4]
        sse += (y - level - trend - s) ** 2
        before, level = level, a * (y - s) + (1 - a) * (level + trend)
        trend = b * (level - before) + (1 - b) * trend
        season[t % 4] = g * (y - level) + (1 - g) * s
    return sse


@usual(c=4)
def harmonics(c):
    """A sum of sines and cosines [textbooks: time series]."""
    basis = onp.stack([f(2 * onp.pi * k * times / 12) for k in (1, 2) for f in (onp.sin, onp.cos)])
    return np.mean((c @ basis - signal) ** 2)
