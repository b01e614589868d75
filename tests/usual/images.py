"""Images and grids [scikit-image's examples; textbooks]."""

import numpy as np

import fastgrad.numpy as fnp

from . import between, mask, usual

rng = np.random.default_rng(31)
picture = rng.uniform(size=(6, 6))
blur = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
rows, columns = np.mgrid[0:6, 0:6]


@usual(x=(6, 6))
def variation_isotropic(x):
    """Denoising with roots of squares [scikit-image: denoise_tv]."""
    dx = x[1:, :-1] - x[:-1, :-1]
    dy = x[:-1, 1:] - x[:-1, :-1]
    return 0.5 * np.sum((x - picture) ** 2) + 0.1 * np.sum(np.sqrt(dx ** 2 + dy ** 2 + 1e-8))


@usual(x=(6, 6))
def blurred(x):
    """A blur with edges that are repeated [SciPy: ndimage.convolve]."""
    p = np.pad(x, 1, mode="edge")
    return sum(blur[i, j] * p[i:i + 6, j:j + 6] for i in range(3) for j in range(3))


@usual(x=(6, 6), known=mask(6, 6))
def inpainting(x, known):
    """Known pixels, and a smooth rest [scikit-image: inpaint]."""
    smooth = np.sum(np.diff(x, axis=0) ** 2) + np.sum(np.diff(x, axis=1) ** 2)
    return np.sum((x - picture)[known] ** 2) + 0.1 * smooth


@usual(place=between(1.0, 4.0, 2))
def bilinear(place):
    """The value between pixels [SciPy: map_coordinates]."""
    i, j = np.floor(place).astype(int)
    u, v = place[0] - i, place[1] - j
    return ((1 - u) * (1 - v) * picture[i, j] + u * (1 - v) * picture[i + 1, j]
            + (1 - u) * v * picture[i, j + 1] + u * v * picture[i + 1, j + 1])


@usual(p=between(1.0, 3.0, 4))
def spot(p):
    """A spot of light on a grid [astropy: fitting]."""
    model = p[0] * np.exp(-((rows - p[1]) ** 2 + (columns - p[2]) ** 2) / (2 * p[3] ** 2))
    return np.sum((model - picture) ** 2)


@usual(x=(6, 6))
def centre_of_mass(x):
    """The first moments [SciPy: ndimage.center_of_mass]."""
    w = x ** 2
    total = w.sum()
    return fnp.array([(rows * w).sum() / total, (columns * w).sum() / total])


@usual(x=(6, 6))
def gradient_magnitude(x):
    """Central differences [scikit-image: sobel]."""
    gy = (x[2:, 1:-1] - x[:-2, 1:-1]) / 2
    gx = (x[1:-1, 2:] - x[1:-1, :-2]) / 2
    return np.mean(np.hypot(gx, gy))


@usual(gamma=1.5, gain=0.9)
def tone_curve(gamma, gain):
    """A curve that is clipped [scikit-image: adjust_gamma]."""
    return np.mean(np.clip(gain * picture ** gamma, 0.0, 0.6))


@usual(x=(4, 4, 3))
def grey(x):
    """Colours to grey [scikit-image: rgb2gray]."""
    return x @ np.array([0.2125, 0.7154, 0.0721])


@usual(x=(6, 6))
def summed_area(x):
    """Sums of rectangles by an integral image [scikit-image: integral_image]."""
    s = np.pad(np.cumsum(np.cumsum(x, axis=0), axis=1), ((1, 0), (1, 0)))
    return s[3:, 3:] - s[:-3, 3:] - s[3:, :-3] + s[:-3, :-3]


@usual(x=(6, 6))
def flipped_and_turned(x):
    """Augmentations [JAX: data augmentation]."""
    return np.sum(np.rot90(x) * np.flipud(x)) + np.sum(np.fliplr(x)[:, 0] ** 2)


@usual(x=(6, 6))
def halved(x):
    """Half the size, and back [scikit-image: rescale]."""
    small = (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4
    back = np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)
    return np.sum((x - back) ** 2)


@usual(x=(6, 6))
def thresholded(x):
    """The contrast of what is above the mean [scikit-image: threshold_mean]."""
    above = x > x.mean()
    return x[above].mean() - x[~above].mean()
