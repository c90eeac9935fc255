"""Counts in compiled programs against sums by hand, and the compiler's own without loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnngen_jax.pods import hlo

M, K, N, STEPS = 6, 5, 7, 9
A, B = jax.ShapeDtypeStruct((M, K), np.float32), jax.ShapeDtypeStruct((K, N), np.float32)
SQUARE = jax.ShapeDtypeStruct((K, K), np.float32)


def compiled(function, *shapes):
    return jax.jit(function).lower(*shapes).compile()


def counted(function, *shapes):
    return hlo.costs(compiled(function, *shapes).as_text())


def test_a_product_is_two_operations_per_multiplication():
    found = counted(lambda a, b: a @ b, A, B)
    assert found.flops == 2 * M * K * N
    assert found.bytes == 4 * (M * K + K * N + M * N)
    assert (found.collectives, found.unknown_loops, found.cycles) == ({}, 0, 0)


@pytest.mark.parametrize("nested", [False, True])
def test_a_loop_counts_as_often_as_it_runs(nested):
    """Which the compiler's own sum does not."""

    def loop(a, b):
        def step(a, _):
            inner = jax.lax.scan(lambda a, _: (a @ b, None), a, None, STEPS)[0] if nested else a @ b
            return inner, None

        return jax.lax.scan(step, a, None, STEPS)[0]

    times = STEPS**2 if nested else STEPS
    program = compiled(loop, A, SQUARE)
    found = hlo.costs(program.as_text())
    assert found.unknown_loops == 0
    assert found.flops == pytest.approx(times * 2 * M * K * K, rel=0.01)
    assert program.cost_analysis()["flops"] < found.flops / 2


def test_a_loop_of_unknown_length_is_told():
    def loop(a):
        return jax.lax.while_loop(lambda a: a.sum() < 1e6, lambda a: a @ a, a)

    assert counted(loop, SQUARE).unknown_loops == 1


def test_convolutions_and_arithmetic_are_as_the_compiler_counts_them_without_loops():
    image = jax.ShapeDtypeStruct((2, 8, 8, 3), np.float32)
    kernel = jax.ShapeDtypeStruct((1, 1, 3, 4), np.float32)

    def apply(image, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        out = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "VALID", dimension_numbers=dimensions
        )
        return (3 * out + 1).sum()

    program = compiled(apply, image, kernel)
    numbers = 2 * 8 * 8 * 4
    found = hlo.costs(program.as_text()).flops
    assert found == pytest.approx(2 * 3 * numbers + 3 * numbers, rel=0.02)
    assert found == pytest.approx(program.cost_analysis()["flops"], rel=0.1)


def test_a_conditional_counts_as_its_cheapest_and_as_its_dearest_branch():
    def either(pick, a):
        def step(a, _):
            branches = [lambda a: a @ a @ a, lambda a: a, lambda a: a @ a]
            return jax.lax.switch(pick, branches, a), None

        return jax.lax.scan(step, a @ a, None, STEPS)[0]

    text = compiled(either, jax.ShapeDtypeStruct((), np.int32), SQUARE).as_text()
    found = hlo.bounds(text)
    assert found.least.flops == 2 * K**3
    assert found.most.flops == (1 + 2 * STEPS) * 2 * K**3
    assert found.most == hlo.costs(text)
    assert found.least.bytes < found.most.bytes


def test_without_conditionals_there_is_one_count():
    least, most = hlo.bounds(compiled(lambda a, b: a @ b, A, B).as_text())
    assert least == most


def test_a_slice_taken_in_a_loop_is_not_the_whole_array():
    xs = jax.ShapeDtypeStruct((1000, M, K), np.float32)

    def loop(xs, b):
        return jax.lax.scan(lambda h, x: (jnp.tanh(h @ b + x), None), xs[0], xs)[0]

    moved = counted(loop, xs, SQUARE).bytes
    least = 4 * 1000 * M * K  # each input once
    assert least < moved < 12 * least


UPDATES = """HloModule tpu, is_scheduled=true

%fused.1 (p.1: f32[1000,8], p.2: f32[8], p.3: s32[], p.4: f32[1000,8]) -> (f32[1000,8], f32[8], f32[1000,8]) {
  %p.1 = f32[1000,8]{1,0} parameter(0)
  %p.2 = f32[8]{0} parameter(1)
  %p.3 = s32[] parameter(2)
  %p.4 = f32[1000,8]{1,0} parameter(3)
  %zero.1 = s32[] constant(0)
  %tanh.1 = f32[8]{0} tanh(%p.2)
  %row.1 = f32[1,8]{1,0} bitcast(%tanh.1)
  %cast.1 = f32[1000,1,8]{2,1,0} bitcast(%p.1)
  %row.2 = f32[1,1,8]{2,1,0} bitcast(%tanh.1)
  %update.1 = f32[1000,1,8]{2,1,0} dynamic-update-slice(%cast.1, %row.2, %p.3, %zero.1, %zero.1)
  %back.1 = f32[1000,8]{1,0} bitcast(%update.1)
  %update.2 = f32[1000,8]{1,0} dynamic-update-slice(%p.4, %row.1, %p.3, %zero.1)
  ROOT %out.1 = (f32[1000,8]{1,0}, f32[8]{0}, f32[1000,8]{1,0}) tuple(%back.1, %tanh.1, %update.2)
}

%fused.2 (p.5: f32[1000,8], p.6: f32[1,1,8], p.7: s32[]) -> f32[1000,8] {
  %p.5 = f32[1000,8]{1,0} parameter(0)
  %p.6 = f32[1,1,8]{2,1,0} parameter(1)
  %p.7 = s32[] parameter(2)
  %zero.2 = s32[] constant(0)
  %cast.2 = f32[1000,1,8]{2,1,0} bitcast(%p.5)
  %update.3 = f32[1000,1,8]{2,1,0} dynamic-update-slice(%cast.2, %p.6, %p.7, %zero.2, %zero.2)
  ROOT %back.2 = f32[1000,8]{1,0} bitcast(%update.3)
}

ENTRY %main.1 (a.1: f32[1000,8], a.2: f32[8], a.3: s32[], a.4: f32[1000,8]) -> f32[1000,8] {
  %a.1 = f32[1000,8]{1,0} parameter(0)
  %a.2 = f32[8]{0} parameter(1)
  %a.3 = s32[] parameter(2)
  %a.4 = f32[1000,8]{1,0} parameter(3)
  %both.1 = (f32[1000,8]{1,0}, f32[8]{0}, f32[1000,8]{1,0}) fusion(%a.1, %a.2, %a.3, %a.4), kind=kLoop, calls=%fused.1
  %first.1 = f32[1000,8]{1,0} get-tuple-element(%both.1), index=0
  %row.3 = f32[8]{0} get-tuple-element(%both.1), index=1
  %row.4 = f32[1,1,8]{2,1,0} bitcast(%row.3)
  ROOT %again.1 = f32[1000,8]{1,0} fusion(%first.1, %row.4, %a.3), kind=kLoop, calls=%fused.2
}
"""  # noqa: E501


