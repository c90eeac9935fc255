"""The pod table: which configs it has, what it counts, and what it calls unsound."""

import itertools

import jax
import numpy as np
import pytest
from tiny_runs import rnngen

from rnngen_jax import config_files, continuing, experiment
from rnngen_jax.errors import UserError
from rnngen_jax.pods import compiling, programs, steps, table
from rnngen_jax.pods.compiling import Figures
from rnngen_jax.pods.hlo import Costs, Traffic
from rnngen_jax.pods.measuring import measuring
from rnngen_jax.pods.programs import Program
from rnngen_jax.shapes import ImageSpec

ONES = jax.ShapeDtypeStruct((4, 4), np.float32)


def program(body, lowered):
    """A program that runs `body(x, alone)` on each device."""

    def lower(devices, batch_size):
        lowered.append(len(devices))
        mesh = jax.sharding.Mesh(np.array(devices), ("data",))
        spec = jax.P()
        mapped = jax.shard_map(
            lambda x: body(x, len(devices) == 1),
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
            check_vma=False,
        )
        return jax.jit(mapped).lower(ONES)

    return Program(2, lower)


def summed(x, alone):
    return jax.lax.psum(x @ x, "data")


def gathered(x, alone):
    return jax.lax.all_gather(x @ x, "data").sum(0)


def busier(x, alone):
    return jax.lax.psum(x @ x if alone else x @ x @ x, "data")


def rows_of(monkeypatch, body, names=("cpu:2",), kept=None):
    lowered = []
    monkeypatch.setattr(programs, "programs", lambda *_: {"train": program(body, lowered)})
    return list(table.rows(["mlp_gan"], names, measuring(kept))), lowered


def test_the_program_of_one_device_is_compiled_once_per_chip(monkeypatch):
    found, lowered = rows_of(monkeypatch, summed, ("cpu:2", "cpu:8"))
    assert lowered == [1, 2, 8]
    assert [(row.topology, row.devices) for row in found] == [("cpu:2", 2), ("cpu:8", 8)]
    for row in found:
        assert row.figures.collectives == {"all-reduce": Traffic(1, 64)}
        assert row.crossing == (64, 64)
        assert row.figures.ratios == pytest.approx((1, 1), abs=0.01)
        assert row.sound


def test_a_gather_and_a_larger_share_of_the_work_are_unsound(monkeypatch):
    ((gathering,), _), ((busy,), _) = (rows_of(monkeypatch, body) for body in (gathered, busier))
    assert "all-gather" in gathering.figures.collectives
    assert set(busy.figures.collectives) == {"all-reduce"}
    assert min(busy.figures.ratios) > 1.9
    assert not gathering.sound
    assert not busy.sound


def test_the_branches_of_a_conditional_are_told_apart(monkeypatch):
    """As of a codebook's start, at the first step only: products, and sums over devices."""

    def starting(x, alone):
        return jax.lax.cond(x[0, 0] > 0, lambda: jax.lax.psum(x @ x @ x, "data"), lambda: x @ x)

    (found,), _ = rows_of(monkeypatch, starting)
    assert found.figures.least.flops == pytest.approx(found.figures.flops_per_device / 2, rel=0.05)
    assert found.figures.ratios == pytest.approx((1, 1), abs=0.01)
    assert found.crossing == (0, 64)
    assert found.sound

    def gathering(x, alone):
        return jax.lax.cond(
            x[0, 0] > 0, lambda: gathered(x, alone), lambda: jax.lax.psum(x @ x @ x, "data")
        )

    (found,), _ = rows_of(monkeypatch, gathering)
    assert not found.sound  # though its other branch has more operations


def test_an_interrupted_table_is_finished_from_what_is_kept(tmp_path, monkeypatch):
    kept, compiled = tmp_path / "kept.jsonl", []
    measure = compiling.measure

    def measured(lowered, machine):
        compiled.append(len(machine.devices))
        return measure(lowered, machine)

    monkeypatch.setattr(compiling, "measure", measured)
    ((first,), _) = rows_of(monkeypatch, summed, ("cpu:2",), kept)
    # The process was ended while it wrote a line.
    kept.write_text(kept.read_text() + kept.read_text().splitlines()[-1][:40])
    for _ in range(2):
        (again, _), _ = rows_of(monkeypatch, summed, ("cpu:2", "cpu:4"), kept)
        assert again == first
    assert compiled == [1, 2, 4]
    ((other,), _) = rows_of(monkeypatch, busier, ("cpu:2",), kept)  # is another program
    assert compiled == [1, 2, 4, 2]
    assert other.figures.flops_per_device > first.figures.flops_per_device


def test_every_config_file_is_in_the_table_with_images_of_a_known_shape():
    assert [config.partition(":")[0] for config in table.CONFIGS] == config_files.names()
    for config in table.CONFIGS:
        name = config_files.load(config).data.name
        assert name.removeprefix(steps.MOVING).partition(":")[0] in steps.ITEMS


