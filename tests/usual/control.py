"""Optimal control [CasADi: direct methods, MPC; textbooks]."""

import numpy as np

import fastgrad.numpy as fnp

from . import between, positive, static, usual

A = np.array([[1.0, 0.1], [0.0, 0.9]])
B = np.array([0.0, 0.1])
Q = np.diag([1.0, 0.1])
goal = np.array([1.0, 0.0])
reference = np.sin(np.linspace(0, 3, 10))


def car(state, u):
    return fnp.array([state[0] + 0.1 * state[2] * np.cos(state[1]), state[1] + 0.1 * u,
                      0.95 * state[2] + 0.05])


@usual(u=10)
def linear_quadratic(u):
    """A cost over controls [CasADi: single shooting]."""
    x, cost = np.zeros(2), 0.0
    for k in range(10):
        cost = cost + (x - goal) @ Q @ (x - goal) + 0.01 * u[k] ** 2
        x = A @ x + B * u[k]
    return cost + 10 * np.sum((x - goal) ** 2)


@usual(K=2)
def feedback(K):
    """A cost by the gains [textbooks: LQR]."""
    x, cost = np.array([1.0, 0.0]), 0.0
    for _ in range(15):
        u = -np.dot(K, x)
        cost += x @ Q @ x + 0.1 * u * u
        x = A @ x + B * u
    return cost


@usual(r=positive(1))
def riccati(r):
    """A gain by iteration of Riccati's equation [textbooks: LQR]."""
    P, b = np.eye(2), B[:, None]
    for _ in range(10):
        K = (b.T @ P @ A) / (r + b.T @ P @ b)
        P = Q + A.T @ P @ (A - b @ K)
    return P


@usual(u=8)
def car_path(u):
    """Where a car goes, a list of states [CasADi: race car]."""
    state, path = fnp.array([0.0, 0.0, 1.0]), []
    for steer in u:
        state = car(state, steer)
        path.append(state[:2])
    return np.stack(path)


@usual(z=(5, 2), u=4)
def multiple_shooting(z, u):
    """Gaps between steps [CasADi: multiple shooting]."""
    gaps = [A @ z[k] + B * u[k] - z[k + 1] for k in range(4)]
    return np.concatenate(gaps)


@usual(z=(5, 2), u=4)
def multiple_shooting_mapped(z, u):
    """The same at once [CasADi: map]."""
    return (z[:-1] @ A.T + u[:, None] * B - z[1:]).ravel()


@usual(x=4)
def collocation(x):
    """A polynomial's residual at points [CasADi: collocation]."""
    tau = np.array([0.0, 0.155, 0.645, 1.0])
    D = np.zeros((4, 4))
    for j in range(4):
        p = np.poly1d([1])
        for r in range(4):
            if r != j:
                p *= np.poly1d([1, -tau[r]]) / (tau[j] - tau[r])
        D[j] = np.polyder(p)(tau)
    return x @ D + x * 0.5


@usual(u=6, limit=static(0.5))
def saturated(u, limit):
    """Controls within limits, speed that is not below zero [CasADi: MPC]."""
    v = 0.0
    for k in range(6):
        v = max(v + np.clip(u[k], -limit, limit), 0.0)
    return v


@usual(u=10, weight=static(0.1))
def tracking(u, weight):
    """A reference that is followed [CasADi: MPC]."""
    position, total = 0.0, 0.0
    for k, target in enumerate(reference):
        position = position + 0.3 * u[k]
        total += (position - target) ** 2
    return total + weight * np.sum(np.diff(u) ** 2)


@usual(temperature=between(18.0, 22.0), power=3.0)
def thermostat(temperature, power):
    """Heats while it is cold [CasADi: hybrid systems]."""
    heating = False
    for _ in range(20):
        if temperature < 19.0:
            heating = True
        elif temperature > 21.0:
            heating = False
        temperature = temperature + 0.1 * ((power if heating else 0.0) - 0.1 * (temperature - 10))
    return temperature


@usual(throttle=6)
def minimum_time(throttle):
    """A distance for a time [CasADi: race car]."""
    v, x = 0.1, 0.0
    for p in throttle:
        v = v + 0.2 * (1 / (1 + np.exp(-p)) - 0.1 * v ** 2)
        x = x + 0.2 * v
    return x / v


@usual(q=between(-1.0, 1.0, 2), dq=2)
def manipulator_dynamics(q, dq):
    """Mass matrix and accelerations of two links [textbooks: robotics]."""
    c2, s2 = np.cos(q[1]), np.sin(q[1])
    mass = fnp.array([[3 + 2 * c2, 1 + c2], [1 + c2, 1.0]])
    bias = fnp.array([-s2 * (2 * dq[0] * dq[1] + dq[1] ** 2), s2 * dq[0] ** 2])
    return np.linalg.solve(mass, -bias)


@usual(level=positive(3), valves=between(0.1, 0.9, 3))
def tanks(level, valves):
    """Tanks in a row, levels written in place [CasADi: examples]."""
    for _ in range(5):
        flow = valves * np.sqrt(np.maximum(level, 1e-6))
        level = level - 0.1 * flow
        level[1:] += 0.1 * flow[:-1]
    return level
