"""Similarity of samples to real images, in the feature space of a classifier.

All figures are deterministic, computed on the host in float64 over all pairs. They depend on the
classifier: only figures from the same classifier and the same numbers of images are comparable, and
never with those of an Inception network.
"""

from typing import NamedTuple

import numpy as np

from rnngen_jax.config import require
from rnngen_jax.errors import UserError
from rnngen_jax.evaluation.neighbours import BLOCK, squared_distances

MANIFOLD_K = 3  # neighbours of precision and recall, as in their paper
DENSITY_K = 5  # of density and coverage, as in theirs
MISSING = 0.1  # share of its real share below which a class counts as missing
TIE = 1e-12  # relative to squared lengths: despite rounding, a ball holds the points on its edge


class Features(NamedTuple):
    """A classifier's outputs for N images.

    Attributes:
      features: activations of its last hidden layer, `[N, F]`.
      logits: of its K classes, `[N, K]`.
    """

    features: np.ndarray
    logits: np.ndarray


class Fidelity(NamedTuple):
    """All figures of `compare`.

    Attributes:
      frechet: ≥ 0, lower is better; biased upwards for small numbers of images.
      kid: lower is better; unbiased, so it may be below 0.
      kid_error: the standard error of `kid`.
      precision, recall: in [0, 1], higher is better.
      density: ≥ 0, and 1 on average for samples from the real distribution.
      coverage: in [0, 1], higher is better.
      confidence: the samples' mean largest probability, in [1/K, 1].
      class_share: the samples' share of each class, `[K]`.
      effective_classes: from `effective_classes`, in [1, K].
      missing: from `missing_classes`, int `[m]`.
    """

    frechet: float
    kid: float
    kid_error: float
    precision: float
    recall: float
    density: float
    coverage: float
    confidence: float
    class_share: np.ndarray
    effective_classes: float
    missing: np.ndarray

    def metrics(self) -> dict[str, float]:
        """Scalars by name, for metrics.jsonl and evaluation.json."""
        found = self._asdict()
        shares, missing = found.pop("class_share"), found.pop("missing")
        return {
            **found,
            "missing_classes": float(len(missing)),
            **{f"class_share/{number}": float(share) for number, share in enumerate(shares)},
        }


def compare(real: Features, fake: Features) -> Fidelity:
    """All figures of samples against real images.

    Args:
      real: of at least 6 real images.
      fake: of at least 4 samples.

    Raises:
      UserError: there are fewer, or values that are not finite.
    """
    features = real.features, fake.features
    share = class_histogram(fake.logits)
    return Fidelity(
        frechet(*features),
        *kid_with_error(*features),
        *precision_recall(*features),
        *density_coverage(*features),
        confidence(fake.logits),
        share,
        effective_classes(share),
        missing_classes(share, class_histogram(real.logits)),
    )


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    """Squared Fréchet distance between Gaussians with the features' means and covariances.

    |m₁ - m₂|² + tr(C₁ + C₂ - 2 (C₁ C₂)^½), Dowson and Landau (1982), Heusel et al. (2017, eq. 6),
    with unbiased covariances.

    Args:
      real: `[N, F]`, N at least 2.
      fake: `[M, F]`, M at least 2.

    Raises:
      UserError: there are fewer, or values that are not finite.
    """
    real, fake = _checked(real, fake, 2, 2)
    # With C = RᵀR, the trace of (C₁ C₂)^½ is the sum of the singular values of R₁ R₂ᵀ. R from a QR
    # decomposition of the data also handles singular covariances, and squares nothing: the square
    # root of an eigenvalue that is 0 up to rounding would be off by 1e-8.
    roots = [np.linalg.qr(x - x.mean(0), mode="r") / np.sqrt(len(x) - 1) for x in (real, fake)]
    common = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum(np.square(root).sum() for root in roots)
    away = np.square(real.mean(0) - fake.mean(0)).sum()
    return max(0.0, float(away + spread - 2 * common))


