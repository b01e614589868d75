"""Kernels and Gaussian processes [HIPS autograd: gaussian process; scikit-learn]."""

import numpy as np

from . import positive, usual

rng = np.random.default_rng(17)
X = rng.normal(size=(12, 2))
x = np.sort(rng.uniform(-3, 3, size=10))
y = np.sin(x) + 0.1 * rng.normal(size=10)
grid = np.linspace(-2, 2, 5)
D = (x[:, None] - x[None, :]) ** 2


def rbf(a, b, scale):
    return np.exp(-0.5 * (a[:, None] - b[None, :]) ** 2 / scale ** 2)


@usual(theta=3)
def marginal_likelihood(theta):
    """By Cholesky [HIPS autograd: gaussian process]."""
    amplitude, scale, noise = np.exp(theta)
    K = amplitude * np.exp(-0.5 * D / scale ** 2) + (noise + 0.1) * np.eye(len(x))
    L = np.linalg.cholesky(K)
    alpha = np.linalg.solve(L.T, np.linalg.solve(L, y))
    return -0.5 * y @ alpha - np.sum(np.log(np.diag(L))) - 0.5 * len(x) * np.log(2 * np.pi)


@usual(theta=3)
def marginal_by_slogdet(theta):
    """By a determinant and a solution [scikit-learn: GaussianProcessRegressor]."""
    K = np.exp(theta[0]) * np.exp(-0.5 * D * np.exp(theta[1]))
    K = K + (np.exp(theta[2]) + 0.1) * np.eye(10)
    return 0.5 * np.dot(y, np.linalg.solve(K, y)) + 0.5 * np.linalg.slogdet(K)[1]


@usual(scale=0.8)
def posterior_mean(scale):
    """The mean at a grid [textbooks: Gaussian processes]."""
    K = rbf(x, x, scale) + 0.1 * np.eye(10)
    return rbf(grid, x, scale) @ np.linalg.solve(K, y)


@usual(scale=0.8, noise=0.4)
def posterior_variance(scale, noise):
    """The sum of the variances at a grid [textbooks: Gaussian processes]."""
    K = rbf(x, x, scale) + noise ** 2 * np.eye(10)
    k = rbf(grid, x, scale)
    return np.trace(rbf(grid, grid, scale) - k @ np.linalg.solve(K, k.T))


@usual(alpha=10)
def rkhs_norm(alpha):
    """A function in a space of kernels [HIPS autograd: rkhs]."""
    K = np.exp(-D)
    return np.sum((K @ alpha - y) ** 2) + 0.1 * alpha @ K @ alpha


@usual(c=(3, 2), w=3)
def radial_network(c, w):
    """A network of radial functions [textbooks: RBF networks]."""
    d2 = np.sum((X[:, None, :] - c[None, :, :]) ** 2, axis=-1)
    return np.mean((np.exp(-d2) @ w - X[:, 0]) ** 2)


@usual(scales=positive(2))
def relevance(scales):
    """A scale for each column [scikit-learn: RBF anisotropic]."""
    Z = X / scales
    d2 = np.sum(Z ** 2, 1)[:, None] + np.sum(Z ** 2, 1)[None, :] - 2 * Z @ Z.T
    return np.mean(np.exp(-0.5 * d2))


@usual(scale=0.8)
def matern(scale):
    """Matern's kernel of three halves [scikit-learn: Matern]."""
    r = np.sqrt(3.0) * np.abs(x[:, None] - x) / scale
    return np.sum((1 + r) * np.exp(-r))


@usual(scale=0.8, period=2.0)
def periodic(scale, period):
    """A kernel with a period [scikit-learn: ExpSineSquared]."""
    d = np.abs(np.subtract.outer(x, x))
    return np.mean(np.exp(-2 * np.sin(np.pi * d / period) ** 2 / scale ** 2))


@usual(a=(5, 2), b=(6, 2))
def discrepancy(a, b):
    """The mean discrepancy of two samples [textbooks: MMD]."""
    def mean(p, q):
        return np.mean(np.exp(-np.sum((p[:, None] - q[None]) ** 2, axis=2)))

    return mean(a, a) + mean(b, b) - 2 * mean(a, b)


@usual(points=(5, 2))
def pairwise_distances(points):
    """Distances of pairs, the diagonal left out [SciPy: pdist]."""
    i, j = np.triu_indices(len(points), k=1)
    return np.sum(np.sqrt(np.sum((points[i] - points[j]) ** 2, axis=1)))


@usual(points=(6, 2))
def nearest(points):
    """The distance to the nearest other [SciPy: cKDTree]."""
    d2 = np.sum((points[:, None] - points[None]) ** 2, axis=-1) + 1e6 * np.eye(6)
    return np.sum(np.sqrt(np.min(d2, axis=1)))


@usual(at=2.0, width=0.5)
def kernel_density(at, width):
    """A density at a place [SciPy: gaussian_kde]."""
    z = (at - x) / width
    return np.mean(np.exp(-0.5 * z ** 2)) / (width * np.sqrt(2 * np.pi))


@usual(at=0.3, width=0.8)
def nadaraya_watson(at, width):
    """A weighted mean [statsmodels: KernelReg]."""
    w = np.exp(-0.5 * ((at - x) / width) ** 2)
    return np.average(y, weights=w)
