"""Learning rates that change with the step."""

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .given import _check_options, _count

__all__ = ["Constant", "CosineDecay", "ExponentialDecay", "LinearWarmup", "Sequential", "StepDecay"]


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
