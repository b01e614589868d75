"""Models, integrators, controllers and solvers in the shapes of CasADi's examples."""

import numpy as np
from worlds import written

import fastgrad as fg
import fastgrad.numpy as fnp


@written()
def symbolic_expression():
    def f(s):
        return s ** 2 + np.sin(s) / (1 + s * s)

    yield f


@written()
def function_two_outputs():
    def f(x, s):
        return np.sin(s) * x, np.dot(x, x) - s

    yield f


@written()
def function_named_inputs():
    parameters = {"mass": 1.0, "length": 2.0}

    def energy(s, mass, length):
        return mass * length ** 2 * s ** 2 / 2

    def f(s):
        return energy(s=s, **parameters)

    yield f
    for parameters["mass"] in (1.0, 2.0, 3.0, 3.0):
        yield


@written()
def callback_counts():
    class Callback:
        def __init__(self):
            self.evaluations, self.d = 0, 0.5

        def eval(self, x):
            self.evaluations += 1
            return np.sin(self.d * x)

    callback = Callback()

    def f(x):
        return np.sum(callback.eval(x) + callback.eval(2 * x))

    yield f, callback


@written()
def callback_with_memory():
    class Memory:
        last = 0.0

        def __call__(self, s):
            change, self.last = s - self.last, s
            return change

    memory = Memory()
    yield memory, memory


@written()
def map_over_columns():
    gain = 1.0

    def column(c):
        return gain * np.sin(c[0]) + c[1] * c[2]

    def f(A):
        return np.stack([column(A[:, k]) for k in range(A.shape[1])])

    yield f
    for gain in (1.0, 2.0, 3.0, 3.0):
        yield


@written()
def fold_over_steps():
    decay = 0.9

    def f(A):
        state = np.zeros(3)
        for row in A:
            state = decay * state + row * np.cos(state)
        return state

    yield f
    for decay in (0.9, 0.5, 0.1, 0.9):
        yield


@written()
def if_else_expression():
    def f(x):
        return np.where(x[0] < x[1], np.sin(x[2]), np.cos(x[2])) * x

    yield f


@written()
def conditional_switch():
    cases = [np.sin, np.cos, np.square]

    def f(s, n):
        if 0 <= n < len(cases):
            return cases[n](s)
        return s * 0.0

    yield f
    yield
    cases.pop()
    yield
    cases.append(np.tanh)
    yield


@written()
def dae_step():
    damping = 0.1

    def f(s):
        x, z = s, 0.0
        for _ in range(3):
            for _ in range(5):
                z = z - (z + damping * z ** 3 - x) / (1 + 3 * damping * z ** 2)
            x = x + 0.1 * (z - x * x)
        return x + z

    yield f
    for damping in (0.1, 0.5, 1.0, 1.0):
        yield


def rk4(rhs, x, u, h):
    a = rhs(x, u)
    b = rhs(x + h / 2 * a, u)
    c = rhs(x + h / 2 * b, u)
    return x + h / 6 * (a + 2 * b + 2 * c + rhs(x + h * c, u))


@written()
def rk4_integrator():
    control, stiffness = 0.5, 1.0

    def rhs(x, u):
        return u - stiffness * x ** 3

    def f(x):
        for _ in range(2):
            x = rk4(rhs, x, control, 0.1)
        return x

    yield f
    for control, stiffness in ((0.5, 1.0), (1.0, 1.0), (1.0, 2.0), (0.0, 0.5)):
        yield


@written()
def single_shooting():
    start, weight = np.array([0.0, 1.0]), 0.1

    def cost(u):
        position, speed = start
        total = 0.0
        for control in u[:5]:
            position, speed = position + 0.2 * speed, speed + 0.2 * (control - position)
            total = total + position ** 2 + weight * control ** 2
        return total

    yield cost
    for k in range(4):
        yield
        start[k % 2] += 1.0
    yield


@written()
def multiple_shooting():
    def f(X):
        gaps = []
        for k in range(len(X) - 1):
            gaps.append(rk4(lambda x, u: u - x, X[k], 0.5, 0.1) - X[k + 1])
        return {"cost": np.sum(X ** 2), "gaps": np.concatenate(gaps)}

    yield f


@written()
def collocation_residual():
    C = np.array([[-3.0, -1.0, 1.0], [4.0, 0.0, -4.0], [-1.0, 1.0, 3.0]])

    def f(x):
        slopes = x @ C
        return slopes - 0.5 * (x - x ** 2)

    yield f
    for k in range(3):
        yield
        C[k] *= 2
    yield


@written()
def collocation_coefficients():
    made = {}

    def coefficients(degree):
        if degree not in made:
            points = np.linspace(0.0, 1.0, degree + 1)
            made[degree] = [np.prod([(1 - b) / (a - b) for b in points if b != a])
                            for a in points]
        return made[degree]

    def f(s, n):
        return sum(c * s ** k for k, c in enumerate(coefficients(n)))

    yield f, lambda: sorted(made)


