"""What the verbs make of latents: tiny runs of the VAE with classes and of DRAW without."""

import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_runs import rnngen, tree

from rnngen_jax.commands import base, complete, flags, interpolate, reconstruct, sample
from rnngen_jax.evaluation import animations, pictures, sampling
from rnngen_jax.models.latent import Objective, latent_model
from rnngen_jax.models.latent_networks import Network, independent
from rnngen_jax.ops import likelihoods
from rnngen_jax.shapes import ImageSpec

CONFIG = """
from rnngen_jax import experiment

def get_config(name):
    config = experiment.default(name)
    config.model.latents = 3 if name == "vae" else 2
    config.model.features = 2 if name == "vae" else 8
    if name == "vae":
        config.model.hidden = 8
        config.model.class_conditional = True
    else:
        config.model.steps = 3
        config.model.write_size = 3
    config.optimizer.learning_rate = 0.1  # far enough from the start that latents matter
    config.training.steps = config.training.steps_per_call = 2
    config.training.batch_size = 8
    config.training.validate_every = config.training.sample_every = 0
    return config
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("latents")
    (root / "tiny.py").write_text(CONFIG)
    for name in ("vae", "draw"):
        assert rnngen("train", f"--config={root}/tiny.py:{name}", f"--workdir={root}/{name}") == 0
    return root


# A run is restored, and its model's functions are compiled, once for all tests.
opened = functools.cache(base.open_run)


@pytest.fixture
def call(runs, tmp_path, monkeypatch, capsys):
    """`call(verb, run, *flags) -> lines`, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for verb in (sample, complete, reconstruct, interpolate):
        monkeypatch.setattr(verb, "open_run", opened)

    def call(verb, run, *flags):
        capsys.readouterr()
        assert rnngen(verb, f"--workdir={runs / run}", *flags) == 0, capsys.readouterr().err
        return capsys.readouterr().out.splitlines()

    return call


def arrays(path):
    with np.load(path) as stored:
        return dict(stored)


def png(path):
    with Image.open(path) as image:
        return np.asarray(image)


def gif(path):
    with Image.open(path) as image:
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
        return np.stack(frames), image.info


def has(frames, colour):
    return (frames == colour).all(-1).any((-1, -2))


def test_expected_samples_depend_on_the_seed_alone(call):
    def draw(*flags):
        assert call("sample", "vae", "--pixels=mean", "--out=m.npz", *flags) == ["m.npz"]
        return arrays("m.npz")

    drawn = draw("--num=70")
    assert drawn["image"].shape == (70, 8, 8, 1)
    assert drawn["levels"] == 256
    assert drawn["image"].max() > 17
    np.testing.assert_array_equal(drawn["label"], np.arange(70) % 10)
    np.testing.assert_array_equal(draw("--num=5")["image"], drawn["image"][:5])
    assert (draw("--num=5", "--seed=1")["image"] != drawn["image"][:5]).any()
    same = draw("--num=5", "--temperature=1e-6", "--label=3")["image"]
    np.testing.assert_array_equal(same, np.broadcast_to(same[:1], same.shape))
    call("sample", "vae", "--pixels=mean", "--num=5", "--out=m.png")
    np.testing.assert_array_equal(png("m.png"), pictures.grid(drawn["image"][:5], 256))


def test_expected_and_drawn_samples_share_their_latents():
    def raw(params, latents, label):
        # Each value is the level that its latent stands for, and hardly another.
        at = jnp.round(4 + 2 * latents.reshape(-1, 2, 2, 1, 1))
        return -100 * jnp.square(jnp.arange(9) - at)

    def canvases(params, latents, label):
        return jnp.stack([raw(params, 0 * latents, label), raw(params, latents, label)]), None, None

    spec = ImageSpec(2, 2, 1, levels=9)
    network = Network(lambda key: ({}, {}), None, independent(raw), canvases)
    likelihood = likelihoods.make("categorical", 9, 1)
    model = latent_model("toy", spec, False, network, likelihood, (1, 4), Objective())
    key = jax.random.key(0)
    drawn = sampling.sampler(model)({}, {}, key, 70, None, 1.0)
    latents = sampling.prior_sampler(model)({}, {}, key, 70, None, 1.0)
    assert latents.shape == (70, 1, 4)
    expected = sampling.decoder(model)({}, {}, latents, None)
    np.testing.assert_allclose(expected * 8, drawn, atol=1e-4)
    assert len({image.tobytes() for image in drawn}) > 60
    steps = sampling.stepwise_decoder(model)({}, {}, latents, None)
    assert steps.write is None
    np.testing.assert_allclose(steps.mean, [np.full_like(expected, 0.5), expected], atol=1e-6)


