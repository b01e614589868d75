"""Optimisers, schedules of learning rates, and clipping of gradients.

    >>> import numpy as np
    >>> import fastgrad as fg
    >>> params = {"w": np.zeros(2), "b": 1.0}
    >>> grads = {"w": np.array([1.0, -2.0]), "b": 5.0}
    >>> opt = fg.optim.SGD(lr=0.1)
    >>> state = opt.init(params)
    >>> params, state = opt.step(grads, state, params)
    >>> params
    {'w': array([-0.1,  0.2]), 'b': 0.5}

Formulas, options and defaults are PyTorch's, so that trajectories agree; each docstring names the
paper behind them.
"""

# `Optimizer.step` checks what it is given and walks through the parameters. An optimiser adds its
# rule: `_change` sees a block of the gradient with the block's buffers, and returns what is
# subtracted from the parameters.

import bisect
import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np

import fastgrad as fg
from fastgrad._core import trees
from fastgrad._core.trees import flatten_like, unflatten

__all__ = [
    "SGD", "Adam", "AdamW", "Constant", "CosineDecay", "ExponentialDecay", "LinearWarmup",
    "Momentum", "Nesterov", "Optimizer", "RMSProp", "Sequential", "State", "StepDecay",
    "clip_by_global_norm", "clip_by_value", "global_norm",
]

# Entries that are updated at a time. What a rule reads and writes then stays in the cache (Adam on
# 10^6 numbers takes two thirds of the time that it takes in one go), and the two arrays it computes
# in are of this size, however large the parameters are.
BLOCK = 32768

DTYPES = np.dtype(np.float32), np.dtype(np.float64)


# ---- what all optimisers share -------------------------------------------------------------


@dataclass(eq=False)
class State:
    """What an optimiser remembers from step to step. It can be pickled and deep-copied.

    Attributes
    ----------
    step : int
        The number of steps taken.
    buffers : dict of str to pytree
        The optimiser's running means, by name: arrays of the shapes and dtypes of the parameters,
        in the structure of the parameters.

    Examples
    --------
    >>> fg.optim.Momentum(lr=0.1).init([1.0, 2.0])
    State(step=0, buffers={'velocity': [array(0.), array(0.)]})
    """

    step: int
    buffers: dict