@written()
def van_der_pol():
    mu = 1.0

    def f(x):
        a, b, cost = x
        for _ in range(4):
            a, b, cost = a + 0.1 * (mu * (1 - b * b) * a - b), b + 0.1 * a, cost + a * a + b * b
        return np.stack([a, b, cost])

    yield f
    for mu in (1.0, 2.0, 0.5, 0.0):
        yield


@written()
def race_car():
    limit = 1.0

    def f(u):
        position = speed = 0.0
        worst = -1.0
        for throttle in u:
            position = position + 0.1 * speed
            speed = speed + 0.1 * (throttle - speed)
            margin = speed - (limit - np.sin(2 * np.pi * position) / 2)
            if margin > worst:
                worst = margin
        return worst * 10 + position

    yield f
    for limit in (1.0, 0.5, 2.0, 1.0):
        yield


@written()
def rocket_mass():
    burn = 0.2

    def f(u):
        mass, speed = 1.0, 0.0
        for thrust in u:
            if mass > 0.5:
                speed = speed + 0.1 * thrust / mass
                mass = mass - burn * thrust * thrust
            else:
                speed = speed - 0.1
        return speed + mass

    yield f
    for burn in (0.2, 0.1, 0.5, 0.2):
        yield


@written()
def chain_of_masses():
    stiffness, masses = 10.0, [1.0, 2.0, 1.0]

    def energy(x, y):
        total = 0.0
        for k in range(3):
            total = total + 9.81 * masses[k] * y[k]
            if k:
                stretch = (x[k] - x[k - 1]) ** 2 + (y[k] - y[k - 1]) ** 2
                total = total + 0.5 * stiffness * stretch
        return total

    yield energy
    for stiffness in (10.0, 20.0, 20.0):
        yield
        masses[0] += 1.0
    yield


@written()
def chain_on_ground():
    ground = [0.5]

    def f(y):
        above = np.maximum(y, ground[0] - 0.15 * np.arange(3.0))
        return np.sum(above ** 2)

    yield f
    for ground[0] in (0.5, 1.0, 2.0, -3.0):
        yield


@written()
def sysid_errors():
    measured = np.linspace(0.0, 0.7, 8)

    def errors(u):
        state, found = 0.0, []
        for value in u:
            state = 0.8 * state + 0.2 * value
            found.append(state)
        return np.stack(found) - measured

    yield errors
    for k in range(4):
        yield
        measured[k] = -1.0
    yield


@written()
def kalman_filter():
    estimates, gain = [0.0], 0.5

    def f(s):
        estimate = estimates[-1] + gain * (s - estimates[-1])
        estimates.append(estimate)
        return estimate

    yield f, estimates
    for gain in (0.5, 0.25, 0.1, 0.1):
        yield


@written()
def moving_horizon():
    data, now = np.arange(10.0), 0

    def f(x):
        window = data[now:now + 3]
        return np.sum((x - window) ** 2)

    yield f
    for now in (0, 1, 2, 3, 3):
        yield


@written()
def mpc_warm_start():
    class Controller:
        guess = np.zeros(3)

        def solve(self, x):
            u = self.guess
            for _ in range(2):
                u = u - 0.3 * (u - x)
            self.guess = u
            return u

    controller = Controller()
    yield controller.solve, lambda: controller.guess


@written()
def mpc_reference():
    reference = np.zeros(3)

    def cost(x):
        return np.sum((x - reference) ** 2) + 0.1 * np.sum(np.diff(x) ** 2)

    yield cost
    for k in range(4):
        yield
        reference = reference + k
    yield


@written()
def pid_controller():
    class Pid:
        kp, ki, kd = 1.0, 0.1, 0.01

        def __init__(self):
            self.integral, self.last = 0.0, 0.0

        def __call__(self, s):
            self.integral += s * 0.1
            slope, self.last = (s - self.last) / 0.1, s
            return self.kp * s + self.ki * self.integral + self.kd * slope

    pid = Pid()
    yield pid, pid


@written()
def pid_saturated():
    class Pid:
        integral, limit = 0.0, 1.0

        def __call__(self, s):
            command = 1.5 * s + self.integral
            if command > self.limit:
                return self.limit + 0.0 * command
            self.integral += 0.1 * s
            return command

    pid = Pid()
    yield pid, pid
    for pid.limit in (1.0, 2.0, 5.0, 1.0):
        yield


@written()
def opti_parameter():
    class Parameter:
        def __init__(self, value):
            self.value = value

    p = Parameter(1.0)

    def f(x):
        return (p.value - x[0]) ** 2 + (x[1] - x[0] ** 2) ** 2

    yield f
    for p.value in (1.0, 2.0, 3.0, 3.0):
        yield