def test_samples_of_draw_come_about_step_by_step(call):
    call("sample", "draw", "--num=5", "--out=s.gif")
    frames, info = gif("s.gif")
    assert frames.shape == (4, 102, 152, 3)
    assert info["loop"] == 0
    assert info["duration"] == animations.HOLD  # of the last frame
    np.testing.assert_array_equal(has(frames, animations.WRITE_COLOUR), [True] * 3 + [False])
    assert not has(frames, animations.READ_COLOUR).any()
    call("sample", "draw", "--num=5", "--pixels=mean", "--out=s.png")
    np.testing.assert_allclose(frames[-1].astype(int), png("s.png"), atol=1)


@pytest.mark.parametrize("run", ["vae", "draw"])
def test_images_are_rebuilt(call, run):
    flags = ("--split=validation", "--num=4")
    lines = call("reconstruct", run, *flags, "--out=r.npz")
    stored = arrays("r.npz")
    image, rebuilt = stored["image"], stored["reconstruction"]
    assert sorted(stored) == ["image", "levels", "reconstruction"]
    assert (image.dtype, stored["levels"]) == (np.uint8, 17)
    assert (rebuilt.dtype, rebuilt.shape) == (np.float32, (4, 8, 8, 1))
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    assert (rebuilt[0] != rebuilt[1]).any()
    error = np.square(np.float64(rebuilt) - image / 16).mean()
    assert lines == [f"mean squared error: {error:.6f} of values in [0, 1], 4 images", "r.npz"]
    call("reconstruct", run, *flags, "--out=r.png")
    picture = png("r.png")
    assert picture.shape == (102, 202, 3)
    np.testing.assert_array_equal(picture, pictures.reconstructions(image, rebuilt, 17))
    call("reconstruct", run, "--input=r.npz", "--num=2", "--out=again.npz", *label_of(run))
    np.testing.assert_array_equal(arrays("again.npz")["image"], image[:2])


def label_of(run):
    return ["--label=1"] if run == "vae" else []


def test_images_are_read_and_written_step_by_step(call):
    call("reconstruct", "draw", "--num=4", "--out=r.gif")
    frames, info = gif("r.gif")
    assert frames.shape == (4, 102, 202, 3)
    assert info["duration"] == animations.HOLD
    np.testing.assert_array_equal(has(frames, animations.WRITE_COLOUR), [True] * 3 + [False])
    np.testing.assert_array_equal(has(frames, animations.READ_COLOUR), [True] * 3 + [False])
    call("reconstruct", "draw", "--num=4", "--out=r.png")
    np.testing.assert_allclose(frames[-1].astype(int), png("r.png"), atol=1)


def rebuilt_of(call, run, num, *flags):
    call("reconstruct", run, f"--num={num}", "--out=ends.npz", *flags)
    return arrays("ends.npz")["reconstruction"]


@pytest.mark.parametrize("path", ["linear", "spherical"])
@pytest.mark.parametrize("run", ["vae", "draw"])
def test_paths_begin_and_end_at_reconstructions(call, run, path):
    flags = (f"--path={path}", "--num=3", "--steps=4", *label_of(run))
    call("interpolate", run, *flags, "--out=p.npz")
    stored = arrays("p.npz")
    assert stored["image"].shape == (3, 4, 8, 8, 1)
    assert stored["latents"].shape == (3, 4, *((1, 3) if run == "vae" else (3, 2)))
    assert stored["image"].dtype == np.float32
    ends = rebuilt_of(call, run, 4, *label_of(run))
    np.testing.assert_allclose(stored["image"][:, 0], ends[:3], atol=1e-6)
    np.testing.assert_allclose(stored["image"][:, -1], ends[1:], atol=1e-6)
    middle = stored["latents"][:, [0, -1]].mean(1)
    length = np.linalg.norm(stored["latents"].reshape(3, 4, -1), axis=-1)
    if path == "spherical":
        np.testing.assert_allclose(np.diff(length, 2), 0, atol=1e-6)
    else:
        np.testing.assert_allclose(stored["latents"][:, 1:3].mean(1), middle, atol=1e-6)


