"""Optimisers: what they share, and the rule of each."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from fastgrad._core import trees
from fastgrad._core.trees import unflatten

from . import given
from .given import (
    _blocks,
    _check_kinds,
    _check_options,
    _check_writable,
    _closed,
    _matching,
    _number,
    _opened,
    _owner,
    _value,
)

__all__ = ["Adam", "AdamW", "Momentum", "Nesterov", "Optimizer", "RMSProp", "SGD", "State"]

# `Optimizer.step` checks what it is given and walks through the parameters. An optimiser adds its
# rule: `_change` sees a block of the gradient with the block's buffers, and returns what is
# subtracted from the parameters.

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
        scratch = np.empty((2, min(given.BLOCK, max([g.size for g in gradients], default=0))))
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