def kid(real: np.ndarray, fake: np.ndarray, rows: int | None = None) -> float:
    """The kernel distance: unbiased squared maximum mean discrepancy over all pairs.

    The estimate of Gretton et al. (2012, eq. 3) with the kernel (x·y / F + 1)³ of Bińkowski et al.
    (2018, section 4), who average over random subsets; here all images are used at once.

    Args:
      real: `[N, F]`, N at least 2.
      fake: `[M, F]`, M at least 2.
      rows: images at once, by default as many as fit into 32 MiB; it does not change the result.

    Raises:
      UserError: there are fewer, or values that are not finite.
    """
    return _estimate(*_kernel_sums(*_checked(real, fake, 2, 2), rows))


def kid_with_error(
    real: np.ndarray, fake: np.ndarray, rows: int | None = None
) -> tuple[float, float]:
    """`kid` and its standard error.

    The error is the jackknife estimate, which leaves out each image in turn and follows from the
    sums over pairs. It is conservative where the distributions are (almost) the same.

    Args:
      real: `[N, F]`, N at least 3.
      fake: `[M, F]`, M at least 3.
      rows: as for `kid`.

    Raises:
      UserError: there are fewer, or values that are not finite.
    """
    sums = _kernel_sums(*_checked(real, fake, 3, 3), rows)
    of_real, across, across_fake, of_fake = sums
    n, m = len(of_real), len(of_fake)
    total = across.sum()
    without = [
        (own.sum() - 2 * own) / ((num - 1) * (num - 2)) - 2 * (total - other) / ((num - 1) * others)
        for own, other, num, others in ((of_real, across, n, m), (of_fake, across_fake, m, n))
    ]
    variance = sum((len(values) - 1) * values.var() for values in without)
    return _estimate(*sums), float(np.sqrt(variance))


def precision_recall(
    real: np.ndarray, fake: np.ndarray, k: int = MANIFOLD_K, rows: int | None = None
) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eqs. 1 and 2).

    Precision is the share of samples that lie in a ball around some real image, whose radius is the
    distance to its k-th nearest real neighbour, edge included. Recall is the share of real images
    that lie in such a ball around some sample.

    Args:
      real: `[N, F]`, N above k.
      fake: `[M, F]`, M above k.
      k: which neighbour, the image itself not counted.
      rows: images at once, by default as many as fit into 32 MiB; it does not change the result.

    Returns:
      precision and recall, in [0, 1].

    Raises:
      UserError: there are fewer, or values that are not finite.
    """
    real, fake = _centred(*_checked(real, fake, k + 1, k + 1, k))
    around_real, around_fake = _squared_radii(real, k, rows), _squared_radii(fake, k, rows)
    precise, recalled = np.zeros(len(fake), bool), np.zeros(len(real), bool)
    for part in _parts(len(real), max(fake.shape), rows):
        squared = squared_distances(real[part], fake)
        precise |= (squared <= around_real[part, None]).any(0)
        recalled[part] = (squared <= around_fake).any(1)
    return float(precise.mean()), float(recalled.mean())


def density_coverage(
    real: np.ndarray, fake: np.ndarray, k: int = DENSITY_K, rows: int | None = None
) -> tuple[float, float]:
    """Density and coverage (Naeem et al. 2020, section 3).

    Both use balls around the real images only, with the distance to the k-th nearest real neighbour
    as the radius, edge included. Density is the mean number of balls that a sample lies in, over k;
    coverage is the share of balls that hold a sample.

    Args:
      real: `[N, F]`, N above k.
      fake: `[M, F]`.
      k: which neighbour, the image itself not counted.
      rows: images at once, by default as many as fit into 32 MiB; it does not change the result.

    Returns:
      density, ≥ 0, and coverage, in [0, 1].

    Raises:
      UserError: there are fewer, or values that are not finite.
    """
    real, fake = _centred(*_checked(real, fake, k + 1, 1, k))
    radii = _squared_radii(real, k, rows)
    held = np.zeros(len(real), np.int64)
    for part in _parts(len(real), max(fake.shape), rows):
        held[part] = (squared_distances(real[part], fake) <= radii[part, None]).sum(1)
    return float(held.sum() / (k * len(fake))), float((held > 0).mean())


def class_histogram(logits: np.ndarray) -> np.ndarray:
    """The share of images for which each class is the most likely one, `[K]`, of `[N, K]`."""
    return np.bincount(_logits(logits).argmax(1), minlength=logits.shape[1]) / len(logits)


def confidence(logits: np.ndarray) -> float:
    """The mean probability of the most likely class, in [1/K, 1], of `[N, K]`."""
    logits = _logits(logits)
    return float((1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)).mean())


def effective_classes(histogram: np.ndarray) -> float:
    """The effective number of classes: exp of the entropy of the shares `[K]`, in [1, K]."""
    present = histogram[histogram > 0]
    return float(np.exp(-(present * np.log(present)).sum()))


def missing_classes(
    histogram: np.ndarray, reference: np.ndarray, share: float = MISSING
) -> np.ndarray:
    """The classes that a generator has (almost) dropped.

    Args:
      histogram: shares of the samples, `[K]`.
      reference: shares of the real images, `[K]`.
      share: a class is missing below this fraction of its share in the reference.

    Returns:
      Class indices, int64 `[m]`, ascending.
    """
    return np.flatnonzero(histogram < share * reference)


def _checked(
    real: np.ndarray, fake: np.ndarray, least_real: int, least_fake: int, k: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, after checking them."""
    require(k > 0, "the number of neighbours k", k, "≥ 1")
    require(
        fake.shape[1:] == real.shape[1:],
        "the number of features of samples",
        fake.shape[1:],
        f"{real.shape[1:]}, that of real images",
    )
    for name, found, least in (("real images", real, least_real), ("samples", fake, least_fake)):
        require(len(found) >= least, f"the number of {name}", len(found), f"≥ {least}")
        _require_finite(f"The features of {name}", found)
    return real.astype(np.float64), fake.astype(np.float64)