def test_paths_are_spherical_unless_said_otherwise(call):
    images = {}
    for path in ("", "--path=spherical", "--path=linear"):
        call("interpolate", "draw", "--num=1", "--steps=3", "--out=p.npz", *filter(None, [path]))
        images[path] = arrays("p.npz")["latents"]
    np.testing.assert_array_equal(images[""], images["--path=spherical"])
    assert abs(images[""] - images["--path=linear"]).max() > 1e-5


def test_a_path_keeps_the_class_where_it_begins(call):
    call("interpolate", "vae", "--num=2", "--steps=2", "--out=own.npz")
    own = arrays("own.npz")["image"]
    np.testing.assert_allclose(own[:, 0], rebuilt_of(call, "vae", 3)[:2], atol=1e-6)
    call("interpolate", "vae", "--indices=1,0", "--steps=2", "--out=back.npz")
    back = arrays("back.npz")["image"][0]
    np.testing.assert_allclose(back[0], rebuilt_of(call, "vae", 3)[1], atol=1e-6)
    assert abs(back[0] - own[0, 1]).max() > 1e-5  # the same latents in another class


def test_chosen_images_are_a_chain_of_pairs(call):
    flags = ("--indices=9, 2,5", "--steps=2", "--out=p.npz")
    call("interpolate", "draw", *flags)
    ends = rebuilt_of(call, "draw", 10)
    want = ends[[[9, 2], [2, 5]]]
    np.testing.assert_allclose(arrays("p.npz")["image"], want, atol=1e-6)
    call("interpolate", "draw", *flags, "--num=1")
    np.testing.assert_allclose(arrays("p.npz")["image"], want[:1], atol=1e-6)


def test_a_grid_is_bilinear_between_its_corners(call):
    call("interpolate", "draw", "--kind=grid", "--indices=4,1,0,2", "--steps=3", "--out=g.npz")
    stored = arrays("g.npz")
    assert stored["image"].shape == (3, 3, 8, 8, 1)
    ends = rebuilt_of(call, "draw", 5)
    corners = stored["image"][[0, 0, 2, 2], [0, 2, 0, 2]]
    np.testing.assert_allclose(corners, ends[[4, 1, 0, 2]], atol=1e-6)
    latents = stored["latents"]
    want = latents[[0, 0, 2, 2], [0, 2, 0, 2]].mean(0)
    np.testing.assert_allclose(latents[1, 1], want, atol=1e-6)
    np.testing.assert_allclose(latents[1, 0], latents[[0, 2], 0].mean(0), atol=1e-6)


def test_one_variable_goes_from_minus_three_to_three(call):
    flags = ("--kind=latent", "--latent=3", "--indices=1", "--steps=5")
    call("interpolate", "draw", *flags, "--out=l.npz")
    stored = arrays("l.npz")
    assert stored["image"].shape == (1, 5, 8, 8, 1)
    call("interpolate", "draw", "--indices=1,0", "--steps=2", "--out=p.npz")
    own = arrays("p.npz")["latents"][0, 0]
    want = np.repeat(own[None], 5, axis=0)
    want[:, 1, 1] = [-3, -1.5, 0, 1.5, 3]
    np.testing.assert_allclose(stored["latents"][0], want, atol=1e-6)
    assert (stored["image"][0, 0] != stored["image"][0, -1]).any()


def test_paths_as_pictures(call):
    flags = ("--num=2", "--steps=3")
    call("interpolate", "draw", *flags, "--out=p.npz")
    cells = pictures.to_pixels(pictures.to_bytes(arrays("p.npz")["image"]), 256)
    call("interpolate", "draw", *flags, "--out=p.png")
    np.testing.assert_array_equal(png("p.png"), pictures.tile(cells))
    call("interpolate", "draw", *flags, "--out=p.gif")
    frames, info = gif("p.gif")
    assert frames.shape == (4, 52, 102, 3)
    np.testing.assert_array_equal(frames[1], frames[3])
    np.testing.assert_array_equal(frames[2], pictures.tile(cells[None, :, 2]))
    assert info["loop"] == 0


def test_few_images_make_few_paths(call):
    call("reconstruct", "draw", "--num=3", "--out=r.npz")
    call("interpolate", "draw", "--input=r.npz", "--steps=2", "--out=p.npz")
    assert arrays("p.npz")["image"].shape[:2] == (2, 2)