@dataclass(kw_only=True)
class Optimizer:
    """What all optimisers share; use one of the classes below it.

    Parameters
    ----------
    lr : float or callable
        The learning rate, or a schedule: called with the number of steps taken (0 before the
        first), it returns the learning rate. It may be assigned to between steps.
    weight_decay : float
        The gradient of ``weight_decay / 2 * sum(p * p)`` is added to that of each parameter p.

    Raises
    ------
    TypeError, ValueError
        If an option is not a number, or is outside its range.
    """

    lr: float | Callable[[int], float] = field(default=1e-3, kw_only=False)
    weight_decay: float = 0.0

    _decoupled: ClassVar[bool] = False  # weights decay beside the rule, not through the gradient

    def __post_init__(self):
        if not callable(self.lr):
            self.lr = _number(self, "lr", self.lr)
        _check_options(self)

    def init(self, params):
        """The state before the first step.

        Parameters
        ----------
        params : pytree
            What is to be optimised: floats, float32 and float64 arrays, NumPy scalars and Tensors,
            nested in tuples, lists, dicts, namedtuples, dataclasses and registered classes. None
            stands for nothing; strings, bools and functions among them stay as they are.

        Returns
        -------
        State

        Raises
        ------
        TypeError
            If something else is among the parameters.
        """
        leaves, structure = trees.numbers(params)
        _check_kinds("params", structure, leaves)
        structure = trees.bare(structure)
        return State(0, {name: unflatten(structure, [np.zeros_like(_value(p)) for p in leaves])
                         for name in self._buffers()})

    def step(self, grads, state, params, *, in_place=True):
        """One step towards smaller values of the function whose gradient is given.

        Parameters
        ----------
        grads : pytree
            The gradient: the structure, shapes and dtypes of `params`. Arrays and Tensors may stand
            for each other, and a Python float goes with a number of either dtype; None stands where
            `params` have no number.
        state : State
            From `init`, or from the previous step.
        params : pytree
            The parameters, as in `init`.
        in_place : bool
            Write to the memory of the arrays, the Tensors and the state that are passed. Arrays
            are then updated without temporaries of their size, Tensors with one at a time. With
            False the arguments stay as they are.

        Returns
        -------
        params : pytree
            With `in_place` the same arrays and Tensors, and new floats and NumPy scalars; else all
            of them new.
        state : State
            With `in_place` the same object.

        Raises
        ------
        TypeError
            If something is not of the types and dtypes above.
        ValueError
            If structures or shapes differ, if an array to be written to is read-only or appears
            twice, if the state is not from this optimiser, or if a schedule returns anything but a
            number of at least 0.

        Notes
        -----
        After an error nothing has changed. No derivative goes through a step.
        """
        leaves, structure = trees.numbers(params)
        _check_kinds("params", structure, leaves)
        if in_place:
            _check_writable(structure, leaves)
        gradients = _matching("grads", grads, leaves, structure)
        names = self._buffers()
        if not isinstance(state, State) or state.buffers.keys() != set(names):
            raise ValueError(f"{type(self).__name__}.step: this is not a state of this optimiser "
                             "with these options; pass what its init returned")
        buffers = [_matching(f"state.buffers[{name!r}]", state.buffers[name], leaves, structure)
                   for name in names]
        lr = self._learning_rate(state.step)

        # The gradient of x * y, written by hand, is [y, x]: not to be read after x has changed.
        owners = {_owner(leaf) for leaf in leaves if isinstance(leaf, np.ndarray)}
        gradients = [g.copy() if _owner(g) in owners else g for g in gradients]
        buffers = [[b if in_place and b.flags.writeable else b.copy("K") for b in buffer]
                   for buffer in buffers]
        if not in_place:
            state = State(state.step, {})
        state.step += 1
        bare = trees.bare(structure)
        state.buffers = {name: unflatten(bare, buffer)
                         for name, buffer in zip(names, buffers, strict=True)}
        scratch = np.empty((2, min(BLOCK, max([g.size for g in gradients], default=0))))
        results = []
        with np.errstate(all="ignore"):
            for leaf, gradient, *own in zip(leaves, gradients, *buffers, strict=True):
                value = _opened(leaf, in_place)
                for p, g, *b in _blocks([value, gradient, *own]):
                    self._update(p, g, dict(zip(names, b, strict=True)), scratch, lr, state.step)
                results.append(_closed(leaf, value, in_place))
        return unflatten(structure, results), state

    def _update(self, p, g, buffers, scratch, lr, step):
        """Update a block of the parameters."""
        out = scratch[0].view(p.dtype)[:p.size].reshape(p.shape)
        if self.weight_decay and not self._decoupled:
            decayed = scratch[1].view(p.dtype)[:p.size].reshape(p.shape)
            g = np.add(g, np.multiply(p, self.weight_decay, out=decayed), out=decayed)
        change = self._change(g, buffers, out, lr, step)
        if self.weight_decay and self._decoupled:
            p *= 1 - lr * self.weight_decay
        p -= change

    def _buffers(self):
        """The names of the buffers that the rule needs."""
        return ()

    def _change(self, g, buffers, out, lr, step):
        """The rule: update the buffers, and return what is to be subtracted from the parameters.

        `g` is the gradient and is not written to; `buffers` maps names to arrays of its shape and
        dtype, and so is `out`, to compute in. `step` is 1 at the first step.
        """
        raise NotImplementedError

    def _learning_rate(self, step):
        if not callable(self.lr):
            return _number(self, "lr", self.lr)
        return _number(self, f"the learning rate of step {step}", self.lr(step), error=ValueError)


# ---- the optimisers ------------------------------------------------------------------------


