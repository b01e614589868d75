"""Losses that contain an optimisation, and its steps [HIPS autograd; JAX: advanced]."""

import numpy as np

import fastgrad as fg

from . import positive, static, usual

A = np.array([[3.0, 1.0], [1.0, 2.0]])
b = np.array([1.0, -1.0])
rng = np.random.default_rng(23)
X = rng.normal(size=(10, 2))
y = X @ np.array([0.5, -0.5])


def loss(w):
    return np.mean((X @ w - y) ** 2) + 0.1 * np.sum(w ** 4)


@usual(w=2, rate=0.1)
def after_descent(w, rate):
    """The loss after some steps, by the rate [HIPS autograd: hyperparameters]."""
    for _ in range(5):
        w = w - rate * fg.grad(loss)(w)
    return loss(w)


@usual(w=2, v=2, momentum=0.8)
def after_momentum(w, v, momentum):
    """With momentum [HIPS autograd: hyperparameters]."""
    for _ in range(4):
        v = momentum * v - 0.1 * (2 * X.T @ (X @ w - y) / 10)
        w = w + v
    return loss(w)


@usual(w=2)
def adam_steps(w):
    """Adam's steps in numbers [JAX: optimizers]."""
    m, v = np.zeros(2), np.zeros(2)
    for t in range(1, 6):
        g = A @ w - b
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g ** 2
        w = w - 0.1 * (m / (1 - 0.9 ** t)) / (np.sqrt(v / (1 - 0.999 ** t)) + 1e-8)
    return w


@usual(w=2, tasks=(3, 2))
def meta_learning(w, tasks):
    """The loss after a step on each task [JAX: MAML]."""
    total = 0.0
    for target in tasks:
        def task_loss(w):
            return np.sum((A @ w - target) ** 2)

        total += task_loss(w - 0.01 * fg.grad(task_loss)(w))
    return total / len(tasks)


@usual(x=2)
def newton_step(x):
    """A step by the second derivative [textbooks: Newton's method]."""
    g, H = fg.grad(loss)(x), fg.hessian(loss)(x)
    return x - np.linalg.solve(H, g)


@usual(x=2)
def conjugate_gradients(x):
    """A linear system by conjugate gradients [SciPy: cg]."""
    r = b - A @ x
    p = r
    for _ in range(2):
        alpha = (r @ r) / (p @ A @ p)
        x, new = x + alpha * p, r - alpha * (A @ p)
        p, r = new + (new @ new) / (r @ r) * p, new
    return x


@usual(x=2, d=2)
def line_search(x, d):
    """A step that is halved until it is better [SciPy: line_search]."""
    step, value = 1.0, loss(x)
    while loss(x + step * d) > value and step > 1e-3:
        step = 0.5 * step
    return loss(x + step * d)


@usual(x=3, low=static(-0.5), high=static(0.5))
def projected(x, low, high):
    """Steps within bounds [SciPy: bounds]."""
    for _ in range(3):
        x = np.clip(x - 0.1 * (2 * x - 0.7), low, high)
    return np.sum(x ** 2)


@usual(x=3, t=1.5)
def barrier(x, t):
    """A barrier that is infinite outside [SciPy: trust-constr]."""
    slack = 4.0 - np.sum(x ** 2)
    if slack <= 0:
        return np.inf
    return t * np.sum(x) - np.log(slack)


@usual(x=2, multipliers=2, rho=1.0)
def augmented(x, multipliers, rho):
    """An augmented Lagrangian [CasADi: NLP]."""
    c = A @ x - b
    return np.sum(x ** 2) + multipliers @ c + 0.5 * rho * np.sum(c ** 2)


@usual(x=3)
def penalised(x):
    """A list of constraints [SciPy: SLSQP]."""
    constraints = [lambda x: x[0] + x[1] - 1, lambda x: 2 - x[2], lambda x: x[1]]
    penalty = sum(np.maximum(0, -c(x)) ** 2 for c in constraints)
    return x @ x + 10 * penalty


@usual(x=4)
def proximal(x):
    """Shrinks towards zero [textbooks: proximal methods]."""
    return np.sign(x) * np.maximum(np.abs(x) - 0.3, 0.0)


@usual(x=4)
def simplex_projection(x):
    """The nearest weights [textbooks: projections]."""
    u = np.sort(x)[::-1]
    css = np.cumsum(u)
    k = np.arange(1, len(x) + 1)
    rho = np.nonzero(u + (1 - css) / k > 0)[0][-1]
    return np.maximum(x + (1 - css[rho]) / (rho + 1), 0)


@usual(a=positive(4), b=positive(4))
def sinkhorn(a, b):
    """Transport with entropy [textbooks: optimal transport]."""
    a, b = a / a.sum(), b / b.sum()
    C = (np.arange(4.0)[:, None] - np.arange(4.0)[None, :]) ** 2
    K = np.exp(-C)
    v = np.ones(4)
    for _ in range(10):
        u = a / (K @ v)
        v = b / (K.T @ u)
    return np.sum(u[:, None] * K * v[None, :] * C)


@usual(theta=3)
def policy(theta):
    """The return of a policy [textbooks: reinforcement learning]."""
    rewards = np.array([1.0, 0.0, 2.0])
    p = np.exp(theta) / np.exp(theta).sum()
    return p @ rewards


@usual(v=3, discount=0.9)
def temporal_difference(v, discount):
    """An error towards what is held still [JAX: TD error]."""
    target = fg.stop_gradient(1.0 + discount * v[1:])
    return np.mean((target - v[:-1]) ** 2)
