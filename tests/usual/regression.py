"""Linear models [scikit-learn's examples; textbooks: statistics]."""

import numpy as np

import fastgrad.numpy as fnp

from . import labels, positive, usual

rng = np.random.default_rng(3)
X = rng.normal(size=(40, 4))
y = X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * rng.normal(size=40)
signs = np.where(y > 0, 1.0, -1.0)
classes = np.digitize(y, [-1.0, 1.0])
ones = (y > 0).astype(float)
names = ["a", "b", "c", "d"]


@usual(w=4, b=0.1)
def squares(w, b):
    """The mean of the squares with an intercept [scikit-learn: LinearRegression]."""
    return np.mean((X @ w + b - y) ** 2)


@usual(w=5)
def squares_of_augmented(w):
    """With a column of ones put in front [textbooks: least squares]."""
    A = np.hstack([np.ones((len(X), 1)), X])
    return np.sum((A @ w - y) ** 2)


@usual(w=4)
def ridge(w, penalty=0.3):
    """With a quadratic penalty that is a default [scikit-learn: Ridge]."""
    return np.sum((X @ w - y) ** 2) + penalty * np.sum(w ** 2)


@usual(w=4)
def lasso(w):
    """With a penalty of the moduli [scikit-learn: Lasso]."""
    return np.sum((X.dot(w) - y) ** 2) / (2 * len(y)) + 0.1 * np.abs(w).sum()


@usual(w=4, l1_ratio=0.5)
def elastic_net(w, l1_ratio):
    """With both penalties [scikit-learn: ElasticNet]."""
    penalty = l1_ratio * np.linalg.norm(w, 1) + 0.5 * (1 - l1_ratio) * np.linalg.norm(w) ** 2
    return np.mean((y - X @ w) ** 2) / 2 + 0.1 * penalty


@usual(w=4)
def logistic_signs(w):
    """Labels of one and minus one [HIPS autograd: logistic regression]."""
    return np.sum(np.log1p(np.exp(-signs * (X @ w))))


@usual(w=4)
def logistic_negated(w):
    """With the negative of the labels computed inside [issue trackers: captured data]."""
    return np.sum(np.logaddexp(0.0, (-signs) * (X @ w)))


@usual(w=4)
def logistic_zeros_and_ones(w):
    """The cross entropy of labels zero and one [textbooks: logistic regression]."""
    p = 1 / (1 + np.exp(-(X @ w)))
    return -np.mean(ones * np.log(p) + (1 - ones) * np.log(1 - p))


@usual(W=(4, 3))
def softmax_one_hot(W):
    """Classes as rows of a unit matrix [JAX: softmax regression]."""
    Y = np.eye(3)[classes]
    logits = X @ W
    return -np.mean(np.sum(Y * (logits - fnp.logsumexp(logits, axis=1, keepdims=True)), axis=1))


@usual(W=(4, 3))
def softmax_by_index(W):
    """Classes as an index [textbooks: softmax regression]."""
    logits = X @ W
    logits = logits - np.max(logits, axis=1, keepdims=True)
    log_p = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    return -np.mean(log_p[np.arange(len(X)), classes])


@usual(W=(4, 3), picked=labels(10, 40))
def softmax_minibatch(W, picked):
    """A batch of rows that are given [JAX: minibatches]."""
    logits = X[picked] @ W
    chosen = np.take_along_axis(logits, classes[picked][:, None], axis=1)[:, 0]
    return np.mean(fnp.logsumexp(logits, axis=1) - chosen)


@usual(w=4)
def standardised(w):
    """Data that are standardised inside [scikit-learn: StandardScaler]."""
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    return np.mean((Z @ w - (y - y.mean())) ** 2)


@usual(w=4)
def hinge(w):
    """The margin of a machine of support vectors [scikit-learn: LinearSVC]."""
    margins = 1 - signs * (X @ w)
    return 0.5 * w @ w + np.sum(np.maximum(0, margins))


@usual(w=4)
def hinge_squared(w):
    """Its square, by a mask [scikit-learn: LinearSVC]."""
    m = 1 - signs * (X @ w)
    return np.sum((m > 0) * m ** 2)


@usual(w=4)
def quantile_loss(w):
    """The pinball loss [scikit-learn: QuantileRegressor]."""
    r = y - X @ w
    return np.mean(np.maximum(0.9 * r, (0.9 - 1) * r))


@usual(w=4)
def poisson_regression(w):
    """Counts with a logarithmic link [statsmodels: GLM]."""
    n = np.floor(np.abs(y)).astype(int)
    eta = X @ w
    return np.sum(np.exp(eta) - n * eta)


@usual(w=4, phi=positive(1))
def gamma_regression(w, phi):
    """Positive data [statsmodels: GLM]."""
    mu = np.exp(X @ w)
    return np.sum(np.abs(y) / mu + np.log(mu)) / phi[0]


@usual(w=4)
def normal_equations(w):
    """The gradient written by hand, its norm [textbooks: least squares]."""
    return np.linalg.norm(X.T @ X @ w - X.T @ y)


@usual(penalty=positive(1))
def ridge_solution(penalty):
    """The error of a solution, as a function of the penalty [scikit-learn: RidgeCV]."""
    train, test = slice(0, 30), slice(30, 40)
    A = X[train].T @ X[train] + penalty[0] * np.eye(4)
    w = np.linalg.solve(A, X[train].T @ y[train])
    return np.mean((X[test] @ w - y[test]) ** 2)


@usual(w=4)
def cross_validated(w):
    """The worst of some folds [scikit-learn: KFold]."""
    errors = []
    for part in np.array_split(np.arange(len(X)), 4):
        errors.append(np.mean((X[part] @ w - y[part]) ** 2))
    return max(errors)


@usual(w={"a": 0.5, "b": 0.1, "c": -0.3, "d": 1.0})
def by_names(w):
    """Coefficients by the names of the columns [pandas: columns]."""
    total = 0.0
    for k, name in enumerate(names):
        total = total + w[name] * X[:, k]
    return np.mean((total - y) ** 2)


@usual(w=4)
def interactions(w):
    """With products of columns [scikit-learn: PolynomialFeatures]."""
    i, j = np.triu_indices(4)
    features = X[:, i] * X[:, j]
    return np.mean((features[:, :4] @ w - y) ** 2)


@usual(w=4)
def rank_loss(w):
    """Pairs in the wrong order [textbooks: learning to rank]."""
    s = X @ w
    wrong = s[:, None] - s[None, :]
    return np.sum(np.log1p(np.exp(-wrong)) * (y[:, None] > y[None, :]))


@usual(w=4)
def explained_variance(w):
    """The coefficient of determination [scikit-learn: r2_score]."""
    residual = np.sum((y - X @ w) ** 2)
    return 1 - residual / np.sum((y - np.mean(y)) ** 2)
