"""Populations, genes and networks of them [textbooks; SciPy: integrate]."""

import numpy as np

import fastgrad.numpy as fnp

from . import labels, positive, static, usual

rng = np.random.default_rng(41)
caught = np.array([5.0, 7.0, 11.0, 16.0, 20.0, 22.0])
edges = np.array([[0, 1], [0, 2], [1, 2], [2, 3], [3, 4]])
adjacency = np.zeros((5, 5))
adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1.0


@usual(r=0.5, K=2.0)
def logistic_map(r, K):
    """Generations [textbooks: ecology]."""
    n = 0.1
    for _ in range(12):
        n = n + r * n * (1 - n / K)
    return n


@usual(r=0.5, K=30.0)
def logistic_series(r, K):
    """Counts that are compared with a model, a list of states [SciPy: curve_fit]."""
    states = [5.0]
    for _ in caught[1:]:
        states.append(states[-1] + r * states[-1] * (1 - states[-1] / K))
    return np.sum((fnp.array(states) - caught) ** 2)


@usual(fecundity=positive(3), survival=positive(2))
def leslie(fecundity, survival):
    """Classes of age by a matrix that is written [textbooks: ecology]."""
    M = fnp.zeros((3, 3))
    M[0] = fecundity
    M[1, 0], M[2, 1] = 0.4 * survival
    n = np.ones(3)
    for _ in range(5):
        n = M @ n
    return np.log(np.sum(n))


@usual(beta=positive(2, 2))
def epidemic_groups(beta):
    """Two groups that infect each other [textbooks: epidemics]."""
    s, i = np.array([0.9, 0.95]), np.array([0.1, 0.05])
    for _ in range(10):
        new = 0.1 * s * (beta @ i)
        s, i = s - new, i + new - 0.05 * i
    return s


@usual(x=5)
def laplacian_energy(x):
    """How smooth numbers are on a graph [networkx: laplacian]."""
    L = np.diag(adjacency.sum(axis=1)) - adjacency
    return x @ L @ x


@usual(x=5)
def edges_energy(x):
    """The same by its edges [networkx: edges]."""
    return sum((x[i] - x[j]) ** 2 for i, j in edges)


@usual(weights=positive(5, 5))
def page_rank(weights):
    """Rank by powers of a matrix [networkx: pagerank]."""
    P = weights / weights.sum(axis=1, keepdims=True)
    rank = np.ones(5) / 5
    for _ in range(15):
        rank = 0.15 / 5 + 0.85 * rank @ P
    return rank


@usual(h=(5, 3), W=(3, 3))
def graph_network(h, W):
    """Messages along edges [JAX: graph networks]."""
    for _ in range(2):
        messages = fnp.zeros((5, 3))
        np.add.at(messages, edges[:, 1], h[edges[:, 0]] @ W)
        h = np.tanh(h + messages)
    return np.sum(h)


@usual(h=(5, 3), W=(3, 3))
def graph_convolution(h, W):
    """A normalised neighbourhood [textbooks: graph networks]."""
    A = adjacency + np.eye(5)
    d = 1 / np.sqrt(A.sum(axis=1))
    return np.maximum(d[:, None] * A * d[None, :] @ h @ W, 0).sum()


@usual(values=10, groups=labels(10, 3))
def group_means(values, groups):
    """Means of groups that are given [pandas: groupby]."""
    sums = np.bincount(groups, weights=values, minlength=3)
    return sums / np.maximum(np.bincount(groups, minlength=3), 1)


@usual(values=10, groups=labels(10, 3))
def group_sums_by_mask(values, groups):
    """Sums of groups by masks [pandas: groupby]."""
    return fnp.stack([np.sum(values[groups == g]) for g in range(3)])


@usual(p=positive(3), generations=static(4))
def selection(p, generations):
    """Frequencies of genes [textbooks: genetics]."""
    p, fitness = p / p.sum(), np.array([1.0, 0.9, 1.1])
    for _ in range(generations):
        p = p * fitness / np.dot(p, fitness)
    return -np.sum(p * np.log(p))


@usual(rates=positive(4))
def phylogeny(rates):
    """The likelihood of a tree, by recursion over tuples [textbooks: phylogeny]."""
    tree = ((0, 1), (2, 3))

    def likelihood(node):
        if isinstance(node, int):
            return np.eye(2)[node % 2]
        change = 0.5 * (1 - np.exp(-2 * rates[:2].sum()))
        P = (1 - change) * np.eye(2) + change * (1 - np.eye(2))
        return (P @ likelihood(node[0])) * (P @ likelihood(node[1]))

    return np.log(likelihood(tree).sum()) + np.log(rates[2:]).sum()