@dataclass(kw_only=True)
class SGD(Optimizer):
    """Gradient descent, p -= lr * g; stochastic if the gradient is that of a random batch.

    H. Robbins and S. Monro, "A stochastic approximation method", 1951,
    https://doi.org/10.1214/aoms/1177729586.

    Parameters
    ----------
    lr, weight_decay
        As in `Optimizer`.

    Examples
    --------
    >>> opt = fg.optim.SGD(lr=0.25)
    >>> x = 4.0
    >>> state = opt.init(x)
    >>> for _ in range(3):
    ...     x, state = opt.step(fg.grad(lambda x: x * x)(x), state, x)
    >>> x
    0.5
    """

    def _change(self, g, buffers, out, lr, step):
        return np.multiply(g, lr, out=out)


@dataclass(kw_only=True)
class Momentum(Optimizer):
    """Gradient descent that keeps its speed: v = momentum * v + (1 - dampening) * g; p -= lr * v.

    The first step is v = g. As ``torch.optim.SGD(momentum=...)``; after B. T. Polyak, "Some methods
    of speeding up the convergence of iteration methods", 1964,
    https://doi.org/10.1016/0041-5553(64)90137-5.

    Parameters
    ----------
    lr, weight_decay
        As in `Optimizer`.
    momentum : float
        What is kept of the velocity v; at least 0 and less than 1.
    dampening : float
        What is held back of the gradient; at least 0 and less than 1.

    Notes
    -----
    The state's buffer is ``velocity``.

    Examples
    --------
    >>> opt = fg.optim.Momentum(lr=0.5, momentum=0.5)
    >>> x = 4.0
    >>> state = opt.init(x)
    >>> for _ in range(3):
    ...     x, state = opt.step(1.0, state, x)
    ...     print(x)
    3.5
    2.75
    1.875
    """

    momentum: float = 0.9
    dampening: float = 0.0

    def _buffers(self):
        return ("velocity",)

    def _change(self, g, buffers, out, lr, step):
        v = buffers["velocity"]
        v *= self.momentum
        if self.dampening and step > 1:
            g = np.multiply(g, 1 - self.dampening, out=out)
        v += g
        return np.multiply(v, lr, out=out)


@dataclass(kw_only=True)
class Nesterov(Optimizer):
    """Momentum that looks one step ahead: v = momentum * v + g; p -= lr * (g + momentum * v).

    As ``torch.optim.SGD(momentum=..., nesterov=True)``: Y. Nesterov's method of 1983 in the form of
    I. Sutskever, J. Martens, G. Dahl and G. Hinton, "On the importance of initialization and
    momentum in deep learning", 2013, https://proceedings.mlr.press/v28/sutskever13.html.

    Parameters
    ----------
    lr, weight_decay
        As in `Optimizer`.
    momentum : float
        What is kept of the velocity v; at least 0 and less than 1.

    Notes
    -----
    The state's buffer is ``velocity``.

    Examples
    --------
    >>> opt = fg.optim.Nesterov(lr=0.5, momentum=0.5)
    >>> opt.step(1.0, opt.init(4.0), 4.0)[0]
    3.25
    """

    momentum: float = 0.9

    def _buffers(self):
        return ("velocity",)

    def _change(self, g, buffers, out, lr, step):
        v = buffers["velocity"]
        v *= self.momentum
        v += g
        np.multiply(v, self.momentum, out=out)
        out += g
        out *= lr
        return out


