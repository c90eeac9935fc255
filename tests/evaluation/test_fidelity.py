"""Figures in feature space, against closed forms, plain loops and the reference packages."""

import itertools

import numpy as np
import pytest
from scipy import linalg

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import fidelity
from rnngen_jax.evaluation.fidelity import Features

RNG = np.random.default_rng(5)
N, M, F, K = 40, 32, 6, 4
REAL = RNG.standard_normal((N, F)) * np.linspace(0.5, 2, F) + 3
FAKE = RNG.standard_normal((M, F)) @ RNG.standard_normal((F, F)) * 0.6 + 2.7
LOGITS = RNG.standard_normal((N, K)) * 3


def with_moments(num, mean, covariance):
    """Points with this mean and unbiased covariance, up to rounding."""
    x = RNG.standard_normal((num, len(mean)))
    x -= x.mean(0)
    white = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False).reshape(len(mean), -1))).T
    return white @ linalg.sqrtm(np.atleast_2d(covariance)).real + mean


def by_sqrtm(real, fake):
    """The Fréchet distance in its usual form."""
    one, two = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    away = real.mean(0) - fake.mean(0)
    return away @ away + np.trace(one + two - 2 * linalg.sqrtm(one @ two).real)


def distance(x, y):
    return np.sqrt(((x - y) ** 2).sum())


def radius(x, number, k):
    """From one point to its k-th nearest other one, by a full sort."""
    return sorted(distance(x[number], y) for other, y in enumerate(x) if other != number)[k - 1]


def inside(centres, points, k):
    """Which points lie in which balls, bool `[centres, points]`, by loops."""
    radii = [radius(centres, number, k) for number in range(len(centres))]
    return np.array(
        [[distance(c, p) <= r for p in points] for c, r in zip(centres, radii, strict=True)]
    )


def mmd(real, fake):
    """The unbiased squared discrepancy, by loops over pairs."""

    def kernel(x, y):
        return (x @ y / len(x) + 1) ** 3

    within = [
        np.mean([kernel(x, y) for x, y in itertools.permutations(points, 2)])
        for points in (real, fake)
    ]
    return sum(within) - 2 * np.mean([kernel(x, y) for x in real for y in fake])


def test_frechet_is_that_of_the_matrix_square_root():
    np.testing.assert_allclose(fidelity.frechet(REAL, FAKE), by_sqrtm(REAL, FAKE), rtol=1e-10)
    np.testing.assert_allclose(fidelity.frechet(FAKE, REAL), by_sqrtm(REAL, FAKE), rtol=1e-10)


def test_frechet_of_one_dimension_in_closed_form():
    real, fake = with_moments(9, [1.0], [[4.0]]), with_moments(7, [-2.0], [[0.25]])
    np.testing.assert_allclose(fidelity.frechet(real, fake), 3**2 + (2 - 0.5) ** 2, rtol=1e-12)


def test_frechet_of_commuting_covariances_in_closed_form():
    basis = np.linalg.qr(RNG.standard_normal((F, F)))[0]
    one, two = np.linspace(0.2, 3, F), np.array([2.0, 0.1, 1, 5, 0.3, 0.7])
    real = with_moments(30, np.zeros(F), basis * one @ basis.T)
    fake = with_moments(20, np.full(F, 0.5), basis * two @ basis.T)
    want = F * 0.25 + ((np.sqrt(one) - np.sqrt(two)) ** 2).sum()
    np.testing.assert_allclose(fidelity.frechet(real, fake), want, rtol=1e-9)


def test_frechet_of_a_shift_is_its_square():
    np.testing.assert_allclose(fidelity.frechet(REAL, REAL + 0.3), F * 0.09, rtol=1e-9)
    assert fidelity.frechet(REAL, REAL) < 1e-10


def test_frechet_of_singular_covariances_is_exact():
    # Each spreads along one axis of its own: the square root of the product vanishes.
    axes = np.zeros((2, 8, F))
    axes[0, :, 0] = RNG.standard_normal(8)
    axes[1, :, 1] = RNG.standard_normal(8)
    want = np.square(axes.mean(1)[0] - axes.mean(1)[1]).sum() + axes.var(1, ddof=1).sum()
    np.testing.assert_allclose(fidelity.frechet(*axes), want, rtol=1e-13)
    # All samples the same, as of a collapsed generator.
    collapsed = np.tile(REAL.mean(0), (5, 1))
    want = REAL.var(0, ddof=1).sum()
    np.testing.assert_allclose(fidelity.frechet(REAL, collapsed), want, rtol=1e-13)
    # Fewer images than features: REAL shifted has the same covariance of rank 2.
    few = REAL[:3].astype(np.float32)
    np.testing.assert_allclose(fidelity.frechet(few, few + 1), F, atol=1e-10)


