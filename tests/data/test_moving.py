"""Images that move: the generator against a slow reference, its purity, its splits, its figures."""

import hashlib
import math
import pathlib

import numpy as np
import pytest

from rnngen_jax import data as package
from rnngen_jax.data import load
from rnngen_jax.data.base import SPLITS, DataConfig
from rnngen_jax.data.feed import lies_on_device, make_feed
from rnngen_jax.data.moving import coloured, trajectories
from rnngen_jax.errors import UserError

MNIST = pathlib.Path(__file__).parents[3] / "shared" / "data" / "mnist"


def reference(stills, split, index, *, frames, canvas, objects, speed, stochastic, colour):
    """One sequence, pixel by pixel, from the paper's description and the words' own order."""
    images, labels = stills
    height, width = images.shape[1:3]
    channels = 3 if colour else images.shape[3]
    sequence = np.zeros((frames, canvas, canvas, channels), int)
    for each in range(objects):
        generator = np.random.Philox(
            key=np.array([2015, SPLITS.index(split)], np.uint64),
            counter=np.array([0, 0, each, index], np.uint64),
        )
        u = [(int(word) >> 11) / 2**53 for word in generator.random_raw(5 + frames)]
        which = int(u[0] * len(images))
        x, y = u[1], u[2]
        vx, vy = math.cos(2 * math.pi * u[3]), math.sin(2 * math.pi * u[3])
        for t in range(frames):
            x, y = x + vx * speed, y + vy * speed
            left, right, top, bottom = x <= 0, x >= 1, y <= 0, y >= 1
            x, y = min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
            if stochastic and (left or right or top or bottom):
                vx, vy = math.cos(2 * math.pi * u[5 + t]), math.sin(2 * math.pi * u[5 + t])
                if (left and vx < 0) or (right and vx > 0):
                    vx = -vx
                if (top and vy < 0) or (bottom and vy > 0):
                    vy = -vy
            elif not stochastic:
                vx = -vx if left or right else vx
                vy = -vy if top or bottom else vy
            row, column = int(y * (canvas - height)), int(x * (canvas - width))
            for i in range(height):
                for j in range(width):
                    for c in range(channels):
                        value = images[which, i, j, 0 if colour else c]
                        if colour:
                            value = round(float(value) * hue(u[4])[c])
                        there = sequence[t, row + i, column + j, c]
                        sequence[t, row + i, column + j, c] = max(there, value)
    return sequence, labels[which] if objects == 1 else 0


def hue(turn):
    """Red, green and blue in [0, 1] of a full colour, by the sixth of the circle that it is in."""
    sixth, rest = divmod(6 * turn, 1)
    up, down = rest, 1 - rest
    return [(1, up, 0), (down, 1, 0), (0, 1, up), (0, down, 1), (up, 0, 1), (1, 0, down)][
        int(sixth)
    ]


def everything(name):
    return {
        part: split.read(np.arange(split.num))
        for part, split in load(DataConfig(name=name)).splits.items()
    }


def small(folder):
    """Colour images of 3x5 pixels with labels, of another grey level in each split."""
    rng = np.random.default_rng(0)
    arrays = {}
    for number, split in enumerate(SPLITS):
        arrays[f"{split}_image"] = rng.integers(1 + number, 9, (7, 3, 5, 3)).astype(np.uint8)
        arrays[f"{split}_label"] = np.arange(7) % 3
    np.savez(folder / "small.npz", levels=9, **arrays)
    return f"npz:{folder / 'small.npz'}"