@dataclass(kw_only=True)
class RMSProp(Optimizer):
    """Gradient descent with each step divided by the size that gradients have had lately.

    s = alpha * s + (1 - alpha) * g * g; p -= lr * g / (sqrt(s) + eps). T. Tieleman and G. Hinton,
    "Lecture 6.5: RMSProp", Neural networks for machine learning, Coursera, 2012; centred as in
    A. Graves, "Generating sequences with recurrent neural networks", 2013,
    https://arxiv.org/abs/1308.0850.

    Parameters
    ----------
    lr : float or callable
        As in `Optimizer`; 0.01 if not given.
    weight_decay : float
        As in `Optimizer`.
    alpha : float
        What is kept of the running means; at least 0 and less than 1.
    eps : float
        Keeps the divisor from 0; at least 0.
    momentum : float
        If not 0: v = momentum * v + g / (sqrt(s) + eps); p -= lr * v. At least 0, less than 1.
    centered : bool
        Divide by the gradients' standard deviation: the square of their running mean is subtracted
        from s before the root is taken. (Where rounding makes the difference negative it is 0.)

    Notes
    -----
    The state's buffers are ``mean_square``, with `centered` ``mean``, with `momentum` ``velocity``.

    Examples
    --------
    >>> opt = fg.optim.RMSProp(lr=0.1, alpha=0.75)
    >>> x = np.zeros(2)
    >>> opt.step(np.array([1.0, -1000.0]), opt.init(x), x)[0].round(6)
    array([-0.2,  0.2])
    """

    lr: float | Callable[[int], float] = field(default=1e-2, kw_only=False)
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def _buffers(self):
        return (("mean_square",) + ("mean",) * bool(self.centered)
                + ("velocity",) * bool(self.momentum))

    def _change(self, g, buffers, out, lr, step):
        s = buffers["mean_square"]
        _average(s, self.alpha, np.square(g, out=out), out)
        if self.centered:
            mean = buffers["mean"]
            _average(mean, self.alpha, g, out)
            np.subtract(s, np.square(mean, out=out), out=out)
            s = np.maximum(out, 0, out=out)
        np.sqrt(s, out=out)
        out += self.eps
        np.divide(g, out, out=out)
        if not self.momentum:
            out *= lr
            return out
        v = buffers["velocity"]
        v *= self.momentum
        v += out
        return np.multiply(v, lr, out=out)


