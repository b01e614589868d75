"""Writes optim_trajectories.npz: the paths of PyTorch's optimisers on a small nonlinear problem.

    python tests/data/make_optim_trajectories.py            (PyTorch and NumPy; written with 2.13.0)

tests/test_optim.py compares fastgrad's paths with the file, and where PyTorch can be imported with
`path` itself. The file holds the optimisers as fastgrad writes them (`optimizers`) and, for each
dtype and optimiser, the parameters after every STRIDE steps.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("optim_trajectories.npz")
STEPS = 100
STRIDE = 10

# fastgrad.optim, torch.optim, torch.optim.lr_scheduler
CASES = [
    ("SGD(lr=0.5)", "SGD(lr=0.5)", None),
    ("SGD(lr=0.5, weight_decay=0.1)", "SGD(lr=0.5, weight_decay=0.1)", None),
    *[(f"Momentum(lr=0.1, momentum=0.8, {options})", f"SGD(lr=0.1, momentum=0.8, {options})", None)
      for options in ("", "dampening=0.3", "weight_decay=0.1", "dampening=0.3, weight_decay=0.1")],
    *[(f"Nesterov(lr=0.1, momentum=0.8, {options})",
       f"SGD(lr=0.1, momentum=0.8, nesterov=True, {options})", None)
      for options in ("", "weight_decay=0.1")],
    *[(f"RMSProp({options})", f"RMSprop({options})", None)
      for options in (
          "", "alpha=0.9, eps=1e-4", "weight_decay=0.1", "momentum=0.5", "centered=True",
          "momentum=0.5, weight_decay=0.1", "centered=True, weight_decay=0.1",
          "centered=True, momentum=0.5", "centered=True, momentum=0.5, weight_decay=0.1")],
    *[(f"{name}({options})", f"{name}({options})", None)
      for name in ("Adam", "AdamW")
      for options in (
          "", "lr=0.05", "lr=0.05, betas=(0.8, 0.95), eps=1e-3", "lr=0.05, weight_decay=0.1",
          "lr=0.05, amsgrad=True", "lr=0.05, weight_decay=0.1, amsgrad=True")],
    ("Adam(lr=Constant(0.05))", "Adam(lr=0.05)", "ConstantLR(factor=1)"),
    ("AdamW(lr=ExponentialDecay(0.05, gamma=0.97))", "AdamW(lr=0.05)", "ExponentialLR(gamma=0.97)"),
    ("SGD(lr=StepDecay(0.5, every=30))", "SGD(lr=0.5)", "StepLR(step_size=30)"),
    ("SGD(lr=CosineDecay(0.5, steps=100, final=0.01))", "SGD(lr=0.5)",
     "CosineAnnealingLR(T_max=100, eta_min=0.01)"),
    ("SGD(lr=LinearWarmup(0.5, steps=20))", "SGD(lr=0.5)", "LinearLR(total_iters=20)"),
    ("SGD(lr=Sequential([LinearWarmup(0.5, 20, start=0.1), CosineDecay(0.5, 80)], [20]))",
     "SGD(lr=0.5)", "SequentialLR(schedulers=[LinearLR(optimizer, 0.1, total_iters=20), "
                    "CosineAnnealingLR(optimizer, 80)], milestones=[20])"),
]


def problem(dtype):
    """A layer: inputs (8, 4), targets (STEPS, 8, 3), weights (4, 3) and bias (3,) at the start.

    The targets change from step to step. If they did not, gradients would vanish, and what divides
    by their size would magnify rounding errors without bound.
    """
    grid = np.arange(32.0).reshape(8, 4)
    inputs = np.sin(1 + grid * grid)
    targets = 0.8 * np.cos(grid[:, :3] * 1.7 + 0.1 * np.arange(STEPS)[:, None, None])
    weights = np.cos(np.arange(12.0).reshape(4, 3))
    return [a.astype(dtype) for a in (inputs, targets, weights, np.array([0.5, -0.5, 0.0]))]


def path(optimizer, scheduler, dtype):
    """PyTorch's parameters after each of STEPS steps, an array of shape (STEPS, 15)."""
    import torch

    inputs, targets, weights, bias = map(torch.tensor, problem(dtype))
    parameters = [weights.requires_grad_(), bias.requires_grad_()]
    call = optimizer.replace("(", "(parameters, ", 1)
    optimizer = eval(call, vars(torch.optim) | {"parameters": parameters})
    if scheduler is not None:
        call = scheduler.replace("(", "(optimizer, ", 1)
        scheduler = eval(call, vars(torch.optim.lr_scheduler) | {"optimizer": optimizer})
    rows = []
    for target in targets:
        optimizer.zero_grad()
        ((torch.tanh(inputs @ weights + bias) - target) ** 2).mean().backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        rows.append(torch.cat([p.detach().ravel() for p in parameters]).numpy())
    return np.array(rows)


if __name__ == "__main__":
    paths = {dtype: [path(theirs, scheduler, dtype)[STRIDE - 1::STRIDE]
                     for _, theirs, scheduler in CASES] for dtype in ("float32", "float64")}
    np.savez_compressed(FILE, optimizers=[ours for ours, _, _ in CASES], **paths)
    print(f"{len(CASES)} optimisers, {FILE.stat().st_size} bytes")
