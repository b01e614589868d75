"""Read handwritten digits with a few lines of NumPy and their gradient.

1,797 real images of 8 x 8 pixels (examples/data/digits.npz) are classified twice:

1. by logistic regression, which weighs the pixels and picks the digit with the highest score;
2. by a small neural network, which puts one layer of 128 hidden units in between.

Both are the same function here, `scores`, called with one layer or with two. It is ordinary
NumPy. All that fastgrad adds is the line

    step = fg.value_and_grad(loss)

after which `step(layers, x, y)` returns the loss and its derivative with respect to every weight,
in the same lists and dictionaries that hold the weights.

Run it from anywhere: ``python examples/digits.py`` (a few seconds), ``--quick`` for a first look.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import fastgrad as fg

DATA = Path(__file__).resolve().parent / "data" / "digits.npz"
CLASSES = 10
SPLITS = 5
REQUIRED_ACCURACY = 0.975       # of the network, mean over all splits
REQUIRED_ACCURACY_QUICK = 0.90  # one split, few epochs: it learns at all
LARGEST_DIFFERENCE = 1e-6       # gradient against finite differences, relative

# What is trained, and how (the words are those of `train`). The network profits from images that
# move a little; logistic regression has one weight for a pixel and cannot follow them.
MODELS = {
    "logistic regression": {
        "widths": (64, CLASSES), "epochs": 20, "rate": 0.2, "decay": 1e-4, "shift": 0.0,
    },
    "network": {
        "widths": (64, 128, CLASSES), "epochs": 40, "rate": 0.2, "decay": 1e-3, "shift": 1.0,
    },
}
BATCH = 64
MOMENTUM = 0.9


# ---- the model: plain NumPy ----------------------------------------------------------------


def initial_layers(widths, rng):
    """Draw the weights of a network.

    Parameters
    ----------
    widths : sequence of int
        Number of inputs, of units in each hidden layer, and of outputs.
    rng : numpy.random.Generator

    Returns
    -------
    list of dict
        One ``{"weights": (inputs, outputs), "bias": (outputs,)}`` for each layer. The weights'
        spread keeps the size of the signals from layer to layer (He et al. 2015,
        https://arxiv.org/abs/1502.01852).
    """
    return [
        {
            "weights": rng.normal(scale=np.sqrt(2 / inputs), size=(inputs, outputs)),
            "bias": np.zeros(outputs),
        }
        for inputs, outputs in zip(widths[:-1], widths[1:], strict=True)
    ]


def scores(layers, x):
    """Return a score for every image and digit; the highest one is the answer.

    Parameters
    ----------
    layers : list of dict
        As `initial_layers` returns them.
    x : array of shape (images, pixels)

    Returns
    -------
    array of shape (images, 10)
    """
    *hidden, last = layers
    for layer in hidden:
        x = np.maximum(x @ layer["weights"] + layer["bias"], 0)
    return x @ last["weights"] + last["bias"]


def loss(layers, x, y):
    """Return the mean cross-entropy of the right answers.

    exp(score) / sum(exp(scores)) reads the scores of an image as probabilities (the softmax). The
    cross-entropy is minus the logarithm of the probability that the right digit gets, and
    logsumexp computes it without overflow.

    Parameters
    ----------
    layers : list of dict
    x : array of shape (images, pixels)
    y : integer array of shape (images,)
        The right digits.

    Returns
    -------
    float
    """
    s = scores(layers, x)
    right = s[np.arange(len(y)), y]
    return np.mean(fg.special.logsumexp(s, axis=1) - right)


def accuracy(layers, x, y):
    """Return the share of the images x whose highest score is at the right digit y."""
    return float(np.mean(np.argmax(scores(layers, x), axis=1) == y))


# ---- the training: gradient descent --------------------------------------------------------


def neighbours(x):
    """Return the images moved by one pixel down, up, right and left.

    Parameters
    ----------
    x : array of shape (images, 64)

    Returns
    -------
    array of shape (4, images, 64)
    """
    padded = np.pad(x.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    corners = (0, 1), (2, 1), (1, 0), (1, 2)
    return np.stack([padded[:, i : i + 8, j : j + 8].reshape(x.shape) for i, j in corners])


def train(x, y, *, widths, epochs, rate, decay, shift, rng, report):
    """Fit the weights by gradient descent on small batches, with momentum.

    Parameters
    ----------
    x : array of shape (images, 64)
    y : integer array of shape (images,)
    widths : sequence of int
        Number of inputs, of units in each hidden layer, and of outputs.
    epochs : int
        Passes over all images.
    rate : float
        First step size; it falls linearly to 0.
    decay : float
        Share of each weight added to its gradient, which keeps weights small.
    shift : float
        Images are moved by a random part of that many pixels (0 to 1): a digit stays the same
        digit when the pen starts a little to the left.
    rng : numpy.random.Generator
    report : callable
        Called after each epoch with the share of the work that is done.

    Returns
    -------
    list of dict
        The layers.
    """
    layers = initial_layers(widths, rng)
    velocity = [{name: np.zeros_like(p) for name, p in layer.items()} for layer in layers]
    moved = neighbours(x)
    step = fg.value_and_grad(loss)

    starts = range(0, len(x), BATCH)
    steps = epochs * len(starts)
    done = 0
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        for start in starts:
            batch = order[start : start + BATCH]
            way = rng.integers(4, size=len(batch))
            far = rng.uniform(0, shift, size=(len(batch), 1))
            images = (1 - far) * x[batch] + far * moved[way, batch]

            _, gradient = step(layers, images, y[batch])

            now = rate * (1 - done / steps)
            for layer, slope, speed in zip(layers, gradient, velocity, strict=True):
                for name, parameter in layer.items():
                    speed[name] *= MOMENTUM
                    speed[name] -= now * (slope[name] + decay * parameter)
                    parameter += speed[name]
            done += 1
        report((epoch + 1) / epochs)
    return layers


def stratified_split(labels, rng, held_out=0.2):
    """Divide the images at random, every digit in the same proportion.

    Parameters
    ----------
    labels : integer array of shape (images,)
    rng : numpy.random.Generator
    held_out : float
        Share of the images that is kept from training.

    Returns
    -------
    training, test : integer arrays
        Indices of the images.
    """
    training, test = [], []
    for digit in range(CLASSES):
        members = rng.permutation(np.flatnonzero(labels == digit))
        count = round(held_out * len(members))
        test.append(members[:count])
        training.append(members[count:])
    return np.concatenate(training), np.concatenate(test)


# ---- the check: is the gradient right? -----------------------------------------------------


def check_gradient(x, y, rng, entries=5, width=1e-5):
    """Compare the network's gradient with central differences.

    Parameters
    ----------
    x, y : arrays
        A few images and their digits.
    rng : numpy.random.Generator
    entries : int
        How many random entries of every array of weights are compared.
    width : float
        Half the width of a difference.

    Returns
    -------
    float
        The largest difference, relative to the slope itself or, where that is tiny and
        differences are all rounding, to a thousandth of the largest slope in its array.
    """
    layers = initial_layers(MODELS["network"]["widths"], rng)
    _, gradient = fg.value_and_grad(loss)(layers, x, y)
    worst = 0.0
    for layer, slopes in zip(layers, gradient, strict=True):
        for name, parameter in layer.items():
            flat = parameter.reshape(-1)
            slope = np.asarray(slopes[name]).reshape(-1)
            for i in rng.choice(flat.size, size=entries, replace=False):
                middle = flat[i]
                flat[i] = middle + width
                above = loss(layers, x, y)
                flat[i] = middle - width
                below = loss(layers, x, y)
                flat[i] = middle
                difference = abs((above - below) / (2 * width) - slope[i])
                size = max(abs(slope[i]), 1e-3 * np.max(np.abs(slope)))
                worst = np.maximum(worst, difference / size)  # stays NaN once it is
    return float(worst)


# ---- the programme -------------------------------------------------------------------------


class Progress:
    """A line that fills up on a terminal, and only its end elsewhere."""

    def __init__(self, title, width=24):
        self.title, self.width = title, width
        self.started = time.perf_counter()
        self.live = sys.stdout.isatty()

    def __call__(self, share):
        """Show that `share` of the work, from 0 to 1, is done."""
        if self.live:
            bar = "#" * round(share * self.width)
            print(f"\r{self.title}  [{bar:.<{self.width}}]", end="", flush=True)

    def end(self, result):
        """Finish the line with the result and the seconds it took."""
        seconds = time.perf_counter() - self.started
        start = "\r\033[K" if self.live else ""
        print(f"{start}{self.title}  {result}  {seconds:5.2f} s", flush=True)


def main(arguments=None):
    """Run the example; return 0 when the gradient is right and the network good enough."""
    parser = argparse.ArgumentParser(description="Handwritten digits, read by NumPy and fastgrad.")
    parser.add_argument("--quick", action="store_true", help="one split and few epochs")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    options = parser.parse_args(arguments)
    started = time.perf_counter()

    with np.load(DATA) as data:
        x = data["images"] / 16.0
        y = data["labels"].astype(np.intp)
    print(f"{len(x)} images of 8 x 8 pixels, {CLASSES} digits, fastgrad {fg.__version__}")

    rng = np.random.default_rng(options.seed)
    sample = rng.choice(len(x), size=BATCH, replace=False)
    difference = check_gradient(x[sample], y[sample], rng)
    print(f"gradient against finite differences: largest relative difference {difference:.1e}")

    splits = 1 if options.quick else SPLITS
    mean = {}
    for model, how in MODELS.items():
        if options.quick:
            how = how | {"epochs": how["epochs"] // 4}
        results = []
        for split in range(splits):
            rng = np.random.default_rng([options.seed, split])
            training, test = stratified_split(y, rng)
            progress = Progress(f"{model:19}  split {split + 1}/{splits}")
            layers = train(x[training], y[training], **how, rng=rng, report=progress)
            results.append(accuracy(layers, x[test], y[test]))
            progress.end(f"held-out accuracy {results[-1]:6.2%}")
        mean[model] = np.mean(results)
        print(f"{model:19}  mean       held-out accuracy {mean[model]:6.2%}")
    print(f"total time {time.perf_counter() - started:.1f} s")

    required = REQUIRED_ACCURACY_QUICK if options.quick else REQUIRED_ACCURACY
    failures = []
    if not difference <= LARGEST_DIFFERENCE:  # also when it is NaN
        failures.append(f"the gradient is off by {difference:.1e}, more than {LARGEST_DIFFERENCE}")
    if not mean["network"] >= required:
        failures.append(f"the network reads {mean['network']:.2%}, less than {required:.1%}")
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
