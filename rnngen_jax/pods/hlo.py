"""What a compiled program does on one device, counted in its HLO text.

XLA's own cost analysis counts the body of a loop once. Here a loop counts as often as it runs, by
the trip count that the compiler has found. Which branch a conditional takes is not in the text, so
there are two counts: at least, and at most.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
    "collective-broadcast",
    "ragged-all-to-all",
)

_BITS = {"pred": 8, "token": 0, "opaque": 0}  # of dtypes that do not name theirs, as f8e4m3fn does
_ARITHMETIC = frozenset(
    {
        *("add", "subtract", "multiply", "divide", "remainder", "power", "negate", "abs"),
        *("maximum", "minimum", "sqrt", "rsqrt", "cbrt", "exponential", "log", "logistic"),
        *("exponential-minus-one", "log-plus-one", "tanh", "sine", "cosine", "tan", "atan2", "erf"),
    }
)
# What names values and moves none.
_FREE = frozenset(
    {
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
        *("while", "conditional", "call", "call-start", "async-start"),
    }
)
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_WIDTH = re.compile(r"[a-z]+(\d+)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_EITHER = re.compile(r"\b(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NO_ESTIMATE = 2**62  # the compiler writes its largest integer where it has no estimate
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
_LABELS = re.compile(r"dim_labels=\w+_(\w+)->")
_WINDOW = re.compile(r"window=\{size=([\dx]+)")


class Traffic(NamedTuple):
    """What one kind of collective moves.

    Attributes:
      count: how often the network is waited for; an asynchronous pair counts once.
      bytes: what a device hands in, in all.
    """

    count: int
    bytes: int


class Costs(NamedTuple):
    """What a program does on one device.

    Attributes:
      flops: multiplications and additions of its products and convolutions, and one per number that
        other arithmetic gives.
      bytes: read and written in memory by what is not fused with its neighbours, at most.
      cycles: the compiler's estimate, 0 where it makes none.
      collectives: by kind, named as in HLO; those that there are.
      unknown_loops: loops whose trip count is unknown, counted as if they ran once.
    """

    flops: float
    bytes: float
    cycles: float
    collectives: dict[str, Traffic]
    unknown_loops: int


class Bounds(NamedTuple):
    """What a program does on one device; the two differ only where it has conditionals.

    Attributes:
      least: each figure with the branch of each conditional that is cheapest in it.
      most: with the one that is dearest in it.
    """

    least: Costs
    most: Costs


class _Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    literal: str
    attributes: str


class _Count(NamedTuple):
    """Sums over a computation and all that it calls."""

    numbers: Counter[str]
    traffic: Counter[tuple[str, str]]

    def add(self, other: "_Count", times: int) -> None:
        for mine, theirs in zip(self, other, strict=True):
            for name, value in theirs.items():
                mine[name] += times * value


def costs(text: str) -> Costs:
    """Counts what a compiled program does at most; see `bounds`."""
    return bounds(text).most


def bounds(text: str) -> Bounds:
    """Counts what a compiled program does, at least and at most.

    Args:
      text: its HLO, as `jax.stages.Compiled.as_text` gives it.
    """
    entry, computations = _parsed(text)
    return Bounds(_counted(entry, computations, min), _counted(entry, computations, max))


def _counted(
    entry: str, computations: Mapping[str, list[_Instruction]], pick: Callable[[int, int], int]
) -> Costs:
    """Counts a program, with `pick` of what two branches of a conditional do."""
    shapes = {each.name: each.shape for body in computations.values() for each in body}

    @functools.cache
    def count(name: str, fused: bool = False) -> _Count:
        total = _Count(Counter(), Counter())
        for each in computations[name]:
            total.numbers["flops"] += _flops(each, shapes)
            total.numbers["bytes"] += 0 if fused else _moved(each, computations, shapes)
            for kind, value in _traffic(each, shapes).items():
                total.traffic[kind] += value
            estimate = _CYCLES.search(each.attributes)
            cycles = int(estimate[1]) if estimate else 0
            total.numbers["cycles"] += cycles if cycles < _NO_ESTIMATE else 0
            inside(each, total, fused)
        return total

    def inside(each: _Instruction, total: _Count, fused: bool) -> None:
        """Adds what an instruction calls."""
        called = dict(_CALLED.findall(each.attributes))
        if each.opcode == "while":
            trips = _trips(each, computations[called["condition"]])
            total.numbers["unknown_loops"] += trips is None
            total.add(count(called["body"]), 1 if trips is None else trips)
        elif each.opcode == "conditional":
            listed = _BRANCHES.search(each.attributes)
            names = (
                re.findall(r"[\w.\-]+", listed[1]) if listed else _EITHER.findall(each.attributes)
            )
            if names:
                total.add(functools.reduce(functools.partial(_either, pick), map(count, names)), 1)
        elif each.opcode in ("fusion", "call", "call-start", "async-start"):
            name = called.get("calls") or called.get("to_apply")
            if name:
                total.add(count(name, fused or each.opcode == "fusion"), 1)

    found = count(entry)
    kinds = sorted({kind for (kind, _), value in found.traffic.items() if value})
    return Costs(
        float(found.numbers["flops"]),
        float(found.numbers["bytes"]),
        float(found.numbers["cycles"]),
        {k: Traffic(found.traffic[k, "count"], found.traffic[k, "bytes"]) for k in kinds},
        found.numbers["unknown_loops"],
    )


def _either(pick: Callable[[int, int], int], one: _Count, other: _Count) -> _Count:
    """What one of two branches does, figure by figure."""
    pairs = zip(one, other, strict=True)
    return _Count(*(Counter({k: pick(a[k], b[k]) for k in {*a, *b}}) for a, b in pairs))


def _parsed(text: str) -> tuple[str, dict[str, list[_Instruction]]]:
    """The entry's name, and each computation's instructions."""
    computations: dict[str, list[_Instruction]] = {}
    entry, body = "", None
    for line in text.splitlines():
        if body is None or not line.startswith(" "):
            opening = _COMPUTATION.match(line)
            if opening and not line.startswith("HloModule"):
                body = computations.setdefault(opening[2], [])
                entry = opening[2] if opening[1] else entry
            continue
        instruction = _INSTRUCTION.match(line)
        if instruction:
            shape, rest = _split(instruction[2])
            opcode, _, rest = rest.partition("(")
            inner, attributes = _until_closed(rest)
            operands = tuple(re.findall(r"%([\w.\-]+)", inner))
            opcode = opcode.strip()
            literal = inner if opcode == "constant" else ""
            body.append(_Instruction(instruction[1], shape, opcode, operands, literal, attributes))
    return entry, computations


def _split(text: str) -> tuple[str, str]:
    """A shape, which may be a tuple's, and what follows it."""
    if text.startswith("("):
        inner, rest = _until_closed(text[1:])
        return f"({inner})", rest
    shape, _, rest = text.partition(" ")
    return shape, rest


