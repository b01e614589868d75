"""Nets, likelihoods, optimisers in the shapes of HIPS autograd's examples and JAX's tutorials."""

import numpy as np
from worlds import written

import fastgrad as fg
import fastgrad.numpy as fnp

noise_scale = 0.1
INPUTS = np.array([[0.5, 1.1, 0.8], [0.9, -1.1, 0.1], [0.7, -1.0, 1.5], [-1.5, 0.9, 0.4]])
LABELS = np.array([1.0, 1.0, 0.0, 1.0])


def sigmoid(x):
    return 0.5 * (np.tanh(x / 2) + 1)


@written()
def tanh_by_hand():
    def tanh(s):
        return (1.0 - np.exp(-2 * s)) / (1.0 + np.exp(-2 * s))

    yield tanh


@written()
def logistic_loss():
    labels = LABELS.copy()

    def training_loss(x):
        predicted = sigmoid(np.dot(INPUTS, x))
        return -np.sum(np.log(predicted * labels + (1 - predicted) * (1 - labels)))

    yield training_loss
    for k in range(5):
        labels[k % 4] = 1 - labels[k % 4]
        yield


@written()
def logistic_predictions():
    bias = 0.0

    def predict(X):
        return sigmoid(X @ np.array([1.0, -1.0, 0.5]) + bias) > 0.5

    yield predict
    for bias in (0.0, 1.0, -1.0, 3.0):
        yield


@written()
def mlp_forward():
    def f(layers):
        activations = INPUTS[:, :3]
        for w, b in layers:
            outputs = activations @ w + b if w.shape[0] == activations.shape[1] else activations
            activations = np.tanh(outputs)
        return np.sum(activations)

    yield f


@written()
def mlp_log_posterior():
    strength = 0.1

    def f(layers):
        prior = sum(np.sum(w ** 2) + np.sum(b ** 2) for w, b in layers)
        hidden = INPUTS
        for w, b in layers:
            hidden = np.tanh(hidden @ w + b)
        return -strength * prior + np.sum(LABELS * hidden[:, 0])

    yield f
    for strength in (0.1, 0.2, 0.4, 0.0):
        yield


@written()
def mlp_accuracy():
    targets = np.array([1, 0, 1, 2])

    def accuracy(X):
        return np.mean(np.argmax(X, axis=1) == targets)

    yield accuracy
    for k in range(4):
        yield
        targets[k] = k % 3
    yield


@written()
def batch_by_index():
    step, rows = 0, np.arange(24.0).reshape(8, 3)

    def objective(x):
        k = step % 4
        batch = rows[slice(2 * k, 2 * k + 2)]
        return np.mean((batch @ x) ** 2)

    yield objective
    for step in (1, 2, 3, 4, 4):
        yield


@written()
def rnn_unrolled():
    W, hidden_size = np.array([[0.5, -0.3], [0.2, 0.4]]), 2

    def f(u):
        hidden = np.zeros(hidden_size)
        for value in u[:4]:
            hidden = np.tanh(W @ hidden + value)
        return hidden

    yield f
    for k in range(4):
        yield
        W[k % 2, 1] += 0.5
    yield


@written()
def rnn_loss():
    text, letters = "abca", "abc"

    def f(A):
        total = 0.0
        for now, following in zip(text, text[1:]):
            scores = A[letters.index(now)]
            scores = scores - np.log(np.sum(np.exp(scores)))
            total = total - scores[letters.index(following)]
        return total / len(text)

    yield f
    for text in ("abca", "cabb", "aa", "abca"):
        yield


@written()
def lstm_step():
    state = {"h": np.zeros(2), "c": np.zeros(2)}
    W = np.linspace(-0.5, 0.5, 40).reshape(8, 5)

    def step(x):
        gates = W @ np.concatenate([x, state["h"]])
        change, forget, gate, out = np.split(gates, 4)
        state["c"] = state["c"] * sigmoid(forget) + sigmoid(gate) * np.tanh(change)
        state["h"] = sigmoid(out) * np.tanh(state["c"])
        return np.sum(state["h"])

    yield step, state


def rbf(a, b, scale):
    return np.exp(-0.5 * ((a[:, None] - b[None, :]) / scale) ** 2)


@written()
def gaussian_process():
    places, jitter = np.linspace(0.0, 2.0, 4), 1e-2

    def likelihood(r):
        K = rbf(places, places, r) + jitter * np.eye(4)
        L = np.linalg.cholesky(K)
        alpha = np.linalg.solve(K, LABELS)
        return 0.5 * np.dot(LABELS, alpha) + np.sum(np.log(np.diag(L)))

    yield likelihood
    for jitter in (1e-2, 1e-1, 1.0, 1e-2):
        yield


@written()
def kernel_matrix():
    scale = 1.0

    def f(x):
        return rbf(x, x[:2], scale)

    yield f
    for scale in (1.0, 0.5, 2.0, 2.0):
        yield


