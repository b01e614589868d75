"""Logarithms of densities and what is built on them [SciPy: stats; textbooks: inference]."""

import math

import numpy as np

import fastgrad.numpy as fnp

from . import between, labels, positive, usual

rng = np.random.default_rng(11)
data = rng.normal(1.0, 2.0, size=30)
counts = rng.poisson(3.0, size=15)
waits = rng.exponential(2.0, size=20)
censored = waits > 3.0
X = rng.normal(size=(25, 3))
trials = rng.integers(5, 10, size=12)
hits = np.minimum(trials, rng.integers(0, 8, size=12))
points = np.concatenate([rng.normal(-2, 0.5, size=15), rng.normal(2, 1.0, size=15)])
LOG_TWO_PI = math.log(2 * math.pi)


@usual(mu=1.0, log_sigma=0.3)
def normal_two_scalars(mu, log_sigma):
    """A normal density with the logarithm of the deviation [SciPy: stats.norm]."""
    sigma = np.exp(log_sigma)
    return np.sum(-0.5 * ((data - mu) / sigma) ** 2 - log_sigma - 0.5 * np.log(2 * np.pi))


@usual(theta=2)
def normal_vector(theta):
    """The same with a vector of parameters, a mean of the negative [SciPy: stats fit]."""
    mu, s = theta[0], np.logaddexp(theta[1], 0.0)
    z = (data - mu) / s
    return np.mean(0.5 * z ** 2 + np.log(s)) + 0.5 * LOG_TWO_PI


@usual(log_rate=0.7)
def poisson_counts(log_rate):
    """Counts, with factorials of the data [SciPy: stats.poisson]."""
    log_factorials = np.array([math.lgamma(k + 1) for k in counts])
    return np.sum(counts * log_rate - np.exp(log_rate) - log_factorials)


@usual(rate=0.6)
def exponential_censored(rate):
    """Waiting times of which some have not ended [SciPy: stats.CensoredData]."""
    return np.sum(np.where(censored, -rate * waits, np.log(rate) - rate * waits))


@usual(p=between(0.1, 0.9))
def binomial(p):
    """Hits among trials [SciPy: stats.binom]."""
    return np.sum(hits * np.log(p) + (trials - hits) * np.log1p(-p))


@usual(a=positive(2))
def beta_kernel(a):
    """A density on the interval without its constant [SciPy: stats.beta]."""
    p = 1 / (1 + np.exp(-data))
    return np.sum((a[0] - 1) * np.log(p) + (a[1] - 1) * np.log(1 - p))


@usual(df=5.0, scale=1.5)
def student_t(df, scale):
    """Student's density without its constant [SciPy: stats.t]."""
    return -np.sum((df + 1) / 2 * np.log1p((data / scale) ** 2 / df)) - len(data) * np.log(scale)


@usual(loc=0.5, scale=1.0)
def cauchy(loc, scale):
    """Cauchy's density [SciPy: stats.cauchy]."""
    return -np.sum(np.log(np.pi * scale * (1 + ((data - loc) / scale) ** 2)))


@usual(loc=0.5, scale=1.0)
def laplace(loc, scale):
    """The double exponential density [SciPy: stats.laplace]."""
    return -np.abs(data - loc).sum() / scale - data.size * np.log(2 * scale)


@usual(theta=5)
def mixture_of_two(theta):
    """Two normal densities with a weight [SciPy: stats]."""
    w = 1 / (1 + np.exp(-theta[0]))
    first = np.log(w) - 0.5 * ((points - theta[1]) / np.exp(theta[2])) ** 2 - theta[2]
    second = np.log(1 - w) - 0.5 * ((points - theta[3]) / np.exp(theta[4])) ** 2 - theta[4]
    return np.sum(np.logaddexp(first, second))


@usual(logits=3, means=3, logs=3)
def mixture_of_many(logits, means, logs):
    """A mixture by the logarithm of a sum [HIPS autograd: gmm]."""
    weights = logits - fnp.logsumexp(logits)
    z = (points[:, None] - means) / np.exp(logs)
    return np.sum(fnp.logsumexp(weights - 0.5 * z ** 2 - logs, axis=1))


@usual(mu=3, L=(3, 3))
def normal_multivariate(mu, L):
    """A normal density by a factor of its precision [textbooks: Gaussian]."""
    z = (X - mu) @ np.tril(L)
    return -0.5 * np.sum(z ** 2) + len(X) * np.sum(np.log(np.abs(np.diag(L))))


@usual(mu=3, C=(3, 3))
def normal_covariance(mu, C):
    """A normal density by the covariance [SciPy: stats.multivariate_normal]."""
    S = C @ C.T + np.eye(3)
    d = X - mu
    sign, logdet = np.linalg.slogdet(S)
    return -0.5 * np.sum(d * np.linalg.solve(S, d.T).T) - 0.5 * len(X) * logdet


@usual(x=3)
def banana(x):
    """A bent density to sample from [textbooks: MCMC]."""
    return -0.5 * (x[0] ** 2 / 4 + (x[1] - x[0] ** 2) ** 2 + x[2] ** 2)


@usual(z=9)
def funnel(z):
    """Neal's funnel [JAX: MCMC]."""
    v, x = z[0], z[1:]
    return -0.5 * v ** 2 / 9 - 0.5 * np.sum(x ** 2) * np.exp(-v) - 0.5 * len(x) * v


@usual(z=10)
def eight_schools(z):
    """A hierarchy without centre [JAX: MCMC]."""
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    mu, tau = z[0] * 5, np.exp(z[1])
    theta = mu + tau * z[2:]
    return -0.5 * np.sum(((y - theta) / sigma) ** 2) - 0.5 * np.sum(z ** 2)


@usual(logits=4, seen=labels(20, 4))
def categorical(logits, seen):
    """Categories by their numbers [JAX: categorical]."""
    log_p = logits - np.log(np.sum(np.exp(logits)))
    return np.sum(log_p[seen])


@usual(logits=4, seen=labels(20, 4))
def categorical_counts(logits, seen):
    """Categories by how often each was seen [textbooks: multinomial]."""
    n = np.bincount(seen, minlength=4)
    return n @ (logits - fnp.logsumexp(logits))


@usual(alpha=positive(3))
def entropy(alpha):
    """The entropy of weights that are normalised [SciPy: stats.entropy]."""
    p = alpha / alpha.sum()
    return -np.sum(p * np.log(p))


@usual(p=positive(4), q=positive(4))
def divergence(p, q):
    """Kullback and Leibler's divergence [SciPy: stats.entropy]."""
    p, q = p / np.sum(p), q / np.sum(q)
    return np.sum(np.where(p > 0, p * np.log(p / q), 0))


@usual(m=3, log_s=3)
def divergence_normal(m, log_s):
    """That of a normal density from the standard one [JAX: VAE]."""
    return 0.5 * np.sum(np.exp(2 * log_s) + m ** 2 - 1 - 2 * log_s)


@usual(theta=3)
def change_point(theta):
    """A rate that changes at a known place [textbooks: change points]."""
    n = np.arange(len(counts))
    rate = np.where(n < 7, np.exp(theta[0]), np.exp(theta[1]))
    return np.sum(counts * np.log(rate) - rate) - theta[2] ** 2