def test_moving_images_have_their_frames(monkeypatch):
    """As the data have them: a canvas, and as many frames as are given and predicted."""
    seen = []
    unseen = programs.unseen
    monkeypatch.setattr(
        steps.programs, "unseen", lambda *given: seen.append(unseen(*given)) or seen[-1]
    )
    steps.step("video_rnn:mnist")
    steps.step("video_rnn")
    assert [one.spec for one in seen] == [
        ImageSpec(32, 32, levels=256, classes=10, frames=20),
        ImageSpec(16, 16, levels=17, classes=10, frames=20),
    ]


def test_gradients_are_those_of_every_player_and_update():
    config = config_files.load("mlp_gan")
    numbers = (8, 8, 1, 17, 10, 100)

    def counted():
        settings = continuing.resolve(experiment.check(config))
        return programs.gradient_bytes(settings, programs.unseen(settings, numbers))

    def dense(*sizes):
        return sum(i * o + o for i, o in itertools.pairwise(sizes))

    noise, features = config.model.noise, config.model.hidden
    generator = dense(noise, features, features, 64)
    discriminator = dense(64, features, features, 1)
    assert counted() == 4 * (generator + discriminator)
    config.discriminator.updates_per_step = 3
    assert counted() == 4 * (generator + 3 * discriminator)


LEAST = Costs(1e9, 1.0, 5e6, {"all-reduce": Traffic(1, 3584)}, 0)


def row(**changes):
    figures = Figures(
        batch_size=2,
        flops_per_device=2e9,
        flops_one_device=2e9,
        bytes_per_device=1.0,
        peak_bytes=2**20,
        memory_bytes=2**24,
        collectives={"all-reduce": Traffic(3, 4096)},
        least=LEAST,
        least_flops_one_device=1e9,
        cycles=5e6,
        seconds_one_device=0.9,
        seconds=1.0,
        unknown_loops=0,
        compile_seconds=1.0,
    )
    return table.Row("row_rnn:mnist", "v5e:2x2", 4, 3072, figures._replace(**changes), 90.0)


def test_the_verb_writes_the_page_and_names_what_is_unsound(tmp_path, monkeypatch, capsys):
    out = tmp_path / "page.md"
    given = ("--configs=row_rnn:mnist", "--topologies=v5e:2x2", f"--out={out}")
    asked = []

    def rows(*given):
        asked.append(given[:2])
        return iter([row()])

    monkeypatch.setattr(table, "rows", rows)
    assert rnngen("pods", *given) == 0
    assert asked == [(["row_rnn:mnist"], ["v5e:2x2"])]
    text = out.read_text()
    cells = ["row_rnn:mnist", "2", "1.000 to 2.000", "1.0000", "1 all-reduce to 3 all-reduce"]
    cells += ["3.5 to 4.0", "3.0", "0.5 to 1.0", "1.0", "90.0%"]
    assert f"| {' | '.join(cells)} |" in text.splitlines()
    assert f"rnngen pods {' '.join(given)}" in text.replace("\n", " ")
    assert "## v5e:2x2, 4 devices" in text
    assert (
        "row_rnn:mnist on v5e:2x2: ratio 1.0000, 1 all-reduce to 3 all-" in capsys.readouterr().out
    )
    for broken in (
        {"collectives": {"all-gather": Traffic(1, 4)}},
        {"flops_per_device": 2.1e9},
        {"least": LEAST._replace(flops=1.1e9)},
        {"peak_bytes": 2**25},
    ):
        monkeypatch.setattr(table, "rows", lambda *_, broken=broken: iter([row(**broken)]))
        assert rnngen("pods", *given) == 1
        assert "row_rnn:mnist on v5e:2x2: a device does another's" in capsys.readouterr().err
        assert "Not sound: row_rnn:mnist on v5e:2x2." in out.read_text().replace("\n", " ")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--out=page.txt", "--out must be a file that ends in .md, got 'page.txt'"),
        ("--configs=row_rnm", "there is no file 'row_rnm'; did you mean row_rnn?"),
        ("--topologies=cpu:2,v5:2x2", "--topologies must be cpu:N, or a TPU such as v5e:4x4"),
    ],
)
def test_flags_that_do_not_fit(capsys, flag, message):
    given = {"--configs": "--configs=row_rnn", "--topologies": "--topologies=cpu:2"}
    given[flag.partition("=")[0]] = flag
    assert rnngen("pods", *given.values()) == 2
    assert message in capsys.readouterr().err


def test_a_shape_that_is_not_known_is_refused(monkeypatch):
    config = config_files.load("mlp_gan")
    config.data.name = "npz:mine.npz"
    monkeypatch.setattr(config_files, "load", lambda _: config)
    with pytest.raises(UserError, match=r"data of mine must be one of .*, got 'npz:mine.npz'"):
        list(table.rows(["mine"], ["cpu:1"], measuring(None)))