@pytest.mark.parametrize(
    ("own", "options"),
    [
        (True, {"objects": 1, "canvas": 9, "speed": 0.3}),
        (True, {"objects": 3, "canvas": 7, "speed": 0.9, "bounces": "stochastic"}),
        (False, {"colour": True, "speed": 0.6, "bounces": "stochastic"}),
        (False, {}),
    ],
)
def test_a_sequence_is_that_of_the_slow_reference(tmp_path, own, options):
    name = small(tmp_path) if own else "digits"
    config = DataConfig(name=f"moving:{name}", context=4, horizon=5, **options)
    made, stills = load(config), everything(name)
    channels = 3 if own or config.colour else 1
    canvas = config.canvas or 16
    classes = (3 if own else 10) if config.objects == 1 else 0
    assert made.spec == (canvas, canvas, channels, 9 if own else 17, classes, 9)
    for split, indices in (("train", [0, 999_999]), ("validation", [3]), ("test", [999, 0])):
        found, labels = made.splits[split].read(np.array(indices))
        assert found.dtype == np.uint8
        assert labels.dtype == np.int32
        for at, index in enumerate(indices):
            wanted, label = reference(
                stills[split],
                split,
                index,
                frames=9,
                canvas=canvas,
                objects=config.objects,
                speed=config.speed,
                stochastic=config.bounces == "stochastic",
                colour=config.colour,
            )
            np.testing.assert_array_equal(found[at], wanted)
            assert labels[at] == label


def test_sequences_are_pinned():
    """They are test sets of published figures: a change of any bit is a change of the data."""
    splits = load(DataConfig(name="moving")).splits
    digests = [hashlib.sha256(splits[s].read(np.arange(50))[0]).hexdigest()[:16] for s in SPLITS]
    assert digests == ["2b66f10d4c3ddad0", "8389c5d951709309", "0a6ec6e5fa7af74b"]


def test_a_sequence_depends_on_its_split_and_index_alone():
    splits = load(DataConfig(name="moving:digits")).splits
    for split in splits.values():
        whole = split.read(np.arange(40))[0]
        for indices in ([7], [39, 0, 7, 7], np.arange(40)[::-1], np.array([5], np.int32)):
            np.testing.assert_array_equal(split.read(np.asarray(indices))[0], whole[indices])
    test = splits["test"].read(np.arange(40))[0]
    assert not np.array_equal(test, splits["validation"].read(np.arange(40))[0])


def test_longer_sequences_begin_as_shorter_ones_and_objects_are_added():
    def of(**options):
        return load(DataConfig(name="moving", **options)).splits["train"].read(np.arange(20))[0]

    stochastic = {"bounces": "stochastic", "speed": 0.5}
    for options in ({}, stochastic):
        np.testing.assert_array_equal(of(horizon=2, **options), of(**options)[:, :12])
    one, two = of(objects=1), of()
    assert (two >= one).all()
    assert (two > one).any()


def test_batches_do_not_depend_on_hosts():
    split = load(DataConfig(name="moving", context=1, horizon=1)).splits["train"]
    assert not lies_on_device("auto", split, item_bytes=1), "nobody reads a million of them"
    feed = make_feed(split, 8, 3, "auto")
    calls = [(0, 2), (124_999, 125_001)]  # the latter straddles two epochs
    whole = list(feed.chunks(calls))
    halves = zip(feed.chunks(calls, 0, 2), feed.chunks(calls, 1, 2), strict=True)
    for chunk, parts in zip(whole, halves, strict=True):
        for key in ("frames", "index"):
            joined = np.concatenate([part[key] for part in parts], axis=1)
            np.testing.assert_array_equal(joined, chunk[key])
        np.testing.assert_array_equal(
            chunk["frames"][1], split.read(chunk["index"][1])[0], strict=True
        )


def test_no_image_of_another_split_is_in_a_sequence(tmp_path):
    """Of a source without splits, too, each of whose images is of a grey level of its own."""
    levels = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None] + 1, (200, 2, 2))
    np.savez(tmp_path / "x.npz", image=levels)
    name = f"npz:{tmp_path / 'x.npz'}"
    made = load(DataConfig(name=f"moving:{name}", validation_fraction=0.2))
    stills = load(DataConfig(name=name, validation_fraction=0.2))
    seen = {
        part: set(np.unique(split.read(np.arange(min(split.num, 1000)))[0])) - {0}
        for part, split in made.splits.items()
    }
    for part, split in stills.splits.items():
        assert seen[part] == set(np.unique(split.read(np.arange(split.num))[0]))
    assert not seen["train"] & (seen["validation"] | seen["test"])