@written()
def variational_bound():
    rng, samples = np.random.default_rng(0), 4

    def bound(x):
        draws = rng.normal(size=(samples, 3)) * np.exp(0.1 * x) + x
        return np.mean(np.sum(draws ** 2, axis=1)) - np.sum(x)

    yield bound
    for samples in (4, 2, 2):
        yield


@written()
def mixture_elbo():
    def logsumexp(x):
        largest = np.max(x)
        return largest + np.log(np.sum(np.exp(x - largest)))

    weights = np.log(np.array([0.2, 0.3, 0.5]))

    def f(x):
        return logsumexp(weights - 0.5 * x ** 2)

    yield f
    yield
    weights[0] = -10.0
    yield


@written()
def fluid_step():
    viscosity, rounds = 0.1, 2

    def f(A):
        for _ in range(rounds):
            around = (np.roll(A, 1, 0) + np.roll(A, -1, 0) + np.roll(A, 1, 1) + np.roll(A, -1, 1))
            A = (A + viscosity * around) / (1 + 4 * viscosity)
        return A

    yield f
    for viscosity, rounds in ((0.1, 2), (0.2, 2), (0.2, 3), (0.1, 1)):
        yield


@written()
def wing_projection():
    occupied = np.zeros((3, 3))

    def f(A):
        p = np.zeros_like(A)
        for _ in range(3):
            p = (A + np.roll(p, 1, 0) + np.roll(p, -1, 0)) / 4 * (1 - occupied)
        return np.sum(p ** 2)

    yield f
    for k in range(4):
        yield
        occupied[k % 3, 1] = 1 - occupied[k % 3, 1]
    yield


@written()
def convolution_patch():
    kernel = np.array([[1.0, 0.0], [0.5, -1.0]])

    def f(A):
        out = fnp.zeros((2, 2))
        for a in range(2):
            for b in range(2):
                out[a, b] = np.sum(A[a:a + 2, b:b + 2] * kernel)
        return np.maximum(out, 0.0)

    yield f
    for k in range(4):
        yield
        kernel[0, k % 2] -= 1.0
    yield


@written()
def bayesian_network():
    global noise_scale

    def f(x):
        outputs = np.tanh(INPUTS @ x)
        return -np.sum((LABELS - outputs) ** 2) / (2 * noise_scale ** 2) - np.sum(x ** 2)

    yield f
    for noise_scale in (0.1, 0.2, 1.0, 1.0, 0.5):
        yield


@written()
def rkhs_norm():
    class Function:
        def __init__(self, weights):
            self.weights = weights

        def __call__(self, s):
            return sum(w * np.exp(-(s - c) ** 2) for c, w in self.weights.items())

    function = Function({0.0: 1.0, 1.0: -0.5})
    yield function
    yield
    function.weights[2.0] = 0.25
    yield
    function.weights[0.0] = 3.0
    yield


@written()
def deep_gaussian():
    layers = [1.0, 0.5]

    def f(x):
        for scale in layers:
            K = rbf(x, x, scale) + 1e-3 * np.eye(3)
            x = K @ x / 3
        return np.sum(x * x)

    yield f
    for k in range(2):
        yield
        layers[k] *= 2
    yield


@written()
def hmm_forward():
    transition = np.log(np.array([[0.9, 0.1], [0.2, 0.8]]))

    def f(u):
        alpha = np.log(np.array([0.5, 0.5]))
        for value in u[:4]:
            emission = np.stack([-0.5 * value ** 2, -0.5 * (value - 1) ** 2])
            both = alpha[:, None] + transition
            largest = np.max(both, axis=0)
            alpha = emission + largest + np.log(np.sum(np.exp(both - largest), axis=0))
        return np.sum(alpha)

    yield f
    yield
    transition[:] = np.log(0.5)
    yield


@written()
def data_poisoning():
    clean = np.array([1.0, -1.0, 0.5])

    def f(x):
        def loss(w, data):
            return fnp.sum((w - data) ** 2)

        w = fnp.zeros(3)
        w = w - 0.2 * fg.grad(loss)(w, x)
        return loss(w, clean)

    yield f
    for k in range(3):
        yield
        clean[k] *= -2
    yield


@written()
def hyperparameter():
    steps = 2

    def f(s):
        w = 1.0
        for _ in range(steps):
            w = w - s * fg.grad(lambda v: (v - 3) ** 2)(w)
        return (w - 2) ** 2

    yield f
    for steps in (2, 3, 3, 1):
        yield


@written()
def rosenbrock_walk():
    path = []

    def f(x):
        value = (1 - x[0]) ** 2 + (x[1] - x[0] ** 2) ** 2
        path.append((float(x[0]), float(x[1])))
        return value

    yield f, path


@written()
def tanh_derivatives():
    order = 1

    def f(x):
        g = fnp.tanh
        for _ in range(order):
            g = fg.elementwise_grad(g)
        return g(x)

    yield f
    for order in (1, 2, 2, 0):
        yield


@written()
def dot_graph_function():
    def f(s):
        y = s * s
        z = y + np.sin(y * s)
        return np.log(1 + z * z) / (2 + np.cos(z))

    yield f