def test_a_row_written_by_a_fusion_is_not_the_whole_array():
    """Through bitcasts, and among several results, as a TPU's compiler fuses them."""
    row, index = 4 * 8, 4
    both = 2 * (row + row) + row + row + index  # two updates, what they get and what is kept
    again = row + row + row + index
    assert hlo.costs(UPDATES).bytes == both + again


def test_collectives_are_counted_with_what_a_device_hands_in():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x = jax.ShapeDtypeStruct((8, 16), np.float32)

    def body(x):
        def step(total, _):
            return jax.lax.psum(total + x, "data"), None

        total = jax.lax.scan(step, x, None, STEPS)[0]
        return total, jax.lax.all_gather(x, "data")

    mapped = jax.shard_map(
        body, mesh=mesh, in_specs=jax.P("data"), out_specs=(jax.P(), jax.P()), check_vma=False
    )
    found = counted(mapped, x).collectives
    assert found == {
        "all-gather": hlo.Traffic(1, 64),
        "all-reduce": hlo.Traffic(STEPS, STEPS * 64),
    }


@pytest.mark.parametrize(
    ("shape", "size"),
    [("f32[2,3]{1,0}", 24), ("bf16[4]", 8), ("pred[3]", 3), ("f8e4m3fn[5]", 5), ("c128[2]", 32)],
)
def test_bytes_of_a_shape(shape, size):
    text = f"ENTRY %main (a: f32[]) -> f32[] {{\n  %a = {shape} parameter(0)\n"
    assert hlo.costs(text + f"  ROOT %b = {shape} copy(%a)\n}}\n").bytes == 2 * size


TPU = """HloModule tpu, is_scheduled=true

%body.1 (p.1: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) parameter(0)
  %n.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %x.1 = f32[4,8]{1,0:T(4,128)} get-tuple-element(%p.1), index=1
  %start.1 = (f32[4,8]{1,0:T(4,128)}, f32[4,8]{1,0:T(4,128)}) all-gather-start(%x.1), dimensions={0}
  %done.1 = f32[4,8]{1,0:T(4,128)} all-gather-done(%start.1)
  %dot.1 = f32[4,8]{1,0:T(4,128)} convolution(%done.1, %x.1), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"50"}
  %none.1 = f32[4,8]{1,0:T(4,128)} copy(%dot.1), backend_config={"estimated_cycles":"9223372036854775807"}
  ROOT %out.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) tuple(%n.1, %dot.1)
}

%condition.1 (p.2: (s32[], f32[4,8])) -> pred[] {
  %p.2 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) parameter(0)
  %n.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %c.2 = s32[]{:T(128)} constant(12)
  ROOT %less.2 = pred[]{:T(512)} compare(%n.2, %c.2), direction=LT
}

ENTRY %main.1 (a.1: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %a.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) parameter(0)
  ROOT %while.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(4,128)}) while(%a.1), condition=%condition.1, body=%body.1
}
"""  # noqa: E501


SPARSECORE = """HloModule tpu, is_scheduled=true

%called.1 (p.1: f32[8]) -> f32[8] {
  %p.1 = f32[8]{0:T(1024)} parameter(0)
  ROOT %all-reduce.1 = f32[8]{0:T(1024)} all-reduce(%p.1), to_apply=%region.1
}

ENTRY %main.1 (a.1: f32[8]) -> f32[8] {
  %a.1 = f32[8]{0:T(1024)} parameter(0)
  %call.1 = ((f32[8]{0:T(1024)}), f32[8]{0:T(1024)}) call-start(%a.1), to_apply=%called.1
  ROOT %done.1 = f32[8]{0:T(1024)} call-done(%call.1)
}
"""


def test_a_collective_on_a_core_of_its_own_is_counted():
    """As TPU7x runs them."""
    assert hlo.costs(SPARSECORE).collectives == {"all-reduce": hlo.Traffic(1, 32)}


def test_text_as_a_tpus_compiler_writes_it():
    """Tiled layouts, products as convolutions, asynchronous pairs, a trip count to be found."""
    found = hlo.costs(TPU)
    assert found.flops == 12 * 2 * 4 * 8 * 4
    assert found.cycles == 12 * 50
    assert found.collectives == {"all-gather": hlo.Traffic(12, 12 * 128)}
    assert found.unknown_loops == 0