def _logits(logits: np.ndarray) -> np.ndarray:
    require(len(logits) > 0, "the number of images", len(logits), "≥ 1")
    _require_finite("The logits", logits)
    return logits.astype(np.float64)


def _require_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UserError(f"{name} must be finite; the samples cannot be compared.")


def _centred(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both minus one centre, as inner products lose the digits that all vectors have in common."""
    centre = real.mean(0)
    return real - centre, fake - centre


def _parts(num: int, width: int, rows: int | None) -> list[slice]:
    """Slices of `num` rows, each small enough for a block of `width` columns."""
    step = rows or max(1, BLOCK // width)
    return [slice(start, start + step) for start in range(0, num, step)]


def _squared_radii(x: np.ndarray, k: int, rows: int | None) -> np.ndarray:
    """Squared distance from each row of `[N, F]` to its k-th nearest other row, `[N]`."""
    radii = np.empty(len(x))
    for part in _parts(len(x), max(x.shape), rows):
        squared = squared_distances(x[part], x)
        itself = np.arange(len(squared))
        squared[itself, part.start + itself] = np.inf
        squared.partition(k - 1, axis=1)
        radii[part] = squared[:, k - 1]
    return radii + TIE * np.square(x).sum(1).max()


def _kernel_sums(
    real: np.ndarray, fake: np.ndarray, rows: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums of the kernel over pairs, for each image.

    Returns:
      For each real image over the other real ones, `[N]`, and over all samples, `[N]`; for each
      sample over all real images, `[M]`, and over the other samples, `[M]`.
    """
    of_real, of_fake = (_sums_within(x, rows) for x in (real, fake))
    across, across_fake = np.empty(len(real)), np.zeros(len(fake))
    for part in _parts(len(real), max(fake.shape), rows):
        values = _kernel(real[part], fake)
        across[part] = values.sum(1)
        across_fake += values.sum(0)
    return of_real, across, across_fake, of_fake


def _sums_within(x: np.ndarray, rows: int | None) -> np.ndarray:
    sums = np.empty(len(x))
    for part in _parts(len(x), max(x.shape), rows):
        values = _kernel(x[part], x)
        itself = np.arange(len(values))
        values[itself, part.start + itself] = 0
        sums[part] = values.sum(1)
    return sums


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # In NumPy, `** 3` takes 20 times as long as two products.
    base = x @ y.T / x.shape[1] + 1
    return base * base * base


def _estimate(
    of_real: np.ndarray, across: np.ndarray, across_fake: np.ndarray, of_fake: np.ndarray
) -> float:
    n, m = len(of_real), len(of_fake)
    within = of_real.sum() / (n * (n - 1)) + of_fake.sum() / (m * (m - 1))
    return float(within - 2 * across.sum() / (n * m))