def _until_closed(text: str) -> tuple[str, str]:
    """What stands before the bracket that closes, and after it."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[:place], text[place + 1 :]
    return text, ""


def _arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """The dtype and dimensions of each array in a shape."""
    return [
        (dtype, tuple(int(size) for size in sizes.split(",") if size))
        for dtype, sizes in _ARRAY.findall(shape)
    ]


def _bytes(shape: str) -> int:
    total = 0
    for dtype, sizes in _arrays(shape):
        bits = _BITS[dtype] if dtype in _BITS else int(_WIDTH.match(dtype)[1])
        total += math.prod(sizes) * bits // 8
    return total


def _size(shape: str) -> int:
    return sum(math.prod(sizes) for _, sizes in _arrays(shape))


def _flops(each: _Instruction, shapes: Mapping[str, str]) -> int:
    """Operations of one instruction, without what it calls."""
    if each.opcode in _ARITHMETIC:
        return _size(each.shape) if _floating(each.shape) else 0
    if each.opcode == "dot":
        (_, left), *_ = _arrays(shapes[each.operands[0]])
        contracted = _CONTRACTED.search(each.attributes)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        return 2 * _size(each.shape) * math.prod(left[axis] for axis in axes)
    if each.opcode == "convolution":
        (_, kernel), *_ = _arrays(shapes[each.operands[1]])
        outputs = kernel[_LABELS.search(each.attributes)[1].index("o")]
        return 2 * _size(each.shape) * math.prod(kernel) // max(outputs, 1)
    if each.opcode == "reduce" and _floating(each.shape):
        return sum(_size(shapes[name]) for name in each.operands[: len(each.operands) // 2])
    if each.opcode == "reduce-window" and _floating(each.shape):
        window = _WINDOW.search(each.attributes)
        return _size(each.shape) * math.prod(map(int, window[1].split("x"))) if window else 0
    return 0


def _moved(
    each: _Instruction, computations: Mapping[str, list[_Instruction]], shapes: Mapping[str, str]
) -> int:
    """Bytes that an instruction reads and writes.

    Of an array that it takes a slice of, or writes one into, only the slice counts: in a loop, that
    is what a step reads of all steps' inputs.
    """
    if each.opcode in _FREE or each.opcode.endswith("-done"):
        return 0
    called = dict(_CALLED.findall(each.attributes))
    body = computations.get(called.get("calls", ""), []) if each.opcode == "fusion" else []
    if not body:
        return _sliced(each, shapes)
    body = _without_bitcasts(body)
    uses: dict[str, list[_Instruction]] = {}
    for inner in body:
        for name in inner.operands:
            uses.setdefault(name, []).append(inner)
    parameters = [inner for inner in body if inner.opcode == "parameter"]
    total = 0
    for inner in parameters:
        readers = uses.get(inner.name, [])
        whole = _bytes(inner.shape)
        if readers and all(_takes_slice(reader, inner.name) for reader in readers):
            whole = min(whole, sum(_slice_bytes(reader, shapes) for reader in readers))
        total += whole
    root, made = body[-1], {inner.name: inner for inner in body}
    written = [made[name] for name in root.operands] if root.opcode == "tuple" else [root]
    for result in written:
        updated = result.opcode == "dynamic-update-slice"
        total += _slice_bytes(result, shapes) if updated else _bytes(result.shape)
    return total


def _without_bitcasts(body: list[_Instruction]) -> list[_Instruction]:
    """A computation in which what a bitcast gives is what it was given; the root stays last."""
    given = {inner.name: inner.operands[0] for inner in body if inner.opcode == "bitcast"}

    def source(name: str) -> str:
        while name in given:
            name = given[name]
        return name

    kept = [
        inner._replace(operands=tuple(source(name) for name in inner.operands))
        for inner in body
        if inner.opcode != "bitcast"
    ]
    if body[-1].opcode != "bitcast":
        return kept
    root = source(body[-1].name)
    return sorted(kept, key=lambda inner: inner.name == root)


def _takes_slice(each: _Instruction, name: str) -> bool:
    """Whether an instruction touches a slice of its first operand, which is `name`."""
    slicing = ("dynamic-slice", "slice", "gather", "dynamic-update-slice")
    return each.opcode in slicing and each.operands[0] == name and name not in each.operands[1:]


def _slice_bytes(each: _Instruction, shapes: Mapping[str, str]) -> int:
    """Bytes of the slice."""
    if each.opcode == "dynamic-update-slice":
        return _bytes(shapes[each.operands[1]])
    return _bytes(each.shape)


def _sliced(each: _Instruction, shapes: Mapping[str, str]) -> int:
    """Bytes that an instruction outside of a fusion reads and writes."""
    if _takes_slice(each, each.operands[0] if each.operands else ""):
        return 2 * _slice_bytes(each, shapes)
    return _bytes(each.shape) + sum(_bytes(shapes[name]) for name in set(each.operands))


def _floating(shape: str) -> bool:
    return all(dtype.startswith(("f", "bf")) for dtype, _ in _arrays(shape))


def _traffic(each: _Instruction, shapes: Mapping[str, str]) -> Counter[tuple[str, str]]:
    kind = each.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return Counter()
    given = sum(_bytes(shapes[name]) for name in each.operands)
    return Counter({(kind, "count"): 1, (kind, "bytes"): given})


def _trips(each: _Instruction, condition: list[_Instruction]) -> int | None:
    """How often a loop runs; `None` if the text does not say."""
    known = _TRIPS.search(each.attributes)
    if known:
        return int(known[1])
    constants = [int(one.literal) for one in condition if one.literal.isdigit()]
    return constants[0] if len(constants) == 1 else None