def test_splits_have_as_many_sequences_as_images_within_bounds(tmp_path):
    sizes = {"train": 2, "validation": 1_500, "test": 10_001}
    arrays = {f"{s}_image": np.ones((num, 2, 2), np.uint8) for s, num in sizes.items()}
    np.savez(tmp_path / "x.npz", **arrays)
    made = load(DataConfig(name=f"moving:npz:{tmp_path / 'x.npz'}"))
    assert {name: split.num for name, split in made.splits.items()} == {
        "train": 1_000_000,
        "validation": 1_500,
        "test": 10_000,
    }


@pytest.mark.parametrize(("side", "canvas"), [(28, 64), (8, 16), (5, 10)])
def test_the_canvas_follows_the_images(tmp_path, side, canvas):
    np.savez(tmp_path / "x.npz", image=np.ones((9, side, 3), np.uint8))
    spec = load(DataConfig(name=f"moving:npz:{tmp_path / 'x.npz'}")).spec
    assert (spec.height, spec.width) == (canvas, canvas)


@pytest.mark.parametrize("stochastic", [False, True])
def test_bounces_keep_the_speed_and_lead_away_from_walls(stochastic):
    words = np.random.default_rng(0).random((500, 5 + 60))
    places = np.stack(trajectories(words, 60, 0.2, stochastic), -1)
    free = (places > 0) & (places < 1)
    steps = np.diff(places, axis=1)
    flew = free[:, 1:].all(-1)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=-1)[flew], 0.2, atol=1e-12)
    assert (steps[places[:, :-1] == 0] > 0).all()
    assert (steps[places[:, :-1] == 1] < 0).all()
    # Reflections keep the size of each component; other bounces turn the whole velocity.
    sizes = np.ma.array(np.abs(steps), mask=~np.broadcast_to(flew[..., None], steps.shape))
    spread = sizes.max(1) - sizes.min(1)
    assert (spread.max() < 1e-12) != stochastic


def test_hues_are_full_colours_of_their_level():
    image = np.full((6, 1, 1, 1), 16, np.uint8)
    found = coloured(image, np.arange(6) / 6)[:, 0, 0].tolist()
    wanted = [[16, 0, 0], [16, 16, 0], [0, 16, 0], [0, 16, 16], [0, 0, 16], [16, 0, 16]]
    assert found == wanted


@pytest.mark.parametrize("binarisation", ["static", "threshold", "dynamic"])
def test_sequences_are_binarised_like_stills(binarisation):
    grey = load(DataConfig(name="moving", context=2, horizon=1))
    made = load(DataConfig(name="moving", context=2, horizon=1, binarisation=binarisation))
    assert made.spec == grey.spec._replace(levels=2)
    before, after = (d.splits["test"].read(np.arange(200))[0] for d in (grey, made))
    if binarisation == "dynamic":  # in the jitted step
        assert made.raw_levels == 17
        np.testing.assert_array_equal(after, before)
        return
    assert set(np.unique(after)) == {0, 1}
    np.testing.assert_array_equal(made.splits["test"].read(np.array([5]))[0][0], after[5])
    assert not after[before == 0].any()
    assert after[before == 16].all()
    if binarisation == "threshold":
        np.testing.assert_array_equal(after, before > 8)
    else:
        assert after[before == 8].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"canvas": 8}, r"config.data.canvas must be > 8, the longer side of the images of digits"),
        ({"canvas": -1}, r"config.data.canvas must be ≥ 0, got -1"),
        ({"objects": 0}, r"config.data.objects must be ≥ 1, got 0"),
        ({"context": 0}, r"config.data.context must be ≥ 1, got 0"),
        ({"horizon": 0}, r"config.data.horizon must be ≥ 1, got 0"),
        ({"speed": 1.5}, r"config.data.speed must be in \[0, 1\], got 1.5"),
        ({"bounces": "random"}, r"config.data.bounces must be one of deterministic, stochastic"),
        ({"placement": "device"}, r"placement='device' needs all sequences of moving at once"),
        ({"name": "moving:digit"}, r"'digit' is not a data source; did you mean 'digits'"),
        ({"name": "moving:codes:runs/x"}, r"'moving:codes:runs/x': only pictures can move"),
        ({"name": "moving:moving:digits"}, r"only pictures can move"),
        ({"name": "digits", "objects": 3}, r"objects=3 has no effect with name='digits'"),
        ({"name": "npz:x", "colour": True}, r"colour=True has no effect with name='npz:x'"),
        ({"name": "digits", "context": 3}, r"context=3 has no effect with name='digits', whose"),
        ({"name": "digits", "horizon": 3}, r"horizon=3 has no effect with name='digits', whose"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message) as caught:
        load(DataConfig(**{"name": "moving", **options}))
    assert len(str(caught.value).splitlines()) <= 2