@dataclass(kw_only=True)
class Adam(Optimizer):
    """The running mean of the gradients, divided by the root of that of their squares.

    m = beta1 * m + (1 - beta1) * g; s = beta2 * s + (1 - beta2) * g * g; and at step t, counted
    from 1, p -= lr * m / (1 - beta1**t) / (sqrt(s / (1 - beta2**t)) + eps).
    D. P. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1,
    https://arxiv.org/abs/1412.6980.

    Parameters
    ----------
    lr, weight_decay
        As in `Optimizer`.
    betas : tuple of float
        beta1 and beta2, what is kept of the running means; at least 0 and less than 1.
    eps : float
        Keeps the divisor from 0; at least 0.
    amsgrad : bool
        Put the largest s so far in the place of s: S. J. Reddi, S. Kale and S. Kumar, "On the
        convergence of Adam and beyond", 2018, https://arxiv.org/abs/1904.09237.

    Notes
    -----
    The state's buffers are ``mean``, ``mean_square``, and with `amsgrad` ``largest_mean_square``.

    Examples
    --------
    >>> gradient = fg.grad(lambda x: np.sum((x - np.array([1.0, -2.0])) ** 2))
    >>> opt = fg.optim.Adam(lr=0.1)
    >>> x = np.zeros(2)
    >>> state = opt.init(x)
    >>> for _ in range(300):
    ...     x, state = opt.step(gradient(x), state, x)
    >>> x.round(3)
    array([ 1., -2.])
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    amsgrad: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.betas, Sequence) or len(self.betas) != 2:
            raise TypeError(f"{type(self).__name__}: betas must be a pair of numbers, not "
                            f"{self.betas!r}")
        self.betas = tuple([_number(self, f"betas[{i}]", beta, below=1)
                            for i, beta in enumerate(self.betas)])

    def _buffers(self):
        return ("mean", "mean_square") + ("largest_mean_square",) * bool(self.amsgrad)

    def _change(self, g, buffers, out, lr, step):
        beta1, beta2 = self.betas
        m, s = buffers["mean"], buffers["mean_square"]
        _average(m, beta1, g, out)
        _average(s, beta2, np.square(g, out=out), out)
        if self.amsgrad:
            largest = buffers["largest_mean_square"]
            s = np.maximum(largest, s, out=largest)
        # sqrt(s / (1 - beta2**t)) + eps, with the correction moved out of the fraction: one pass
        # over the block less.
        correction = math.sqrt(1 - beta2**step)
        np.sqrt(s, out=out)
        out += self.eps * correction
        np.divide(m, out, out=out)
        out *= lr * correction / (1 - beta1**step)
        return out


@dataclass(kw_only=True)
class AdamW(Adam):
    """Adam with weights that decay beside the gradient: p *= 1 - lr * weight_decay at each step.

    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", 2019, algorithm 2,
    https://arxiv.org/abs/1711.05101.

    Parameters
    ----------
    lr, betas, eps, amsgrad
        As in `Adam`.
    weight_decay : float
        At least 0; 0.01 if not given.

    Examples
    --------
    >>> opt = fg.optim.AdamW(lr=0.5, weight_decay=0.5)
    >>> opt.step(0.0, opt.init(4.0), 4.0)[0]
    3.0
    """

    weight_decay: float = 1e-2

    _decoupled: ClassVar[bool] = True


def _average(mean, kept, x, out):
    """mean = kept * mean + (1 - kept) * x, in place. `out` is to compute in; x may be it."""
    mean *= kept
    mean += np.multiply(x, 1 - kept, out=out)


# ---- schedules of learning rates -----------------------------------------------------------


class _Schedule:
    """What the schedules that are dataclasses share."""

    def __post_init__(self):
        _check_options(self)


@dataclass
class Constant(_Schedule):
    """The same learning rate at every step, for a part of `Sequential`.

    Parameters
    ----------
    lr : float

    Examples
    --------
    >>> fg.optim.Constant(0.1)(1000)
    0.1
    """

    lr: float

    def __call__(self, step):
        return self.lr


@dataclass
class ExponentialDecay(_Schedule):
    """lr * gamma**step. As ``torch.optim.lr_scheduler.ExponentialLR``.

    Parameters
    ----------
    lr : float
        At the first step.
    gamma : float
        The factor from one step to the next; at least 0.

    Examples
    --------
    >>> schedule = fg.optim.ExponentialDecay(0.5, gamma=0.5)
    >>> schedule(0), schedule(1), schedule(2)
    (0.5, 0.25, 0.125)
    """

    lr: float
    gamma: float

    def __call__(self, step):
        return self.lr * self.gamma**step


@dataclass
class StepDecay(_Schedule):
    """lr * gamma**(step // every). As ``torch.optim.lr_scheduler.StepLR``.

    Parameters
    ----------
    lr : float
        At the first step.
    every : int
        After how many steps the rate changes.
    gamma : float
        The factor by which it does; at least 0.

    Examples
    --------
    >>> schedule = fg.optim.StepDecay(0.5, every=10, gamma=0.5)
    >>> schedule(9), schedule(10), schedule(20)
    (0.5, 0.25, 0.125)
    """

    lr: float
    every: int
    gamma: float = 0.1

    def __call__(self, step):
        return self.lr * self.gamma ** (step // self.every)


@dataclass
class CosineDecay(_Schedule):
    """final + (lr - final) * (1 + cos(pi * step / steps)) / 2, and `final` from then on.

    As ``torch.optim.lr_scheduler.CosineAnnealingLR`` up to `steps`; I. Loshchilov and F. Hutter,
    "SGDR: stochastic gradient descent with warm restarts", 2017, equation 5,
    https://arxiv.org/abs/1608.03983.

    Parameters
    ----------
    lr : float
        At the first step.
    steps : int
        After how many steps the rate has come down.
    final : float
        What it has come down to.

    Examples
    --------
    >>> schedule = fg.optim.CosineDecay(1.0, steps=100)
    >>> schedule(0), round(schedule(50), 12), schedule(100), schedule(1000)
    (1.0, 0.5, 0.0, 0.0)
    """

    lr: float
    steps: int
    final: float = 0.0

    def __call__(self, step):
        share = (1 + math.cos(math.pi * min(step / self.steps, 1))) / 2
        return self.final + (self.lr - self.final) * share


@dataclass
class LinearWarmup(_Schedule):
    """Rises in a straight line from start * lr to lr, and stays there.

    As ``torch.optim.lr_scheduler.LinearLR``; P. Goyal et al., "Accurate, large minibatch SGD:
    training ImageNet in 1 hour", 2017, section 2.2, https://arxiv.org/abs/1706.02677.

    Parameters
    ----------
    lr : float
        After the warm-up.
    steps : int
        After how many steps it is reached.
    start : float
        The share of lr at the first step; at least 0.

    Examples
    --------
    >>> schedule = fg.optim.LinearWarmup(1.0, steps=4, start=0.5)
    >>> [schedule(step) for step in range(6)]
    [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    """

    lr: float
    steps: int
    start: float = 1 / 3

    def __call__(self, step):
        return self.lr * (self.start + (1 - self.start) * min(step / self.steps, 1))


@dataclass
class Sequential:
    """One schedule after the other, each counting from its own first step.

    As ``torch.optim.lr_scheduler.SequentialLR``.

    Parameters
    ----------
    schedules : sequence of callable
        Callables from step to learning rate.
    milestones : sequence of int
        The steps at which the second schedule takes over, the third and so on; increasing.

    Examples
    --------
    >>> warmup = fg.optim.LinearWarmup(1.0, steps=2, start=0.5)
    >>> decay = fg.optim.ExponentialDecay(1.0, gamma=0.5)
    >>> schedule = fg.optim.Sequential([warmup, decay], milestones=[2])
    >>> [schedule(step) for step in range(5)]
    [0.5, 0.75, 1.0, 0.5, 0.25]
    """

    schedules: Sequence[Callable[[int], float]]
    milestones: Sequence[int]

    def __post_init__(self):
        self.schedules = tuple(self.schedules)
        self.milestones = tuple([_count(self, f"milestones[{i}]", milestone)
                                 for i, milestone in enumerate(self.milestones)])
        for schedule in self.schedules:
            if not callable(schedule):
                raise TypeError(f"Sequential: {schedule!r} is not a schedule; write Constant(lr) "
                                "for a learning rate that stays the same")
        if len(self.schedules) != len(self.milestones) + 1:
            raise ValueError(f"Sequential: {len(self.schedules)} schedules need one milestone "
                             f"less, not {len(self.milestones)}")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"Sequential: the milestones must increase, not {self.milestones}")

    def __call__(self, step):
        i = bisect.bisect_right(self.milestones, step)
        return self.schedules[i](step - (self.milestones[i - 1] if i else 0))


# ---- clipping of gradients -----------------------------------------------------------------


def global_norm(grads):
    """The root of the sum of the squares of all entries, computed in float64.

    Parameters
    ----------
    grads : pytree
        Floats, float32 and float64 arrays, NumPy scalars and Tensors.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        If something else is among the gradients.

    Examples
    --------
    >>> fg.optim.global_norm({"w": np.array([2.0, 3.0]), "b": 6.0})
    7.0
    """
    leaves, structure = trees.numbers(grads)
    _check_kinds("grads", structure, leaves)
    with np.errstate(all="ignore"):
        return math.hypot(*[_norm(_value(leaf)) for leaf in leaves])


def clip_by_global_norm(grads, max_norm):
    """Scale the gradient down to the length `max_norm` if it is longer.

    R. Pascanu, T. Mikolov and Y. Bengio, "On the difficulty of training recurrent neural networks",
    2013, algorithm 1, https://arxiv.org/abs/1211.5063.

    Parameters
    ----------
    grads : pytree
        As in `global_norm`.
    max_norm : float
        At least 0.

    Returns
    -------
    pytree
        New arrays and Tensors, of the same shapes and dtypes; or `grads` itself if it is not longer
        than `max_norm`, or has a NaN. Of an infinite gradient the infinite entries become NaN and
        the others 0, as in PyTorch.

    Raises
    ------
    TypeError, ValueError
        As `global_norm`, or if `max_norm` is not a number of at least 0.

    Examples
    --------
    >>> fg.optim.clip_by_global_norm({"w": np.array([2.0, 3.0]), "b": 6.0}, max_norm=3.5)
    {'w': array([1. , 1.5]), 'b': 3.0}
    """
    max_norm = _number(clip_by_global_norm, "max_norm", max_norm)
    norm = global_norm(grads)
    if not norm > max_norm:
        return grads
    return _mapped(lambda g: np.multiply(g, max_norm / norm, out=g), grads)


def clip_by_value(grads, max_value):
    """Bring each entry of the gradient into the interval from -max_value to max_value.

    Parameters
    ----------
    grads : pytree
        As in `global_norm`.
    max_value : float
        At least 0.

    Returns
    -------
    pytree
        New arrays and Tensors, of the same shapes and dtypes; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        As `clip_by_global_norm`.

    Examples
    --------
    >>> fg.optim.clip_by_value({"w": np.array([-2.0, 0.5]), "b": 6.0}, max_value=1.0)
    {'w': array([-1. ,  0.5]), 'b': 1.0}
    """
    max_value = _number(clip_by_value, "max_value", max_value)
    return _mapped(lambda g: np.clip(g, -max_value, max_value, out=g), grads)


def _norm(a):
    """The root of the sum of squares, also where the squares would not fit into float64."""
    axes = list(range(a.ndim))
    square = np.einsum(a, axes, a, axes, [], dtype=np.float64)
    if 1e-280 < square < math.inf:
        return math.sqrt(square)
    peak = float(np.max(np.abs(a), initial=0))
    return peak * _norm(a / peak) if 0 < peak < math.inf else peak


def _mapped(function, grads):
    """A gradient with the function applied to a copy of each array."""
    leaves, structure = trees.numbers(grads)
    _check_kinds("grads", structure, leaves)
    results = []
    with np.errstate(all="ignore"):
        for leaf in leaves:
            value = _opened(leaf, in_place=False)
            results.append(_closed(leaf, function(value), in_place=False))
    return unflatten(structure, results)


# ---- from parameters to arrays and back ----------------------------------------------------


def _value(leaf):
    """The value of a leaf as an array, not copied."""
    return leaf.numpy() if fg.is_tensor(leaf) else np.asarray(leaf)


def _opened(leaf, in_place):
    """The array to be updated for a leaf: its own memory, or a copy."""
    if in_place and isinstance(leaf, np.ndarray):
        return np.asarray(leaf)
    return np.array(_value(leaf))


def _closed(leaf, value, in_place):
    """What stands for a leaf after the array that was opened for it has been updated."""
    if isinstance(leaf, np.ndarray):
        return leaf if in_place else value
    if not fg.is_tensor(leaf):
        return value[()] if isinstance(leaf, np.generic) else value.item()
    if not in_place:
        return fg.tensor(value, requires_grad=leaf.requires_grad, copy=False)
    with fg.no_grad():
        leaf[...] = value
    return leaf


def _owner(a):
    """What tells apart the memory of arrays."""
    return id(a if a.base is None else a.base)


def _blocks(arrays):
    """Corresponding parts of arrays of one shape, of at most BLOCK entries."""
    first = arrays[0]
    if first.size <= BLOCK:
        yield arrays
        return
    if first.flags.fnc:
        arrays = [a.T for a in arrays]  # as flat as those in C order, if all are like the first
    if all([a.flags.c_contiguous for a in arrays]):
        arrays = [a.reshape(-1) for a in arrays]
    length = len(arrays[0])
    rows = BLOCK * length // first.size
    if rows:
        for i in range(0, length, rows):
            yield [a[i:i + rows] for a in arrays]
    else:
        for i in range(length):
            yield from _blocks([a[i] for a in arrays])


# ---- checks --------------------------------------------------------------------------------


# Shares that are kept from step to step.
_BELOW = {"momentum": 1, "dampening": 1, "alpha": 1}


def _check_options(self):
    """Numbers and counts among the fields of a dataclass as floats and ints in their range."""
    for option in fields(self):
        name, value = option.name, getattr(self, option.name)
        if option.type is float:
            setattr(self, name, _number(self, name, value, _BELOW.get(name, math.inf)))
        elif option.type is int:
            setattr(self, name, _count(self, name, value))


def _number(owner, name, value, below=math.inf, error=TypeError):
    """An option as a float, refused unless it is a number of at least 0 and below a bound."""
    owner = getattr(owner, "__name__", type(owner).__name__)
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise error(f"{owner}: {name} must be a number, not {value!r}")
    if not 0 <= value < below:
        raise ValueError(f"{owner}: {name} must be at least 0 and less than {below}, not {value!r}")
    return float(value)


def _count(owner, name, value):
    """An option as an int, refused unless it is an integer of at least 1."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{type(owner).__name__}: {name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{type(owner).__name__}: {name} must be at least 1, not {value!r}")
    return int(value)


def _check_kinds(what, structure, leaves):
    """Refuse leaves that are not floating-point numbers, arrays or Tensors."""
    for i, leaf in enumerate(leaves):
        cure = _cure(leaf)
        if cure is not None:
            raise TypeError(f"{what}{_path(structure, i)} is {_description(leaf)}; {cure}")


def _cure(leaf):
    """What to write instead of a leaf that cannot be taken; None if it can."""
    if isinstance(leaf, float):
        return None
    if isinstance(leaf, int):
        return "write float(...)"
    if fg.is_tensor(leaf):
        if leaf.requires_grad and not leaf.is_leaf:
            return "it is recorded, and no derivative goes through a step: pass .detach() of it"
    elif isinstance(leaf, np.matrix):
        return "write np.asarray(x)"
    elif not isinstance(leaf, np.ndarray | np.generic) or isinstance(leaf, np.ma.MaskedArray):
        return "pass floats, arrays or Tensors, or tuples, lists, dicts and dataclasses of them"
    if leaf.dtype in DTYPES:
        return None
    return "write .astype(float)" if leaf.dtype.kind in "biu" else "use float32 or float64"


def _check_writable(structure, leaves):
    """Refuse arrays that cannot be updated in place, and those that would be updated twice."""
    places = {}
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, float | np.generic):
            continue
        if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
            raise ValueError(f"params{_path(structure, i)} is read-only; pass a copy, or "
                             "in_place=False")
        first = places.setdefault(id(leaf), i)
        if first != i:
            raise ValueError(f"params{_path(structure, first)} and params{_path(structure, i)} are "
                             "the same; pass it once, or in_place=False")


