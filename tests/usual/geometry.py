"""Points, curves and cameras [JAX: examples; SciPy: spatial; textbooks]."""

import numpy as np

import fastgrad.numpy as fnp

from . import labels, positive, usual

rng = np.random.default_rng(29)
cloud = rng.normal(size=(15, 3))
seen = rng.normal(size=(15, 2))
triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def rotation(angle):
    c, s = np.cos(angle), np.sin(angle)
    return fnp.array([[c, -s], [s, c]])


@usual(angle=0.3, shift=2)
def registration(angle, shift):
    """A turned and shifted cloud [textbooks: registration]."""
    moved = cloud[:, :2] @ rotation(angle).T + shift
    return np.sum((moved - seen) ** 2)


@usual(camera=6)
def reprojection(camera):
    """Points seen by a camera [textbooks: bundle adjustment]."""
    p = cloud + camera[:3]
    p = p[:, :2] / (p[:, 2:] + 6.0)
    r2 = np.sum(p ** 2, axis=1, keepdims=True)
    p = camera[3] * p * (1 + r2 * (camera[4] + camera[5] * r2))
    return np.sum((p - seen) ** 2)


@usual(p=(4, 2))
def polygon_area(p):
    """The shoelace formula [textbooks: geometry]."""
    x, y = p[:, 0], p[:, 1]
    return 0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


@usual(p=(4, 2))
def polygon_perimeter(p):
    """The length of a closed line [textbooks: geometry]."""
    return np.sum(np.linalg.norm(p - np.roll(p, 1, axis=0), axis=1))


@usual(control=(4, 2))
def bezier(control):
    """A curve by repeated means [textbooks: splines]."""
    t = np.linspace(0, 1, 7)[:, None, None]
    points = control[None, :, :] * np.ones((7, 1, 1))
    while points.shape[1] > 1:
        points = (1 - t) * points[:, :-1] + t * points[:, 1:]
    return points[:, 0]


@usual(p=2)
def barycentric(p):
    """Coordinates in a triangle [textbooks: geometry]."""
    T = np.column_stack([triangle[1] - triangle[0], triangle[2] - triangle[0]])
    w = np.linalg.inv(T) @ (p - triangle[0])
    return np.concatenate([w, [1 - w[0] - w[1]]])


@usual(p=(3, 3))
def triangle_area(p):
    """By a cross product [textbooks: geometry]."""
    return 0.5 * np.linalg.norm(np.cross(p[1] - p[0], p[2] - p[0]))


@usual(a=3, b=3)
def angle_between(a, b):
    """An angle by the arc cosine [textbooks: geometry]."""
    c = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return np.degrees(np.arccos(np.clip(c, -1.0, 1.0)))


@usual(lat=positive(2), lon=positive(2))
def great_circle(lat, lon):
    """The distance on a sphere [textbooks: geography]."""
    a = (np.sin(np.diff(lat) / 2) ** 2
         + np.cos(lat[0]) * np.cos(lat[1]) * np.sin(np.diff(lon) / 2) ** 2)
    return 6371.0 * 2 * np.arcsin(np.sqrt(a))[0]


@usual(origin=3, direction=3)
def ray_sphere(origin, direction):
    """Where a ray meets a sphere, or zero [textbooks: rendering]."""
    d = direction / np.linalg.norm(direction)
    half = origin @ d
    disc = half ** 2 - (origin @ origin - 4.0)
    if disc < 0:
        return 0.0 * half
    return -half + np.sqrt(disc)


@usual(centres=(3, 3))
def k_means_energy(centres):
    """The squared distance to the nearest centre [scikit-learn: KMeans]."""
    d2 = ((cloud[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    return d2.min(axis=1).sum()


@usual(centres=(3, 3), assigned=labels(15, 3))
def k_means_assigned(centres, assigned):
    """With assignments that are given [scikit-learn: KMeans]."""
    return np.sum((cloud - centres[assigned]) ** 2)


@usual(y=(6, 2))
def neighbour_embedding(y):
    """Distances in the plane against those in space [scikit-learn: MDS]."""
    target = np.sqrt(((cloud[:6, None] - cloud[None, :6]) ** 2).sum(-1))
    d2 = np.sum((y[:, None] - y[None]) ** 2, axis=-1)
    distance = np.sqrt(d2 + np.eye(6))
    return np.sum(np.triu(distance - target, 1) ** 2)


@usual(y=(6, 2))
def student_embedding(y):
    """Student's similarities [scikit-learn: TSNE]."""
    P = np.exp(-((cloud[:6, None] - cloud[None, :6]) ** 2).sum(-1))
    np.fill_diagonal(P, 0.0)
    P = P / P.sum()
    q = 1 / (1 + np.sum((y[:, None] - y[None]) ** 2, axis=-1))
    q = q * (1 - np.eye(6))
    Q = q / np.sum(q)
    return np.sum(P * np.log((P + 1e-12) / (Q + 1e-12)))
