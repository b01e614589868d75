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

from .clipping import clip_by_global_norm, clip_by_value, global_norm
from .optimisers import SGD, Adam, AdamW, Momentum, Nesterov, Optimizer, RMSProp, State
from .schedules import Constant, CosineDecay, ExponentialDecay, LinearWarmup, Sequential, StepDecay

__all__ = [
    "SGD", "Adam", "AdamW", "Constant", "CosineDecay", "ExponentialDecay", "LinearWarmup",
    "Momentum", "Nesterov", "Optimizer", "RMSProp", "Sequential", "State", "StepDecay",
    "clip_by_global_norm", "clip_by_value", "global_norm",
]