def _matching(what, tree, leaves, structure):
    """The leaves of a tree as arrays; refused unless they are of the kinds of the parameters."""
    try:
        found = flatten_like(structure, tree)
    except ValueError as error:
        raise ValueError(f"{what} must have the structure of params: {error}") from None
    _check_kinds(what, structure, found)
    arrays = []
    for i, (leaf, wanted) in enumerate(zip(found, leaves, strict=True)):
        value = _value(leaf)
        # Python floats have no shape and no dtype, and take any dtype.
        shape, dtype = getattr(wanted, "shape", ()), getattr(wanted, "dtype", DTYPES[1])
        if value.shape != shape:
            raise ValueError(f"{what}{_path(structure, i)} has shape {value.shape}, "
                             f"params{_path(structure, i)} {shape}")
        if value.dtype != dtype:
            if hasattr(leaf, "dtype") and hasattr(wanted, "dtype"):
                raise TypeError(f"{what}{_path(structure, i)} is {value.dtype}, "
                                f"params{_path(structure, i)} {dtype}")
            value = value.astype(dtype)
        arrays.append(value)
    return arrays


def _path(structure, i):
    """How the i-th leaf is reached from a tree, such as ['w'][0]."""
    return trees.paths(structure)[i]


def _description(leaf):
    """A leaf in words, for an error."""
    if fg.is_tensor(leaf):
        return f"a {leaf.dtype} Tensor"
    if isinstance(leaf, np.ma.MaskedArray):
        return "a masked array"
    if isinstance(leaf, np.matrix):
        return "a numpy.matrix"
    if isinstance(leaf, np.ndarray | np.generic):
        return f"of dtype {leaf.dtype}"
    return f"the {type(leaf).__name__} {leaf!r}"[:80]
