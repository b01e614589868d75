"""Integrators, quadrature, roots, interpolation in the shapes of SciPy's tutorials."""

import math

import numpy as np
from worlds import written

import fastgrad.numpy as fnp


@written()
def ode_euler():
    rate, steps = 0.5, 4

    def f(x):
        for _ in range(steps):
            x = x + 0.1 * (-rate * x)
        return x

    yield f
    for rate, steps in ((0.5, 4), (1.0, 4), (1.0, 6), (2.0, 2)):
        yield


@written()
def ode_runge_kutta():
    def rhs(t, y):
        return np.stack([y[1], -y[0], 0.1 * y[2] + t])

    def f(x):
        y, h = x, 0.2
        for k in range(3):
            t = k * h
            a = rhs(t, y)
            b = rhs(t + h / 2, y + h / 2 * a)
            c = rhs(t + h / 2, y + h / 2 * b)
            d = rhs(t + h, y + h * c)
            y = y + h / 6 * (a + 2 * b + 2 * c + d)
        return y

    yield f
    yield

    def rhs(t, y):
        return -y * t

    yield


@written()
def ode_adaptive():
    def f(s):
        y, t, h, steps = s, 0.0, 0.5, 0
        while t < 1 and steps < 30:
            steps += 1
            slope = -y * y
            full = y + h * slope
            half = y + 0.5 * h * slope
            half = half - 0.5 * h * half * half
            if abs(full - half) < 0.05:
                y, t = half, t + h
            else:
                h = h / 2
        return y + steps

    yield f


@written()
def ode_event():
    gravity = 9.81

    def f(r):
        height, speed, t = r, 1.0, 0.0
        while height > 0:
            height, speed, t = height + 0.1 * speed, speed - 0.1 * gravity, t + 0.1
        return t - height / speed

    yield f
    for gravity in (9.81, 3.7, 1.6, 9.81):
        yield


@written(params=lambda k: {"a": 1.0 + 0.1 * k, "b": 0.1, "c": 1.5, "d": 0.75 - 0.1 * k})
def ode_lotka_volterra():
    def f(params):
        prey, hunter = 10.0, 5.0
        for _ in range(5):
            prey, hunter = (prey + 0.01 * (params["a"] * prey - params["b"] * prey * hunter),
                            hunter + 0.01 * (params["d"] * params["b"] * prey * hunter
                                             - params["c"] * hunter))
        return prey, hunter

    yield f


@written()
def ode_pendulum():
    b, c = 0.25, 5.0

    def pendulum(y, t, b, c):
        theta, omega = y
        return [omega, -b * omega - c * np.sin(theta)]

    def f(s):
        y = [s, 0.0]
        for k in range(5):
            slope = pendulum(y, 0.1 * k, b, c)
            y = [a + 0.1 * d for a, d in zip(y, slope)]
        return y[0]

    yield f
    for b, c in ((0.25, 5.0), (0.25, 9.0), (0.5, 9.0), (0.5, 5.0)):
        yield


@written()
def ode_counts_rhs():
    class Problem:
        nfev = 0

        def rhs(self, y):
            self.nfev += 1
            return -y

    problem = Problem()

    def f(s):
        for _ in range(3):
            middle = s + 0.05 * problem.rhs(s)
            s = s + 0.1 * problem.rhs(middle)
        return s

    yield f, lambda: problem.nfev


@written()
def ode_dense_table():
    table = []

    def f(s):
        table.clear()
        for k in range(4):
            table.append((0.1 * k, s))
            s = s - 0.1 * s * s
        return s

    yield f, table


@written()
def ode_stiff_implicit():
    stiffness = 50.0

    def f(s):
        y = s
        for _ in range(3):
            new = y
            for _ in range(8):
                residual = new - y + 0.1 * stiffness * (new ** 3 - 1)
                change = residual / (1 + 0.3 * stiffness * new ** 2)
                new = new - change
                if abs(change) < 1e-10:
                    break
            y = new
        return y

    yield f
    for stiffness in (50.0, 10.0, 1.0, 50.0):
        yield


