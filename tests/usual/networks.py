"""Networks of neurons by hand [HIPS autograd: neural net; JAX: quickstart; textbooks]."""

import numpy as onp

import fastgrad.numpy as np

from . import labels, mask, usual

rng = onp.random.default_rng(5)
inputs = rng.normal(size=(8, 3))
targets = rng.integers(4, size=8)
one_hot = onp.eye(4)[targets]
values = rng.normal(size=(8, 1))
LAYERS = [[(3, 5), 5], [(5, 4), 4]]
IMAGES = rng.normal(size=(2, 6, 6))
SHAPES = [(3, 5), (5,), (5, 1), (1,)]


def relu(x):
    return np.maximum(0, x)


def sigmoid(x):
    return 0.5 * (np.tanh(x / 2) + 1)


def unpack(theta):
    at = 0
    for shape in SHAPES:
        size = int(onp.prod(shape))
        yield theta[at:at + size].reshape(shape)
        at += size


@usual(params=LAYERS)
def mlp_tanh(params):
    """Layers in a loop, the last one linear [HIPS autograd: neural net]."""
    x = inputs
    for W, b in params:
        outputs = np.dot(x, W) + b
        x = np.tanh(outputs)
    log_p = outputs - np.logsumexp(outputs, axis=1, keepdims=True)
    return -np.sum(log_p * one_hot)


@usual(params=LAYERS)
def mlp_relu(params):
    """Hidden layers, then the last [JAX: neural network]."""
    activations = inputs
    for w, b in params[:-1]:
        activations = relu(np.dot(activations, w) + b)
    w, b = params[-1]
    logits = np.dot(activations, w) + b
    return -np.mean((logits - np.logsumexp(logits, axis=1)[:, None]) * one_hot)


@usual(params=LAYERS)
def mlp_with_penalty(params):
    """With a penalty of all weights [HIPS autograd: neural net]."""
    x = inputs
    for W, b in params:
        x = sigmoid(x @ W + b)
    penalty = sum(np.sum(W ** 2) + np.sum(b ** 2) for W, b in params)
    return np.sum((x - one_hot) ** 2) + 0.01 * penalty


@usual(p={"hidden": {"w": (3, 5), "b": 5}, "out": {"w": (5, 1), "b": 1}})
def mlp_of_dicts(p):
    """Weights in dicts of dicts [JAX: pytrees]."""
    h = np.tanh(inputs @ p["hidden"]["w"] + p["hidden"]["b"])
    return np.mean((h @ p["out"]["w"] + p["out"]["b"] - values) ** 2)


@usual(theta=26)
def mlp_flat(theta):
    """All weights in one vector [HIPS autograd: neural net]."""
    W1, b1, W2, b2 = unpack(theta)
    return np.mean((np.tanh(inputs @ W1 + b1) @ W2 + b2 - values) ** 2)


@usual(w=(3, 4), keep=mask(8, 3))
def dropout_given(w, keep):
    """A mask that is given [JAX: dropout]."""
    x = np.where(keep, inputs / 0.6, 0.0)
    return np.sum(np.tanh(x @ w) ** 2)


@usual(w=(3, 4), y=labels(8, 4))
def cross_entropy(w, y):
    """Labels as integers [PyTorch: cross_entropy]."""
    logits = inputs @ w
    log_p = logits - np.logsumexp(logits, axis=-1, keepdims=True)
    return -np.mean(log_p[np.arange(8), y])


@usual(w=(3, 4), y=labels(8, 4))
def label_smoothing(w, y):
    """Labels that are smoothed [textbooks: regularisation]."""
    smooth = 0.9 * np.eye(4)[y] + 0.1 / 4
    logits = inputs @ w
    return -np.sum(smooth * (logits - np.logsumexp(logits, axis=1, keepdims=True)))


@usual(x=(4, 6), gamma=6, beta=6)
def layer_norm(x, gamma, beta):
    """Normalised rows [JAX: transformers]."""
    mean = np.mean(x, axis=-1, keepdims=True)
    variance = np.var(x, axis=-1, keepdims=True)
    return np.sum(np.sin(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta))


@usual(x=(6, 4), gamma=4, beta=4)
def batch_norm(x, gamma, beta):
    """Normalised columns [textbooks: batch normalisation]."""
    z = (x - x.mean(0)) / (x.std(0) + 1e-5)
    return np.sum((gamma * z + beta) ** 3)