@written()
def opti_constraints():
    constraints = []

    def subject_to(constraint):
        constraints.append(constraint)

    def violation(x):
        return sum([np.maximum(constraint(x), 0.0) for constraint in constraints], 0.0 * x[0])

    yield violation
    subject_to(lambda x: x[0] ** 2 + x[1] ** 2 - 1)
    yield
    subject_to(lambda x: x[1] - x[2])
    yield
    yield
    constraints.clear()
    yield


@written()
def lagrangian():
    multipliers = np.array([0.5, 0.0])

    def f(x):
        constraints = np.stack([x[0] + x[1] - 1, x[0] * x[2]])
        return np.sum(x ** 2) + np.dot(multipliers, constraints)

    yield f
    for k in range(4):
        yield
        multipliers[k % 2] += 1.0
    yield


@written()
def augmented_lagrangian():
    multipliers, mu = np.zeros(2), 10.0

    def f(x):
        c = np.stack([x[0] + x[1] - 1, x[2] - 0.5])
        multipliers[:] = multipliers - mu * np.array([0.1, 0.2])
        return np.sum(x ** 2) - np.dot(multipliers, c) + 0.5 * mu * np.dot(c, c)

    yield f, multipliers


@written()
def filter_line_search():
    entries = [(10.0, 10.0)]

    def f(x):
        value, violation = np.sum(x ** 2), np.abs(x[0] - 1)
        for a, b in entries:
            if value > a and violation > b:
                return -value
        return value + violation

    yield f
    for pair in ((1.0, 0.1), (0.5, 0.5), (20.0, 0.0)):
        yield
        entries.append(pair)
    yield


@written()
def active_set():
    active = [0]

    def f(x):
        return np.sum(x ** 2) + sum(10 * (x[k] - 1) for k in active)

    yield f
    yield
    active.append(2)
    yield
    active.remove(0)
    yield
    active[0] = 1
    yield


@written()
def complementarity():
    def f(x, y):
        return np.sum(np.minimum(x, y) ** 2) + np.sum(x * y)

    yield f


@written()
def bilinear_form():
    def f(A, x, y):
        return x @ A @ y

    yield f


@written()
def jacobian_times_vector():
    v = np.array([1.0, 0.0, 1.0])

    def f(x):
        return fg.jvp(lambda y: fnp.sin(y) * fnp.sum(y), (x,), (v,))[1]

    yield f
    for k in range(3):
        yield
        v[k] = 2.0
    yield


@written()
def sparsity_mask():
    pattern = np.eye(3, dtype=bool)

    def f(A):
        return np.sum(A[pattern]) * np.count_nonzero(pattern)

    yield f
    for k in range(3):
        yield
        pattern[k, 0] = not pattern[k, 0]
    yield


@written()
def vertsplit():
    offsets = [2, 5]

    def f(u):
        a, b, c = np.split(u, offsets)
        return np.sum(a) + 2 * np.sum(b * b) + np.max(c)

    yield f
    for offsets in ([2, 5], [1, 4], [3, 6], [2, 5]):
        yield


@written()
def norms():
    def f(x):
        return np.stack([np.linalg.norm(x), np.linalg.norm(x, 1), np.linalg.norm(x, np.inf)])

    yield f


@written()
def sum_square():
    def f(x, y):
        return np.dot(x, x) + np.sum(np.square(y)) - np.vdot(x, y)

    yield f


@written()
def lookup_table_1d():
    values = np.array([0.0, 1.0, 4.0, 9.0])

    def f(s):
        place = min(max(s, 0.0), 2.999)
        k = int(place)
        return values[k] + (place - k) * (values[k + 1] - values[k])

    yield f
    for k in range(4):
        yield
        values[k] += 1.0
    yield


@written()
def lookup_table_2d():
    table = np.arange(16.0).reshape(4, 4) ** 2

    def f(x):
        a, b = np.clip(x[0], 0, 2.9), np.clip(x[1], 0, 2.9)
        j, k = int(a), int(b)
        s, t = a - j, b - k
        return ((1 - s) * (1 - t) * table[j, k] + s * (1 - t) * table[j + 1, k]
                + (1 - s) * t * table[j, k + 1] + s * t * table[j + 1, k + 1])

    yield f
    yield
    table[1, 2] = -5.0
    yield


@written()
def rootfinder_call():
    options = {"abstol": 1e-8, "max_iter": 20}

    def f(r):
        x = 1.0
        for _ in range(options["max_iter"]):
            residual = np.exp(x) - x - 1 - r
            if abs(residual) < options["abstol"]:
                break
            x = x - residual / (np.exp(x) - 1)
        return x

    yield f
    for options["max_iter"] in (20, 2, 3, 20):
        yield
