"""Prices and portfolios [QuantLib's examples; textbooks]."""

import math

import numpy as np

from fastgrad import special

from . import positive, static, usual

rng = np.random.default_rng(37)
returns = 0.01 * rng.normal(size=(20, 4))
normals = rng.normal(size=(50, 6))
due = np.array([0.5, 1.0, 1.5, 2.0])


def cdf(x):
    return 0.5 * (1 + special.erf(x / math.sqrt(2)))


@usual(spot=1.0, vol=0.4, rate=0.3)
def black_scholes(spot, vol, rate):
    """A call's price [textbooks: options]."""
    d1 = (np.log(spot / 1.1) + rate + 0.5 * vol ** 2) / vol
    return spot * cdf(d1) - 1.1 * np.exp(-rate) * cdf(d1 - vol)


@usual(spot=1.0, vol=0.4, steps=static(12))
def binomial_tree(spot, vol, steps):
    """An American put on a tree [textbooks: options]."""
    up = np.exp(vol * np.sqrt(1 / steps))
    p = (np.exp(0.05 / steps) - 1 / up) / (up - 1 / up)
    prices = spot * up ** np.arange(-steps, steps + 1, 2)
    value = np.maximum(1.0 - prices, 0)
    for n in range(steps - 1, -1, -1):
        prices = spot * up ** np.arange(-n, n + 1, 2)
        value = np.exp(-0.05 / steps) * (p * value[1:] + (1 - p) * value[:-1])
        value = np.maximum(value, 1.0 - prices)
    return value[0]


@usual(spot=1.0, vol=0.4)
def monte_carlo_asian(spot, vol):
    """The mean of paths that were drawn before [textbooks: options]."""
    dt = 1 / normals.shape[1]
    steps = (0.05 - 0.5 * vol ** 2) * dt + vol * np.sqrt(dt) * normals
    paths = spot * np.exp(np.cumsum(steps, axis=1))
    return np.mean(np.maximum(paths.mean(axis=1) - 1.0, 0.0)) * np.exp(-0.05)


@usual(spot=1.0, vol=0.4)
def monte_carlo_barrier(spot, vol):
    """Paths that end at a barrier [textbooks: options]."""
    path, alive = spot * np.ones(50), np.ones(50, dtype=bool)
    for z in normals.T:
        path = path * np.exp(-0.5 * vol ** 2 / 6 + vol * z / math.sqrt(6))
        alive = alive & (path < 1.5)
    return np.mean(np.where(alive, np.maximum(path - 0.9, 0), 0))


@usual(w=4)
def portfolio_variance(w):
    """A variance by the covariance of data [textbooks: portfolios]."""
    w = w / np.sum(np.abs(w))
    return w @ np.cov(returns.T) @ w


@usual(w=positive(4))
def sharpe(w):
    """The mean against the deviation [textbooks: portfolios]."""
    r = returns @ (w / w.sum())
    return np.mean(r) / np.std(r) * np.sqrt(252)


@usual(w=positive(4))
def drawdown(w):
    """The largest loss from a height [pandas: finance]."""
    wealth = np.cumprod(1 + returns @ (w / w.sum()))
    return np.max(1 - wealth / np.maximum.accumulate(wealth))


@usual(w=positive(4))
def shortfall(w):
    """The mean of the worst [textbooks: risk]."""
    losses = np.sort(-(returns @ (w / w.sum())))
    return np.mean(losses[-5:])


@usual(rates=positive(4))
def bond_price(rates):
    """Coupons at rates of their own [textbooks: bonds]."""
    coupons = np.array([0.02, 0.02, 0.02, 1.02])
    return np.sum(coupons * np.exp(-0.1 * rates * due))


@usual(price=1.0)
def bond_yield(price):
    """A yield by Newton's method [textbooks: bonds]."""
    y = 0.03 + 0.0 * price
    for _ in range(10):
        discount = np.exp(-y * due)
        value = 0.04 * discount.sum() + discount[-1]
        slope = -(0.04 * due * discount).sum() - due[-1] * discount[-1]
        y = y - (value - price) / slope
    return y


@usual(p=4)
def nelson_siegel(p):
    """A curve of yields [textbooks: bonds]."""
    decay = np.exp(p[3])
    x = due / decay
    f = (1 - np.exp(-x)) / x
    return p[0] + p[1] * f + p[2] * (f - np.exp(-x))


@usual(rate=0.5, payment=0.3)
def loan(rate, payment):
    """What is left of a loan, until it is paid back [textbooks: loans]."""
    balance, years = 1.0, 0
    while balance > 0 and years < 10:
        balance = balance * (1 + 0.1 * rate) - payment
        years += 1
    return balance


@usual(x=3)
def utility(x):
    """A utility of what is spent [textbooks: economics]."""
    c = np.exp(x)
    gamma = 2.0
    return sum(0.95 ** k * (c[k] ** (1 - gamma) - 1) / (1 - gamma) for k in range(3))
