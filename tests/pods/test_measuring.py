"""Training steps measured in processes of their own, and from the dumps of a compiler."""

import pytest

from rnngen_jax.errors import UserError
from rnngen_jax.pods import hlo, measuring

TEXT = """HloModule tpu, is_scheduled=true

ENTRY %main.1 (a.1: f32[8]) -> f32[8] {
  %a.1 = f32[8]{0:T(1024)} parameter(0)
  ROOT %all-reduce.1 = f32[8]{0:T(1024)} all-reduce(%a.1), to_apply=%region.1
}
"""
MEMORY = """Memory Space: default (color=0)
Total bytes: 5632 (5.5KiB)

Memory Space: vmem (color=1)
Total bytes: 99 (99B)
"""


def test_dumps_are_read_once_the_last_is_there(tmp_path):
    stem = "module_0003.jit__lambda.cl_1.after_optimizations"
    assert measuring.dumped(tmp_path) is None
    (tmp_path / f"{stem}.txt").write_text(TEXT)
    (tmp_path / f"{stem}-memory-usage-report.txt").write_text(MEMORY)
    assert measuring.dumped(tmp_path) is None
    (tmp_path / f"{stem}_after_buffer_assignment.txt").touch()
    least, most, peak = measuring.dumped(tmp_path)
    assert least == most == hlo.costs(TEXT)
    assert most.collectives == {"all-reduce": hlo.Traffic(1, 32)}
    assert peak == 5632


def test_a_process_of_its_own_finds_the_same():
    """Where a compiler writes no such dumps, as a CPU's, from its end."""
    given = ("mlp_gan", "cpu:2", False, {})
    (program, found), (expected_program, expected) = measuring.apart(*given), measuring.here(*given)
    assert program == expected_program
    assert found._replace(seconds=0) == expected._replace(seconds=0)


def test_what_a_process_refuses_is_raised_here():
    with pytest.raises(UserError, match="there is no file 'row_rnm'"):
        measuring.apart("row_rnm", "cpu:2", False, {})