def test_kid_is_the_mean_over_pairs():
    np.testing.assert_allclose(fidelity.kid(REAL, FAKE), mmd(REAL, FAKE), rtol=1e-10)
    np.testing.assert_allclose(fidelity.kid(REAL[:2], FAKE[:2]), mmd(REAL[:2], FAKE[:2]))


def test_kid_of_the_same_images_twice_is_below_zero():
    # Unbiased: pairs of an image with itself count across the sets but not within them.
    assert fidelity.kid(REAL, REAL) < 0


def test_kid_error_is_the_jackknife():
    def spread(estimates):
        return (len(estimates) - 1) * np.var(estimates)

    of_real = [mmd(np.delete(REAL[:7], i, 0), FAKE[:5]) for i in range(7)]
    of_fake = [mmd(REAL[:7], np.delete(FAKE[:5], i, 0)) for i in range(5)]
    value, error = fidelity.kid_with_error(REAL[:7], FAKE[:5])
    np.testing.assert_allclose(value, mmd(REAL[:7], FAKE[:5]))
    np.testing.assert_allclose(error, np.sqrt(spread(of_real) + spread(of_fake)))


def test_kid_error_is_how_much_it_varies():
    rng = np.random.default_rng(0)
    found = [
        fidelity.kid_with_error(
            rng.standard_normal((60, 3)), 1.5 * rng.standard_normal((90, 3)) + 0.7
        )
        for _ in range(300)
    ]
    values, errors = np.array(found).T
    np.testing.assert_allclose(np.sqrt(np.square(errors).mean()), values.std(), rtol=0.15)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_those_of_plain_loops(k):
    want = inside(REAL, FAKE, k).any(0).mean(), inside(FAKE, REAL, k).any(0).mean()
    assert min(want) > 0
    assert max(want) < 1
    np.testing.assert_allclose(fidelity.precision_recall(REAL, FAKE, k), want, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_are_those_of_plain_loops(k):
    within = inside(REAL, FAKE, k)
    want = within.sum(0).mean() / k, within.any(1).mean()
    assert 0 < want[1] < 1
    np.testing.assert_allclose(fidelity.density_coverage(REAL, FAKE, k), want, rtol=1e-12)


def test_the_same_images_twice_are_all_precise_and_covered():
    for x in (REAL, np.repeat(REAL, 8, 0)):
        assert fidelity.precision_recall(x, x) == (1, 1)
        density, coverage = fidelity.density_coverage(x, x, 2)
        assert coverage == 1
        assert density > 1  # a ball's edge is in it


def test_points_on_an_edge_are_in_the_ball_despite_rounding():
    # Each ball holds its centre, one neighbour within it and one on its edge. How a product is
    # rounded depends on the shapes and on the processor.
    rng = np.random.default_rng(0)
    for width, rows in itertools.product((48, 64, 100, 1000), (None, 1, 7)):
        x = rng.standard_normal((53, width))
        density, coverage = fidelity.density_coverage(x, rng.permutation(x), 2, rows)
        np.testing.assert_allclose((density, coverage), (1.5, 1), rtol=1e-12)


def test_where_the_features_lie_changes_nothing():
    # Inner products about 1e12 leave no digit of distances about 1.
    real, fake = REAL + 1e6, FAKE + 1e6
    assert fidelity.precision_recall(real, fake) == fidelity.precision_recall(REAL, FAKE)
    assert fidelity.density_coverage(real, fake) == fidelity.density_coverage(REAL, FAKE)


def test_a_neighbour_is_another_image_though_it_be_equal():
    # Three places twice each: the nearest other image is at distance 0, the second at 1 or more.
    real = np.array([0.0, 0, 1, 1, 3, 3])[:, None]
    fake = np.array([0.9, 1, 2.5, 7, 8, 9])[:, None]
    assert fidelity.precision_recall(real, fake, 1) == (1 / 6, 4 / 6)
    assert fidelity.precision_recall(real, fake, 2)[0] == 3 / 6


def test_a_collapsed_generator_has_precision_but_no_recall():
    collapsed = np.tile(REAL[:1], (M, 1))
    assert fidelity.precision_recall(REAL, collapsed) == (1, 1 / N)
    assert fidelity.density_coverage(REAL, collapsed)[1] < 0.4


@pytest.mark.parametrize(
    "measure", [fidelity.kid_with_error, fidelity.precision_recall, fidelity.density_coverage]
)
def test_chunks_change_nothing(measure):
    whole = measure(REAL, FAKE)
    for rows in (1, 7, N - 1):
        np.testing.assert_allclose(measure(REAL, FAKE, rows=rows), whole, rtol=1e-9)


@pytest.mark.parametrize(
    ("measure", "least_real", "least_fake"),
    [
        (fidelity.frechet, 2, 2),
        (fidelity.kid, 2, 2),
        (fidelity.kid_with_error, 3, 3),
        (fidelity.precision_recall, 4, 4),
        (fidelity.density_coverage, 6, 1),
    ],
)
def test_too_few_images_are_said(measure, least_real, least_fake):
    assert np.isfinite(measure(REAL[:least_real], FAKE[:least_fake])).all()
    with pytest.raises(
        UserError, match=f"real images must be ≥ {least_real}, got {least_real - 1}"
    ):
        measure(REAL[: least_real - 1], FAKE)
    with pytest.raises(UserError, match=f"samples must be ≥ {least_fake}, got {least_fake - 1}"):
        measure(REAL, FAKE[: least_fake - 1])


def test_what_cannot_be_compared_is_said():
    with pytest.raises(UserError, match="number of features"):
        fidelity.frechet(REAL, FAKE[:, 1:])
    with pytest.raises(UserError, match="features of samples must be finite"):
        fidelity.kid(REAL, np.concatenate([FAKE, FAKE[:1] * np.nan]))
    with pytest.raises(UserError, match="neighbours k must be ≥ 1, got 0"):
        fidelity.precision_recall(REAL, FAKE, 0)


def test_classes_of_samples():
    logits = np.log([[0.7, 0.1, 0.2], [0.1, 0.1, 0.8], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]])
    shares = fidelity.class_histogram(logits + 1e3)
    np.testing.assert_array_equal(shares, [0.75, 0, 0.25])
    np.testing.assert_allclose(fidelity.confidence(logits + 1e3), (0.7 + 0.8 + 0.5 + 0.9) / 4)
    want = 0.75**-0.75 * 0.25**-0.25
    np.testing.assert_allclose(fidelity.effective_classes(shares), want)
    np.testing.assert_allclose(fidelity.effective_classes(np.full(7, 1 / 7)), 7)
    assert fidelity.effective_classes(np.array([0, 1.0])) == 1


