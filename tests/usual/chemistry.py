"""Reactions, molecules and heat [Cantera's and JAX MD's examples; textbooks]."""

import numpy as np

import fastgrad.numpy as fnp

from . import between, positive, usual

R = 8.314
STOICHIOMETRY = np.array([[-1, 1, 0], [0, -1, 1], [1, 0, -1]])
bonds = [(0, 1, 1.0), (1, 2, 1.5), (2, 3, 1.2)]
charges = np.array([1.0, -1.0, 0.5, -0.5])
temperatures = np.array([300.0, 320.0, 340.0, 360.0])
observed = np.array([0.02, 0.05, 0.13, 0.3])


@usual(log_a=10.0, energy=30.0)
def arrhenius(log_a, energy):
    """Rates at temperatures [textbooks: kinetics]."""
    k = np.exp(log_a - 1000 * energy / (R * temperatures))
    return np.sum((np.log(k) - np.log(observed)) ** 2)


@usual(c=positive(3), k=positive(3))
def reaction_network(c, k):
    """Concentrations by a matrix of the reactions [textbooks: kinetics]."""
    for _ in range(20):
        c = c + 0.05 * STOICHIOMETRY.T @ (k * c)
    return c


@usual(k=positive(3))
def robertson(k):
    """A stiff system in small steps [SciPy: BDF]."""
    a, b, c = 1.0, 0.0, 0.0
    for _ in range(15):
        r1, r2, r3 = 0.04 * k[0] * a, 10 * k[1] * b * c, 30 * k[2] * b ** 2
        a, b, c = a + 0.01 * (r2 - r1), b + 0.01 * (r1 - r2 - r3), c + 0.01 * r3
    return fnp.array([a, b, c])


@usual(x=(4, 3))
def bonded(x):
    """Bonds that stand in a list [JAX MD: bonds]."""
    energy = 0.0
    for i, j, length in bonds:
        energy += (np.linalg.norm(x[i] - x[j]) - length) ** 2
    return energy


@usual(x=(4, 3))
def coulomb(x):
    """Charges that attract [JAX MD: energies]."""
    i, j = np.triu_indices(4, 1)
    r = np.sqrt(((x[i] - x[j]) ** 2).sum(axis=1))
    return (charges[i] * charges[j] / r).sum()


@usual(x=(4, 3))
def torsion(x):
    """An angle of four atoms [textbooks: molecules]."""
    a, b, c = x[1] - x[0], x[2] - x[1], x[3] - x[2]
    n1, n2 = np.cross(a, b), np.cross(b, c)
    return np.arctan2(np.dot(np.cross(n1, n2), b / np.linalg.norm(b)), np.dot(n1, n2))


@usual(v=between(1.0, 2.0), t=between(1.0, 2.0))
def van_der_waals(v, t):
    """A gas's pressure [HIPS autograd: thermodynamics]."""
    return 8 * t / (3 * v - 1) - 3 / v ** 2


@usual(x=between(0.1, 0.9))
def mixing(x):
    """The free energy of a mixture [textbooks: thermodynamics]."""
    return x * np.log(x) + (1 - x) * np.log(1 - x) + 2.5 * x * (1 - x)


@usual(energies=5, beta=1.2)
def partition(energies, beta):
    """The free energy of some states [textbooks: statistical mechanics]."""
    low = np.min(energies)
    return low - np.log(np.sum(np.exp(-beta * (energies - low)))) / beta


@usual(spins=(4, 4))
def ising_relaxed(spins):
    """Spins on a torus [JAX: spin glass]."""
    s = np.tanh(spins)
    return -np.sum(s * (np.roll(s, 1, axis=0) + np.roll(s, 1, axis=1)))


@usual(pka=between(3.0, 6.0), ph=between(3.0, 6.0))
def titration(pka, ph):
    """The part that has reacted [textbooks: acids]."""
    return 1 / (1 + 10 ** (pka - ph))


@usual(T=positive(5))
def heat_exchange(T):
    """Heat between cells with radiation [textbooks: heat]."""
    conduction = np.zeros(5)
    conduction[0] = 1.0
    flux = 0.5 * (T[1:] - T[:-1])
    net = np.concatenate([flux, [0.0]]) - np.concatenate([[0.0], flux])
    return conduction + net - 0.1 * T ** 4


@usual(p=positive(2))
def langmuir(p):
    """Adsorption at pressures [textbooks: surfaces]."""
    pressures = np.geomspace(0.01, 10, 6)
    theta = p[0] * p[1] * pressures / (1 + p[1] * pressures)
    return theta.sum()
