"""Motion and energy [CasADi: examples; JAX: molecular dynamics; textbooks]."""

import numpy as np

import fastgrad.numpy as fnp

from . import positive, static, usual

GRAVITY = 9.81
masses = np.array([1.0, 2.0, 0.5, 1.5])
springs = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])
BOX = 4.0


def force(x, k=3.0):
    return -k * x


@usual(x=1.0, v=0.0)
def spring_leapfrog(x, v):
    """A spring by leaps [textbooks: symplectic steps]."""
    dt = 0.05
    for _ in range(20):
        v = v + 0.5 * dt * force(x)
        x = x + dt * v
        v = v + 0.5 * dt * force(x)
    return 0.5 * v * v + 1.5 * x * x


@usual(theta=0.5, omega=0.1, damping=0.2)
def pendulum(theta, omega, damping):
    """A damped pendulum by Euler's steps [SciPy: odeint]."""
    for _ in range(30):
        theta, omega = (theta + 0.02 * omega,
                        omega - 0.02 * (damping * omega + GRAVITY * np.sin(theta)))
    return theta


@usual(q=positive(2), p=2)
def double_pendulum(q, p):
    """Its Lagrangian [textbooks: mechanics]."""
    c = np.cos(q[0] - q[1])
    kinetic = p[0] ** 2 + 0.5 * p[1] ** 2 + p[0] * p[1] * c
    return kinetic + GRAVITY * (2 * np.cos(q[0]) + np.cos(q[1]))


@usual(x=(4, 2))
def spring_network(x):
    """Springs between points by indices [JAX: molecular dynamics]."""
    d = x[springs[:, 0]] - x[springs[:, 1]]
    length = np.sqrt(np.sum(d * d, axis=1))
    return 0.5 * np.sum((length - 1.0) ** 2) + GRAVITY * np.sum(masses * x[:, 1])


@usual(x=(4, 3))
def lennard_jones(x):
    """Pairs of atoms by two loops [JAX: molecular dynamics]."""
    energy = 0.0
    for i in range(len(x)):
        for j in range(i):
            r2 = np.sum((x[i] - x[j]) ** 2)
            s6 = (1.0 / r2) ** 3
            energy += 4 * (s6 * s6 - s6)
    return energy


@usual(x=(5, 3))
def lennard_jones_matrix(x):
    """Pairs of atoms by a matrix [JAX: molecular dynamics]."""
    d = x[:, None, :] - x[None, :, :]
    r2 = np.sum(d * d, axis=-1) + np.eye(5)
    s6 = 1.0 / r2 ** 3
    return np.sum(np.triu(4 * (s6 ** 2 - s6), k=1))


@usual(x=(5, 2))
def periodic_box(x):
    """The nearest images in a box [JAX: molecular dynamics]."""
    d = x[:, None] - x[None]
    d = d - BOX * np.round(d / BOX)
    r2 = np.sum(d ** 2, axis=2)
    return np.sum(np.exp(-r2) * (1 - np.eye(5)))


@usual(x=(4, 2))
def cutoff_energy(x):
    """Pairs within a distance [JAX: molecular dynamics]."""
    total = 0.0
    for i in range(4):
        for j in range(i + 1, 4):
            r = np.linalg.norm(x[i] - x[j])
            if r < 1.5:
                total = total + (1.5 - r) ** 2
    return total


@usual(x=(3, 2), v=(3, 2), steps=static(5))
def gravity(x, v, steps):
    """Bodies that attract each other [textbooks: n bodies]."""
    m = np.array([1.0, 0.5, 0.1])
    for _ in range(steps):
        d = x[None] - x[:, None]
        r3 = (np.sum(d * d, axis=-1) + 0.1) ** 1.5
        a = np.einsum("ij,ijk->ik", m / r3, d)
        v = v + 0.01 * a
        x = x + 0.01 * v
    return x


@usual(angle=0.7, speed=10.0)
def cannon(angle, speed):
    """How far a shot goes [textbooks: mechanics]."""
    vx, vy = speed * np.cos(angle), speed * np.sin(angle)
    return vx * 2 * vy / GRAVITY


@usual(v=(1, 2))
def bouncing(v):
    """A ball that bounces, in a loop with a branch [CasADi: events]."""
    x, y, vx, vy = 0.0, 1.0, v[0, 0], v[0, 1]
    for _ in range(40):
        x, y, vy = x + 0.05 * vx, y + 0.05 * vy, vy - 0.05 * GRAVITY
        if y < 0:
            y, vy = -y, -0.8 * vy
    return x + y


@usual(y=6)
def hanging_chain(y):
    """The energy of a chain between two nails [CasADi: hanging chain]."""
    heights = np.concatenate([[0.0], y, [1.0]])
    lengths = np.sqrt(0.04 + np.diff(heights) ** 2)
    return 50 * np.sum((lengths - 0.2) ** 2) + np.sum(heights)


@usual(angles=3)
def robot_arm(angles):
    """Where the hand of an arm is [textbooks: kinematics]."""
    lengths = np.array([1.0, 0.8, 0.3])
    total = np.cumsum(angles)
    return fnp.array([np.sum(lengths * np.cos(total)), np.sum(lengths * np.sin(total))])


@usual(q=4, v=3)
def rotated(q, v):
    """A vector turned by a quaternion [SciPy: Rotation]."""
    q = q / np.linalg.norm(q)
    w, u = q[0], q[1:]
    return v + 2 * np.cross(u, np.cross(u, v) + w * v)


@usual(w=3)
def rodrigues(w):
    """A rotation matrix by Rodrigues' formula [SciPy: Rotation]."""
    angle = np.sqrt(w @ w)
    x, y, z = w / angle
    K = fnp.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


@usual(fuel=1.0, thrust=12.0)
def rocket(fuel, thrust):
    """A rocket whose fuel ends [CasADi: rocket]."""
    height, speed, mass = 0.0, 0.0, 0.5 + fuel
    for _ in range(25):
        burning = mass > 0.5
        push = thrust if burning else 0.0
        speed = speed + 0.1 * (push / mass - GRAVITY)
        height = height + 0.1 * speed
        mass = mass - 0.05 if burning else mass
    return height


@usual(strain=(3, 3))
def neo_hookean(strain):
    """The energy of a rubber [textbooks: elasticity]."""
    Fdef = np.eye(3) + 0.1 * strain
    J = np.linalg.det(Fdef)
    return 0.5 * (np.trace(Fdef.T @ Fdef) - 3) - np.log(J) + np.log(J) ** 2