def test_missing_classes_fall_far_short_of_their_real_share():
    real = np.array([0.1, 0.4, 0.0, 0.5])
    assert fidelity.missing_classes(np.array([0.009, 0.041, 0, 0.95]), real).tolist() == [0]
    assert fidelity.missing_classes(real, real).tolist() == []
    assert fidelity.missing_classes(np.array([1.0, 0, 0, 0]), real, 0.5).tolist() == [1, 3]


def test_compare_puts_each_figure_under_its_name():
    fake = Features(FAKE.astype(np.float32), LOGITS[:M] - np.array([0, 0, 50, 0]))
    found = fidelity.compare(Features(REAL, LOGITS), fake).metrics()
    precision, recall = fidelity.precision_recall(REAL, fake.features, 3)
    density, coverage = fidelity.density_coverage(REAL, fake.features, 5)
    shares = fidelity.class_histogram(fake.logits)
    assert shares[2] == 0
    value, error = fidelity.kid_with_error(REAL, fake.features)
    assert found == {
        "frechet": fidelity.frechet(REAL, fake.features),
        "kid": value,
        "kid_error": error,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        "confidence": fidelity.confidence(fake.logits),
        "effective_classes": fidelity.effective_classes(shares),
        "missing_classes": 1,
        **{f"class_share/{number}": share for number, share in enumerate(shares)},
    }
    assert all(type(value) is float for value in found.values())


def test_figures_are_those_of_torch_fidelity():
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    torch = pytest.importorskip("torch")
    one, two = (fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (REAL, FAKE))
    want = fid.fid_statistics_to_metric(one, two, False)[fid.KEY_METRIC_FID]
    np.testing.assert_allclose(fidelity.frechet(REAL, FAKE), want, rtol=1e-9)
    real, options = REAL[:M], {"degree": 3, "gamma": None, "coef0": 1}
    want = metric_kid.kernel_mmd(
        real,
        FAKE,
        kid_kernel="poly",
        **{f"kid_kernel_poly_{name}": value for name, value in options.items()},
    )
    np.testing.assert_allclose(fidelity.kid(real, FAKE), want, rtol=1e-9)


def test_figures_are_those_of_prdc():
    prdc = pytest.importorskip("prdc")
    for k in (3, 5):
        want = prdc.compute_prdc(REAL, FAKE, k)
        found = *fidelity.precision_recall(REAL, FAKE, k), *fidelity.density_coverage(REAL, FAKE, k)
        names = ("precision", "recall", "density", "coverage")
        np.testing.assert_allclose(found, [want[name] for name in names], rtol=1e-12)