def test_how_images_were_completed_is_said(call, runs):
    latent = opened(flags.Which(str(runs / "vae"), None, 0)).model.latent
    said, out = call("complete", "vae", "--num=2", "--completions=1", "--out=c.npz")
    assert said.startswith("completed given all known pixels, by ")
    assert latent.completion in said
    assert out == "c.npz"
    stored = arrays("c.npz")
    known = stored["known"]
    np.testing.assert_array_equal(stored["completed"][:, 0][known], stored["image"][known])


REFUSED = {
    "interpolate --workdir=draw --indices=0,300": (
        "--indices must be in [0, 299] for --split=test, got 300."
    ),
    "interpolate --workdir=draw --input=one.png": "has 1 image; --kind=pairs needs two or more",
    "interpolate --workdir=draw --input=one.png --indices=0,1": (
        "--indices must be in [0, 0] for --input=one.png, got 1."
    ),
    "interpolate --workdir=draw --kind=latent --latent=6": "in [0, 5] (3 steps of 2), got 6",
    "interpolate --workdir=vae --kind=latent --latent=-1": "must be in [0, 2], got -1",
    "interpolate --workdir=vae --label=10": "--label must be a class in [0, 9], got '10'",
    "interpolate --workdir=vae --input=one.png": "give --label, 0 to 9",
    "interpolate --workdir=draw --kind=grid --steps=101": (
        "paths times --steps must be ≤ 10000 for images"
    ),
    "reconstruct --workdir=draw --label=1": "not class-conditional",
    "reconstruct --workdir=vae --out=new.gif": "vae has no canvases for a .gif",
    "sample --workdir=vae --out=new.gif": "such as draw",
    "sample --workdir=draw --out=new.gif --num=1001": "must be ≤ 1000 for images",
}


def refused(runs, capsys, words):
    """The one line that a command says, having written nothing."""
    verb, workdir, *flags = words.split()
    folder = runs / workdir.removeprefix("--workdir=")
    Image.new("L", (8, 8)).save("one.png")
    before = tree(folder)
    out = [] if "--out" in words else ["--out=new.png"]
    assert rnngen(verb, f"--workdir={folder}", *flags, *out) == 2
    assert tree(folder) == before
    assert os.listdir() == ["one.png"]
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("words", REFUSED)
def test_what_the_run_cannot_do_is_refused(call, runs, capsys, words):
    assert REFUSED[words] in refused(runs, capsys, words)


LACKING = {
    "reconstruct --workdir=vae": "vae has no latents to rebuild images from.",
    "interpolate --workdir=vae": "vae has no latents to interpolate.",
    "sample --workdir=vae --pixels=mean": "vae has no latents to make images from.",
    "sample --workdir=vae --out=new.gif": "vae has no canvases for a .gif",
}


@pytest.mark.parametrize("words", LACKING)
def test_models_without_latents_say_so(call, runs, monkeypatch, capsys, words):
    lacking(monkeypatch, lambda model: model._replace(latent=None))
    assert LACKING[words] in refused(runs, capsys, words)


def test_a_code_without_a_prior_says_so(call, runs, monkeypatch, capsys):
    lacking(monkeypatch, lambda m: m._replace(latent=m.latent._replace(prior=None)))
    line = refused(runs, capsys, "interpolate --workdir=vae --kind=latent --latent=0")
    assert "vae has no prior, which sets the scale of --kind=latent" in line
    line = refused(runs, capsys, "sample --workdir=vae --pixels=mean")
    assert "vae has no prior over its latents to draw from" in line


def lacking(monkeypatch, change):
    """Runs opened from now on have models that lack something."""

    def open_run(*flags):
        run = opened(*flags)
        return dataclasses.replace(run, model=change(run.model))

    for verb in (sample, reconstruct, interpolate):
        monkeypatch.setattr(verb, "open_run", open_run)


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ("reconstruct --num=2 --out=a.png", "vae"),
        ("reconstruct --num=2 --out=a.gif", "draw"),
        ("interpolate --num=1 --steps=3 --out=a.png", "vae"),
        ("complete --num=2 --completions=1 --out=a.npz", "vae"),
        ("sample --num=2 --out=a.png", "draw"),
        ("sample --num=2 --out=a.gif", "draw"),
        ("sample --num=2 --pixels=mean --out=a.npz", "vae"),
    ],
)
def test_of_several_processes_the_first_writes_and_prints(call, tmp_path, monkeypatch, words, run):
    """What the second does, alone here; test_hosts.py runs two."""
    verb, *given = words.split()
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert call(verb, run, *given) == []
    assert tree(tmp_path) == {}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert call(verb, run, *given)
    assert len(tree(tmp_path)) == 1