def test_items_that_cannot_move(tmp_path):
    np.savez(tmp_path / "frames.npz", frames=np.zeros((20, 3, 4, 4, 1), np.uint8))
    np.savez(tmp_path / "codes.npz", image=np.zeros((20, 4, 4, 1), np.int32), levels=999)
    np.savez(tmp_path / "colour.npz", image=np.zeros((20, 4, 4, 3), np.uint8))
    for kind in ("sequences", "codes"):
        file = {"sequences": "frames", "codes": "codes"}[kind]
        with pytest.raises(UserError, match=f"needs still images, but .* has {kind}; give npz:"):
            load(DataConfig(name=f"moving:npz:{tmp_path / f'{file}.npz'}"))
    with pytest.raises(UserError, match="colour gives grey images a colour, but those of npz:"):
        load(DataConfig(name=f"moving:npz:{tmp_path / 'colour.npz'}", colour=True))


@pytest.mark.parametrize(
    ("name", "frames", "context", "horizon", "message"),
    [
        ("digits", 0, 10, 10, "'digits' has still images, but sequences are needed"),
        ("npz:x", 8, 8, 1, "config.data.context must be < 8, the number of frames of a sequence"),
        ("npz:x", 8, 5, 4, "config.data.horizon must be ≤ 3, as 5 of the 8 frames"),
    ],
)
def test_lengths_that_do_not_fit(name, frames, context, horizon, message):
    config = DataConfig(name=name, context=context, horizon=horizon)
    with pytest.raises(UserError, match=message):
        config.lengths(frames)
    assert DataConfig(name="npz:x", context=5, horizon=3).lengths(8) == (5, 3)


def test_spellings_of_one_place_are_one_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ("moving:npz:x.npz", f"moving:npz:{tmp_path / 'x.npz'}")
    assert len({package.canonical(name) for name in names}) == 1
    assert package.canonical("moving:digits") == "moving:digits"


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="mnist does not lie beside the checkout")
def test_moving_mnist_has_its_published_calibration():
    """Two digits on 64x64: the lower bound of the Video Pixel Networks paper, 86.3 nats a frame.

    That is the soft cross-entropy of the grey frames themselves; copying the last given frame has a
    squared error near 290 a frame, a black frame 176.
    """
    made = load(DataConfig(name=f"moving:idx:{MNIST}", validation_fraction=1 / 6))
    assert made.spec == (64, 64, 1, 256, 0, 20)
    test = made.splits["test"]
    assert test.num == 10_000
    floors, copies, blacks = [], [], []
    for start in range(0, test.num, 500):
        frames = test.read(np.arange(start, start + 500))[0] / 255.0
        given, wanted = frames[:, 9:10], frames[:, 10:]
        p = np.clip(wanted, 1e-12, 1 - 1e-12)
        entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p))
        for found, each in (
            (floors, entropy),
            (copies, (wanted - given) ** 2),
            (blacks, wanted**2),
        ):
            found.append(each.sum((2, 3, 4)).mean(1))
    floors, copies, blacks = map(np.concatenate, (floors, copies, blacks))
    error = floors.std() / np.sqrt(len(floors))
    print(f"floor {floors.mean():.2f} ± {error:.2f}, copy {copies.mean():.1f}, {blacks.mean():.1f}")
    assert floors.mean() == pytest.approx(86.3, abs=1)
    assert error < 0.3
    assert copies.mean() == pytest.approx(290, abs=5)
    assert blacks.mean() == pytest.approx(176, abs=3)
