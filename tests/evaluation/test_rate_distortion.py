"""Points of rate and distortion: which are compared, and what is written of them."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

from rnngen_jax.errors import UserError
from rnngen_jax.evaluation import rate_distortion
from rnngen_jax.evaluation.distortion import Distortion
from rnngen_jax.evaluation.rate_distortion import Point

IMAGES = (np.arange(4 * 64).reshape(4, 8, 8, 1) % 17).astype(np.uint8)


def made(psnr, payload, name="JPEG", quality=1):
    return Point(name, quality, payload + 100, payload, 800, Distortion(psnr, 0.5, 11))


def test_the_smallest_of_at_least_the_same_psnr_is_compared():
    points = [made(20, 50), made(24, 90), made(23, 80), made(30, 70)]
    assert rate_distortion.at_like_psnr(made(22, 10), points) is points[3]
    assert rate_distortion.at_like_psnr(made(20, 10), points) is points[0]
    assert rate_distortion.at_like_psnr(made(10, 10), points) is points[0]
    assert rate_distortion.at_like_psnr(made(40, 10), points) is points[3]  # none is as good


def test_a_table_has_a_row_for_each():
    lines = rate_distortion.table([made(20, 5000, "codes", None), made(24.123, 90)])
    assert len({len(line) for line in lines}) == 1
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["", *rate_distortion.COLUMNS]
    assert rows[2] == ["codes", "5,100", "5,000", "50.0000", "20.00", "0.5000"]
    assert rows[3] == ["JPEG 1", "190", "90", "0.9000", "24.12", "0.5000"]


def test_runs_and_formats_are_measured_alike():
    """On the same 8-bit values, wherever they come from."""
    back = np.minimum(IMAGES, 12)
    own = rate_distortion.point("run", IMAGES, back, 17, 90, 60)
    assert (own.size, own.payload, own.pixels, own.distortion.window) == (90, 60, 256, 7)
    levels = np.rint(np.stack([IMAGES, back]) * (255 / 16)) / 255
    wanted = -10 * np.log10(np.square(levels[0] - levels[1]).mean())
    assert own.distortion.psnr == pytest.approx(wanted)
    for name in rate_distortion.FORMATS:
        points = rate_distortion.curve(name, IMAGES, 17)
        assert [one.name for one in points] == [name] * len(points)
        assert points[-1].distortion.psnr > points[0].distortion.psnr + 3
        assert points[-1].payload > points[0].payload


@pytest.mark.parametrize("installed", [True, False])
def test_a_folder_has_points_plot_and_sheets(tmp_path, monkeypatch, installed):
    if installed:
        pytest.importorskip("matplotlib")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: find(name, *a) if installed or name != "matplotlib" else None,
    )
    own = rate_distortion.point("run", IMAGES, IMAGES, 17, 90, 60)
    curves = {"JPEG": [made(20, 50, quality=10)], "WebP": [made(30, 50, "WebP", 0)]}
    given = (IMAGES, 17, [(own, IMAGES)], curves)
    rate_distortion.write(f"{tmp_path}/out", {"images": 4}, *given)
    found = {path.name for path in (tmp_path / "out").iterdir()}
    sheets = {"original.png", "run.png", "run_jpeg.png", "run_webp.png"}
    assert found == {*sheets, "rate_distortion.json"} | (
        {"rate_distortion.png"} if installed else set()
    )
    for name in sheets:
        with Image.open(tmp_path / "out" / name) as sheet:
            assert sheet.size == (16, 16)
    content = json.loads((tmp_path / "out" / "rate_distortion.json").read_text())
    assert content["images"] == 4
    assert [one["name"] for one in content["points"]] == ["run", "JPEG", "WebP"]
    assert content["points"][0]["psnr"] is None  # infinite, which JSON cannot hold
    assert content["points"][1]["psnr"] == 20


def test_runs_of_one_name_are_refused():
    rate_distortion.require_names(["a", "b"])
    with pytest.raises(UserError, match="two of the runs' folders have one name, of a, b, a"):
        rate_distortion.require_names(["a", "b", "a"])
