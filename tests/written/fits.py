"""Objectives, residuals, right-hand sides and solvers in the shapes of SciPy's tutorials."""

import numpy as np
from worlds import written

ts = np.linspace(0.0, 2.0, 5)
ys = np.array([2.0, 1.3, 0.9, 0.5, 0.4])


@written()
def rosen():
    def f(x):
        return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)

    yield f


@written()
def rosen_with_args():
    args = (1.0, 100.0)

    def rosen(x, a, b):
        return np.sum(b * (x[1:] - x[:-1] ** 2) ** 2 + (a - x[:-1]) ** 2)

    def f(x):
        return rosen(x, *args)

    yield f
    for args in ((1.0, 100.0), (2.0, 100.0), (2.0, 10.0), (1.0, 1.0)):
        yield


@written()
def rosen_counted():
    info = {"nfev": 0}

    def f(x):
        info["nfev"] += 1
        return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2

    yield f, info


@written()
def rosen_memoised():
    class Memo:
        def __init__(self):
            self.x, self.pair, self.misses = None, None, 0

        def __call__(self, x):
            if self.x is None or not np.all(x == self.x):
                self.x = np.asarray(x).copy()
                self.pair = np.sum((x[1:] - x[:-1] ** 2) ** 2), 2 * x
                self.misses += 1
            return self.pair[0]

    memo = Memo()
    yield memo, lambda: memo.misses


@written()
def objective_in_class():
    class Problem:
        def __init__(self):
            self.data, self.nfev = np.array([1.0, 2.0, 3.0]), 0

        def fun(self, x):
            self.nfev += 1
            return np.sum((x - self.data) ** 2)

    problem = Problem()
    yield problem.fun, problem
    yield
    problem.data[1] = 0.0
    yield


@written()
def constraint_inequality():
    constraints = [lambda x: x[0] - 1, lambda x: 3 - np.sum(x)]

    def worst(x):
        return min(constraint(x) for constraint in constraints)

    yield worst
    yield
    constraints.append(lambda x: x[2])
    yield


@written()
def penalised():
    mu = 1.0

    def f(x):
        outside = np.minimum(0.0, x - 0.3)
        return np.sum(x ** 2) + 0.5 * mu * np.sum(outside ** 2)

    yield f
    for mu in (1.0, 10.0, 100.0, 100.0, 1.0):
        yield


@written()
def barrier():
    t = 1.0

    def f(x):
        slack = 3.0 - x
        if np.any(slack <= 0):
            return np.inf
        return np.sum(x) * t - np.sum(np.log(slack))

    yield f
    for t in (1.0, 2.0, 4.0, 8.0):
        yield


@written()
def bounds_reflected():
    low, high = 0.0, 2.0

    def f(x):
        y = np.where(x < low, 2 * low - x, x)
        y = np.where(y > high, 2 * high - y, y)
        return np.sum((y - 1) ** 4)

    yield f
    for high in (2.0, 1.0, 3.0, 2.0):
        yield


@written()
def parameter_transform():
    def f(x):
        scale, share = np.exp(x[0]), 1 / (1 + np.exp(-x[1]))
        model = scale * (share + (1 - share) * np.exp(-ts)) + x[2]
        return np.sum((model - ys) ** 2)

    yield f


@written()
def residuals_exponential():
    data = ys.copy()

    def residuals(x):
        return x[0] + x[1] * np.exp(-x[2] * ts) - data

    yield residuals
    for k in range(5):
        data[k] += 0.1
        yield


@written()
def residuals_robust():
    scale = 1.0

    def cost(x):
        z = ((x[0] * np.exp(-ts * 0.5) + x[1] - ys) / scale) ** 2
        return 0.5 * scale ** 2 * np.sum(2 * (np.sqrt(1 + z) - 1))

    yield cost
    for scale in (1.0, 0.5, 0.1, 0.1, 2.0):
        yield