@written()
def ode_switching():
    when = 0.25

    def f(s):
        t = 0.0
        for _ in range(5):
            s = s + 0.1 * (1.0 if t < when else -s)
            t += 0.1
        return s

    yield f
    for when in (0.25, 0.35, 0.05, 1.0):
        yield


@written()
def quadrature_trapezoid():
    grid = np.linspace(0.0, 1.0, 5)

    def f(s):
        values = np.exp(-s * grid)
        return np.sum((values[1:] + values[:-1]) / 2 * np.diff(grid))

    yield f
    for k in range(1, 4):
        yield
        grid[k] += 0.05
    yield


@written()
def quadrature_simpson():
    n = 4

    def f(s):
        if n % 2:
            raise ValueError("an even number of parts")
        grid = np.linspace(0.0, 1.0, n + 1)
        values = np.sin(s * grid)
        return (values[0] + 4 * np.sum(values[1::2]) + 2 * np.sum(values[2:-1:2]) + values[-1]
                ) / (3 * n)

    yield f
    for n in (4, 6, 5, 2, 4):
        yield


@written()
def quadrature_adaptive():
    tolerance = 1e-2

    def f(s):
        def integrand(t):
            return np.exp(s * t)

        def part(a, b, depth):
            middle = 0.5 * (a + b)
            coarse = (b - a) * integrand(middle)
            fine = 0.5 * (b - a) * (integrand(0.5 * (a + middle)) + integrand(0.5 * (middle + b)))
            if abs(fine - coarse) < tolerance or depth == 4:
                return fine
            return part(a, middle, depth + 1) + part(middle, b, depth + 1)

        return part(0.0, 1.0, 0)

    yield f
    for tolerance in (1e-2, 1e-3, 1e-1, 1e-2):
        yield


@written()
def quadrature_gauss():
    rules = {}

    def f(s, n):
        if n not in rules:
            rules[n] = np.polynomial.legendre.leggauss(n)
        nodes, weights = rules[n]
        return np.sum(weights * np.cos(s * nodes))

    yield f, lambda: sorted(rules)


@written()
def root_newton():
    def slope(x):
        return 3 * x ** 2 + 1

    def f(r):
        x = 1.0
        for _ in range(30):
            new = x - (x ** 3 + x - r) / slope(x)
            if abs(new - x) < 1e-9:
                break
            x = new
        return x

    yield f
    yield

    def slope(x):
        return 4 * x ** 2 + 2

    yield


@written()
def root_secant():
    def f(r):
        a, b = 0.5, 1.5
        fa, fb = a * a - r, b * b - r
        for _ in range(10):
            if abs(fb - fa) < 1e-12:
                return b
            a, b = b, b - fb * (b - a) / (fb - fa)
            fa, fb = fb, b * b - r
        return b

    yield f


@written()
def root_fixed_point():
    def f(r):
        x, n = r, 0
        while n < 50:
            new = np.cos(x) * 0.5
            n += 1
            if abs(new - x) < 1e-6:
                return new * n
            x = new
        raise RuntimeError("no convergence")

    yield f


@written()
def root_krylov_residual():
    boundary = [0.0, 1.0]

    def residual(u):
        left = np.concatenate([np.array([boundary[0]]), u[:-1]])
        right = np.concatenate([u[1:], np.array([boundary[1]])])
        return left - 2 * u + right + 0.1 * np.cosh(u)

    yield residual
    for boundary[0] in (0.0, 1.0, -1.0):
        yield


@written()
def interpolate_linear():
    xs, values = np.array([-2.0, -1.0, 0.0, 1.0, 3.0]), np.array([1.0, 0.0, 2.0, 1.0, 5.0])

    def f(s):
        k = np.searchsorted(xs, s) - 1
        t = (s - xs[k]) / (xs[k + 1] - xs[k])
        return (1 - t) * values[k] + t * values[k + 1]

    yield f
    for k in (2, 3, 1):
        yield
        values[k] += 1.5
    yield


