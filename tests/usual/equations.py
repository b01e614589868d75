"""Differential equations and roots [SciPy: integrate, optimize; HIPS autograd]."""

import numpy as np

import fastgrad.numpy as fnp

from . import between, positive, static, usual

h = 0.05
xs = np.linspace(0.0, 1.0, 11)


def lotka(z, p):
    prey, predator = z
    return fnp.array([p[0] * prey - p[1] * prey * predator,
                      p[2] * prey * predator - p[3] * predator])


def rk4(f, y, n, *args):
    for _ in range(n):
        k1 = f(y, *args)
        k2 = f(y + h / 2 * k1, *args)
        k3 = f(y + h / 2 * k2, *args)
        k4 = f(y + h * k3, *args)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


@usual(p=positive(4))
def lotka_volterra(p):
    """Predators and prey by Runge and Kutta's steps [SciPy: solve_ivp]."""
    return rk4(lotka, np.array([1.0, 0.5]), 10, p)


@usual(y=1.0, rate=0.7)
def exponential_decay(y, rate):
    """A number by the same steps [textbooks: Runge-Kutta]."""
    return rk4(lambda y: -rate * y, y, 20)


@usual(z=3)
def lorenz(z):
    """Lorenz's system [SciPy: solve_ivp]."""
    def f(s):
        x, y, z = s[0], s[1], s[2]
        return fnp.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    return np.sum(rk4(f, z, 5) ** 2)


@usual(z=2, mu=1.0)
def van_der_pol(z, mu):
    """An oscillator whose trajectory is kept [CasADi: vdp]."""
    x, v = z
    track = []
    for _ in range(15):
        x, v = x + h * v, v + h * (mu * (1 - x ** 2) * v - x)
        track.append(x)
    return fnp.array(track)


@usual(beta=0.5, gamma=0.2)
def epidemic(beta, gamma):
    """Susceptible, infected, recovered [SciPy: odeint]."""
    s, i, r = 0.99, 0.01, 0.0
    peak = i
    for _ in range(40):
        new, gone = beta * s * i, gamma * i
        s, i, r = s - new, i + new - gone, r + gone
        peak = np.maximum(peak, i)
    return peak


@usual(u=11)
def heat_steps(u):
    """Heat along a rod by slices [textbooks: finite differences]."""
    for _ in range(10):
        u = np.concatenate([u[:1], u[1:-1] + 0.2 * (u[2:] - 2 * u[1:-1] + u[:-2]), u[-1:]])
    return u


@usual(u=8)
def heat_in_place(u):
    """The same in a copy that is written [textbooks: finite differences]."""
    u = u.copy()
    for _ in range(5):
        u[1:-1] += 0.2 * (u[2:] - 2 * u[1:-1] + u[:-2])
    return np.sum(u ** 2)


@usual(u=8, c=0.3)
def advection(u, c):
    """Against the wind, in a ring [textbooks: finite volumes]."""
    for _ in range(6):
        u = u - c * (u - np.roll(u, 1))
    return u


@usual(u=9)
def burgers(u):
    """Burgers' equation [textbooks: finite differences]."""
    for _ in range(4):
        flux = 0.5 * u ** 2
        u = u - 0.05 * (np.roll(flux, -1) - np.roll(flux, 1)) + 0.02 * (
            np.roll(u, -1) - 2 * u + np.roll(u, 1))
    return np.linalg.norm(u)


@usual(source=9)
def poisson_solve(source):
    """A boundary value problem by a matrix made of diagonals [SciPy: solve_banded]."""
    A = np.diag(2.0 * np.ones(9)) - np.diag(np.ones(8), 1) - np.diag(np.ones(8), -1)
    return np.linalg.solve(A, source)


@usual(k=positive(10))
def variable_conductivity(k):
    """A matrix whose entries depend on the parameters [textbooks: finite elements]."""
    A = fnp.diag(k[:-1] + k[1:]) - fnp.diag(k[1:-1], 1) - fnp.diag(k[1:-1], -1)
    return np.linalg.solve(A, np.ones(9)) @ np.ones(9)


@usual(field=(6, 6))
def jacobi_iterations(field):
    """Sweeps over a grid [HIPS autograd: wing]."""
    p = np.zeros((6, 6))
    for _ in range(5):
        p = 0.25 * (np.roll(p, 1, 0) + np.roll(p, -1, 0) + np.roll(p, 1, 1) + np.roll(p, -1, 1)
                    + field)
    return np.sum(p ** 2)


@usual(x=(5, 5), y=(5, 5))
def fluid_project(x, y):
    """A field without divergence [HIPS autograd: fluid simulation]."""
    div = -0.5 / 5 * (np.roll(x, -1, axis=1) - np.roll(x, 1, axis=1)
                      + np.roll(y, -1, axis=0) - np.roll(y, 1, axis=0))
    p = np.zeros(div.shape)
    for _ in range(4):
        p = (div + np.roll(p, 1, axis=1) + np.roll(p, -1, axis=1)
             + np.roll(p, 1, axis=0) + np.roll(p, -1, axis=0)) / 4.0
    return np.sum((x - p) ** 2 + (y + p) ** 2)


@usual(a=between(1.0, 5.0))
def newton_root(a):
    """A square root by Newton's method to a tolerance [SciPy: newton]."""
    x = a
    while abs(x * x - a) > 1e-12:
        x = 0.5 * (x + a / x)
    return x


@usual(e=between(0.1, 0.6), m=between(0.5, 2.5))
def kepler(e, m):
    """Kepler's equation by a fixed number of steps [SciPy: newton]."""
    x = m
    for _ in range(8):
        x = x - (x - e * np.sin(x) - m) / (1 - e * np.cos(x))
    return x


@usual(a=between(0.2, 0.9))
def fixed_point(a):
    """Until it no longer changes [SciPy: fixed_point]."""
    x, change = 1.0, 1.0
    while change > 1e-13:
        new = np.cos(a * x)
        change, x = abs(new - x), new
    return x


@usual(y=0.8, lam=5.0, n=static(6))
def implicit_euler(y, lam, n):
    """Steps that are solved for [SciPy: BDF]."""
    for _ in range(n):
        y = y / (1 + h * lam)
    return y


@usual(w=(2, 4), b=4, v=(4, 2))
def neural_equation(w, b, v):
    """A net as a right-hand side [HIPS autograd: ode_net]."""
    z = np.array([2.0, 0.0])
    for _ in range(10):
        z = z + 0.1 * np.tanh((z ** 3) @ w + b) @ v
    return np.sum(np.abs(z))