@usual(x=(5, 4), wq=(4, 4), wk=(4, 4), wv=(4, 4))
def attention(x, wq, wk, wv):
    """One head [JAX: transformers]."""
    q, k, v = x @ wq, x @ wk, x @ wv
    scores = q @ k.T / np.sqrt(k.shape[-1])
    weights = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    weights = weights / np.sum(weights, axis=-1, keepdims=True)
    return np.mean((weights @ v) ** 2)


@usual(x=(5, 4), w=(4, 12))
def attention_causal(x, w):
    """One head that does not look ahead [JAX: transformers]."""
    q, k, v = np.split(x @ w, 3, axis=1)
    scores = np.where(np.tril(np.ones((5, 5))) > 0, q @ k.T / 2.0, -1e9)
    weights = np.exp(scores - np.logsumexp(scores, axis=1, keepdims=True))
    return np.sum(np.sin(weights @ v))


@usual(x=(5, 6), w=(6, 18))
def attention_heads(x, w):
    """Two heads by reshaping [textbooks: transformers]."""
    qkv = (x @ w).reshape(5, 3, 2, 3).transpose(1, 2, 0, 3)
    q, k, v = qkv[0], qkv[1], qkv[2]
    scores = np.einsum("hid,hjd->hij", q, k) / np.sqrt(3)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    p = p / p.sum(axis=-1, keepdims=True)
    return np.sum(np.einsum("hij,hjd->ihd", p, v).reshape(5, 6) ** 2)


@usual(table=(7, 4), words=labels(6, 7))
def embedding(table, words):
    """Rows of a table that are averaged [JAX: embeddings]."""
    return np.sum(np.tanh(np.mean(table[words], axis=0)) ** 2)


@usual(x=4)
def activations(x):
    """A sum of activations [textbooks: activations]."""
    selu = 1.05 * np.where(x > 0, x, 1.67 * np.exp(x) - 1.67)
    gelu = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))
    swish = x / (1 + np.exp(-x))
    softplus = np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)
    return np.sum(selu + gelu * swish + softplus)


@usual(x=4)
def leaky(x):
    """One that leaks, and one that is clipped [textbooks: activations]."""
    return np.sum(np.where(x > 0, x, 0.01 * x) + np.clip(x, -1.0, 1.0) ** 2)


@usual(kernel=(3, 3))
def convolution(kernel):
    """A convolution by shifted windows [HIPS autograd: convnet]."""
    total = 0.0
    for i in range(3):
        for j in range(3):
            total = total + kernel[i, j] * IMAGES[:, i:i + 4, j:j + 4]
    return np.sum(relu(total))


@usual(x=(2, 6, 6))
def max_pool(x):
    """The largest of squares [HIPS autograd: convnet]."""
    return np.sum(np.max(x.reshape(2, 3, 2, 3, 2), axis=(2, 4)) ** 2)


@usual(x=(2, 6, 6))
def mean_pool(x):
    """The means of squares [HIPS autograd: convnet]."""
    return np.sum(np.sin(x.reshape(2, 3, 2, 3, 2).mean(axis=(2, 4))))


@usual(encoder=(3, 4), decoder=(2, 3), noise=(8, 2))
def autoencoder(encoder, decoder, noise):
    """A variational one [JAX: VAE]."""
    h = inputs @ encoder
    mean, log_s = h[:, :2], h[:, 2:]
    z = mean + np.exp(log_s) * noise
    kl = -0.5 * np.sum(1 + 2 * log_s - mean ** 2 - np.exp(2 * log_s))
    return np.sum((z @ decoder - inputs) ** 2) + kl


@usual(a=(5, 3), b=(5, 3))
def contrastive(a, b):
    """Pairs among a batch [textbooks: representation learning]."""
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    logits = a @ b.T / 0.1
    return np.mean(np.logsumexp(logits, axis=1) - np.diag(logits))


@usual(anchor=3, positive=3, negative=3)
def triplet(anchor, positive, negative):
    """A margin between distances [textbooks: representation learning]."""
    near = np.sum((anchor - positive) ** 2)
    far = np.sum((anchor - negative) ** 2)
    return max(near - far + 1.0, 0.0)


@usual(w=(3, 3), x=3)
def perceptron(w, x):
    """A neuron by loops [textbooks: neurons]."""
    total = 0.0
    for i in range(3):
        z = 0.0
        for j in range(3):
            z += w[i, j] * x[j]
        total += z if z > 0 else 0.1 * z
    return total