@written()
def interpolate_lagrange():
    nodes = [0.0, 1.0, 2.0]

    def f(s):
        total = 0.0
        for j, a in enumerate(nodes):
            basis = 1.0
            for m, b in enumerate(nodes):
                if m != j:
                    basis = basis * (s - b) / (a - b)
            total = total + basis * math.sin(a)
        return total

    yield f
    yield
    nodes[1] = 0.5
    yield
    nodes.append(3.0)
    yield


@written()
def smoothing_kernel():
    kernel = np.array([0.25, 0.5, 0.25])

    def f(u):
        return sum(kernel[k] * u[k:len(u) - 2 + k] for k in range(3))

    yield f
    for k in range(3):
        yield
        kernel[k] *= 2
    yield


@written()
def filter_first_order():
    a = 0.5

    def f(u):
        y = [u[0]]
        for value in u[1:]:
            y.append(a * y[-1] + value)
        return np.stack(y)

    yield f
    for a in (0.5, 0.9, 0.1, 0.1):
        yield


@written()
def detrended():
    def f(u):
        t = np.arange(8.0) - 3.5
        slope = np.dot(t, u) / np.dot(t, t)
        return u - np.mean(u) - slope * t

    yield f


@written()
def peaks_found():
    def f(u):
        middle = u[1:-1]
        peaks = (middle > u[:-2]) & (middle > u[2:])
        return np.sum(middle[peaks]) + 10 * np.sum(peaks)

    yield f


@written()
def distance_matrix():
    def f(X):
        difference = X[:, None, :] - X[None, :, :]
        squared = np.sum(difference ** 2, axis=-1)
        return np.sum(np.sqrt(squared + 1e-6)) + np.max(squared)

    yield f


@written()
def rotation_applied():
    vectors = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])

    def f(x):
        angle = np.linalg.norm(x)
        axis = x / angle
        return (vectors * np.cos(angle) + np.cross(axis, vectors) * np.sin(angle)
                + np.outer(vectors @ axis, axis) * (1 - np.cos(angle)))

    yield f
    yield
    vectors[0, 2] = 2.0
    yield


@written()
def hill_climb_step():
    best = {"x": np.zeros(3), "value": np.inf, "taken": 0}

    def f(x):
        value = np.sum((x - 1) ** 2) + np.sum(np.cos(3 * x))
        if value < best["value"]:
            best["x"], best["value"] = np.copy(x), value
            best["taken"] += 1
        return value

    yield f, best


@written()
def simplex_reflect():
    def f(X):
        values = np.sum((X - 1) ** 2, axis=1)
        order = np.argsort(values)
        centre = np.mean(X[order[:-1]], axis=0)
        return centre + (centre - X[order[-1]])

    yield f


@written()
def trust_radius():
    radius = 1.0

    def step(x):
        nonlocal radius
        length = np.sqrt(np.sum(x * x))
        if length > radius:
            taken = x * (radius / length)
            radius *= 1.5
        else:
            taken = x
            radius *= 0.5
        return taken

    yield step, lambda: radius


@written()
def bfgs_update():
    class Bfgs:
        def __init__(self):
            self.H, self.last = np.eye(3), None

        def direction(self, x):
            if self.last is not None:
                s, y = x - self.last, 2 * (x - self.last)
                rho = 1 / np.dot(s, y)
                left = np.eye(3) - rho * np.outer(s, y)
                self.H = left @ self.H @ left.T + rho * np.outer(s, s)
            self.last = np.copy(x)
            return -self.H @ x

    method = Bfgs()
    yield method.direction, method


@written()
def golden_section():
    shrink = (math.sqrt(5) - 1) / 2

    def f(r):
        def value(x):
            return (x - r) ** 2 + 0.1 * x ** 4

        a, b = 0.0, 3.0
        while b - a > 0.2:
            c, d = b - shrink * (b - a), a + shrink * (b - a)
            if value(c) < value(d):
                b = d
            else:
                a = c
        return value(fnp.asarray(0.5 * (a + b)))

    yield f