@written()
def sinusoid_fit():
    def f(x, places=[0.0, 0.5, 1.0]):  # noqa: B006
        return sum((x[0] * np.sin(x[1] * t + x[2]) - t) ** 2 for t in places)

    yield f
    for t in (1.5, 2.0):
        yield
        f.__defaults__[0].append(t)
    yield


@written()
def ode_net():
    W, dt = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.2], [0.1, 0.0, -0.5]]), 0.1

    def f(x):
        for _ in range(3):
            x = x + dt * np.tanh(W @ x ** 3)
        return np.sum(np.abs(x))

    yield f
    for dt in (0.1, 0.2, 0.3):
        yield
        W[0, 0] += 0.1
    yield


@written()
def predict_linear():
    b = 0.1

    def predict(x):
        return sigmoid(np.dot(INPUTS, x) + b)

    yield predict
    for b in (0.1, 0.2, -1.0, -1.0):
        yield


@written()
def selu():
    alpha = 1.67

    def f(x):
        return 1.05 * np.where(x > 0, x, alpha * np.exp(x) - alpha)

    yield f
    for alpha in (1.67, 1.0, 2.0, 2.0):
        yield


@written()
def sum_logistic():
    def f(x):
        return np.sum(1.0 / (1.0 + np.exp(-x)))

    yield f


@written()
def slowed_sigmoid():
    steepness = 1.0

    @fg.compile
    def helper(x):
        return 1 / (1 + np.exp(-steepness * x))

    def f(x):
        return np.sum(helper(x) * x)

    yield f
    for steepness in (1.0, 2.0, 3.0, 3.0):
        yield


@written()
def hessian_vector():
    v = np.array([1.0, 0.0, 0.0])

    def energy(x):
        return fnp.sum(x ** 3) + fnp.prod(x)

    def f(x):
        return fg.grad(lambda y: fnp.dot(fg.grad(energy)(y), v))(x)

    yield f
    for k in range(3):
        yield
        v[:] = np.roll(v, 1)
    yield


@written()
def norm_of_dict():
    def f(p):
        return np.sqrt(sum(np.sum(leaf * leaf) for leaf in p.values()))

    yield f


@written()
def update_sgd():
    rate = 0.1

    def update(p):
        gradients = fg.grad(lambda q: fnp.sum(q["w"] ** 2) * q["b"])(p)
        return {name: p[name] - rate * gradients[name] for name in p}

    yield update
    for rate in (0.1, 0.05, 0.01, 0.01):
        yield


@written()
def update_momentum():
    state = {"v": np.zeros(3), "t": 0}

    def update(x):
        gradient = 2 * (x - 1)
        state["v"] = 0.9 * state["v"] + gradient
        state["t"] += 1
        return x - 0.1 * state["v"]

    yield update, state


@written()
def update_adam():
    class Adam:
        def __init__(self):
            self.m, self.v, self.t = np.zeros(3), np.zeros(3), 0

        def __call__(self, x):
            g = 2 * (x - 1)
            self.t += 1
            self.m = 0.9 * self.m + 0.1 * g
            self.v = 0.99 * self.v + 0.01 * g ** 2
            return x - 0.1 * (self.m / (1 - 0.9 ** self.t)) / (
                np.sqrt(self.v / (1 - 0.99 ** self.t)) + 1e-8)

    adam = Adam()
    yield adam, adam


@written()
def clip_by_norm():
    limit = 2.0

    def f(x):
        norm = np.sqrt(np.sum(x ** 2))
        if norm > limit:
            x = x * (limit / norm)
        return x

    yield f
    for limit in (2.0, 3.0, 1.0, 5.0):
        yield


@written()
def layer_norm():
    gain = np.ones(3)

    def f(X):
        mean, var = np.mean(X, axis=-1, keepdims=True), np.var(X, axis=-1, keepdims=True)
        return gain * (X - mean) / np.sqrt(var + 1e-5)

    yield f
    for k in range(3):
        yield
        gain[k] = 0.5
    yield


def softmax(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


@written()
def softmax_attention():
    heads = {"q": np.eye(3), "k": np.eye(3) * 0.5}

    def f(X):
        scores = (X @ heads["q"]) @ (X @ heads["k"]).T / np.sqrt(3)
        return softmax(scores) @ X

    yield f
    yield
    heads["k"] = np.ones((3, 3))
    yield


@written()
def causal_mask():
    def f(X):
        scores = X @ X.T
        mask = np.tril(np.ones((len(X), len(X)), bool))
        return softmax(np.where(mask, scores, -1e9)) @ X

    yield f


@written()
def positional_table():
    tables = {}

    def f(X):
        size = X.shape[0]
        if size not in tables:
            tables[size] = np.sin(np.arange(size)[:, None] / np.arange(1, 4)[None, :])
        return np.sum((X + tables[size]) ** 2)

    yield f, tables
    yield
    tables.clear()
    yield


@written()
def embedding_lookup():
    def f(A, i):
        return np.sum(A[i] * np.arange(3.0)[:, None])

    yield f