@written()
def residuals_huber():
    delta = 0.5

    def cost(x):
        r = np.abs(x[0] - x[1] * ts - ys)
        small = r <= delta
        loss = np.empty_like(r)
        loss[small] = 0.5 * r[small] ** 2
        loss[~small] = delta * (r[~small] - 0.5 * delta)
        return np.sum(loss)

    yield cost
    for delta in (0.5, 1.0, 0.1):
        yield


@written()
def residuals_with_missing():
    data = ys.copy()

    def cost(x):
        good = ~np.isnan(data)
        model = x[0] + x[1] * ts + x[2] * ts ** 2
        return np.sum((model[good] - data[good]) ** 2)

    yield cost
    for k in (0, 1, 2):
        yield
        data[k] = np.nan
    yield


@written()
def residuals_weighted():
    sigma = np.ones(5)

    def cost(x):
        return np.sum(((x[0] * ts + x[1] - ys) / sigma) ** 2)

    yield cost
    for k in range(5):
        sigma[k] = 2.0
        yield


@written()
def fit_polynomial():
    degree = 1

    def f(u):
        V = np.vander(np.arange(8.0), degree + 1)
        return np.linalg.solve(V.T @ V, V.T @ u)

    yield f
    for degree in (1, 2, 2, 0, 1):
        yield


@written()
def fit_two_gaussians():
    def peak(t, height, place, width):
        return height * np.exp(-((t - place) / width) ** 2)

    def cost(x):
        model = peak(ts, x[0], 0.5, 0.3) + peak(ts, x[1], x[2], 0.5)
        return np.sum((model - ys) ** 2)

    yield cost


@written()
def fit_sine_guess():
    def f(u):
        place = int(np.argmax(u))
        height = u[place]
        model = height * np.cos((np.arange(8.0) - place) * 0.7)
        return np.sum((model - u) ** 2)

    yield f


@written()
def fit_piecewise_linear():
    def f(x):
        total = 0.0
        for t, y in zip(ts, ys):
            if t < x[2]:
                model = x[0] + 0.5 * t
            else:
                model = x[0] + 0.5 * x[2] + x[1] * (t - x[2])
            total = total + (model - y) ** 2
        return total

    yield f


@written(params=lambda k: {"top": 1.0 + k, "half": 0.5 + 0.1 * k, "slope": 1.0 + 0.2 * k})
def fit_dose_response():
    doses = np.array([0.1, 0.5, 1.0, 2.0])

    def response(params):
        power = doses ** params["slope"]
        return params["top"] * power / (params["half"] ** params["slope"] + power)

    yield response
    yield
    doses[0] = 0.2
    yield


@written()
def outliers_rejected():
    def f(u):
        centre, spread = np.mean(u), np.std(u)
        kept = u[np.abs(u - centre) < spread]
        return np.mean(kept) * len(kept)

    yield f


@written()
def reweighted():
    rounds = 2

    def f(u):
        centre = np.mean(u)
        for _ in range(rounds):
            w = 1 / np.maximum(np.abs(u - centre), 0.1)
            centre = np.sum(w * u) / np.sum(w)
        return centre

    yield f
    for rounds in (2, 3, 5, 1):
        yield


@written()
def likelihood_normal():
    def f(x):
        spread = np.exp(x[1])
        return np.sum(0.5 * ((ys - x[0]) / spread) ** 2 + np.log(spread))

    yield f


@written()
def likelihood_mixture():
    weights = np.array([0.3, 0.7])

    def f(x):
        first = np.log(weights[0]) - 0.5 * (ys - x[0]) ** 2
        second = np.log(weights[1]) - 0.5 * (ys - x[1]) ** 2
        return -np.sum(np.logaddexp(first, second))

    yield f
    for share in (0.3, 0.5, 0.9):
        weights[:] = share, 1 - share
        yield


@written()
def likelihood_censored():
    limit = 0.6

    def f(r):
        total = 0.0
        for y in ys:
            if y < limit:
                total = total + np.log(1 - np.exp(-limit / r))
            else:
                total = total - np.log(r) - y / r
        return total

    yield f
    for limit in (0.6, 0.95, 0.45, 0.6):
        yield
