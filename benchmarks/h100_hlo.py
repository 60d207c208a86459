"""What a compiled program does, read from XLA's module: its loops, their launches and products, its collectives.

The module comes as its serialised `HloModuleProto`, whose field numbers are stable; a few lines read it, so that
nothing hangs on how a version prints. Used by `h100.py` and `scaling.py`.
"""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

STRUCTURE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional"}
STRUCTURE |= {"after-all", "add-dependency", "optimization-barrier", "partition-id", "replica-id"}
ITEM_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 2, 8: 4, 9: 8, 10: 2, 11: 4, 12: 8, 15: 8, 16: 2, 18: 16}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast")
Axes = tuple[int, ...]


class Instruction(NamedTuple):
    """One instruction; `dims` is the shape of its result, `()` for a tuple."""

    id: int
    opcode: str
    dims: Axes
    bytes: int  # of the result, a tuple's added up
    operands: tuple[int, ...]
    called: tuple[int, ...]
    config: dict[str, Any]
    dot: tuple[Axes, ...] | None  # axes of a product: contracted left and right, batch left and right


class Module(NamedTuple):
    """Instructions by computation, and the computation the program starts in."""

    computations: dict[int, list[Instruction]]
    entry: int


class Product(NamedTuple):
    """How many terms each sum of a matrix product has, and the sizes of its result, left and right."""

    terms: int
    left: int
    right: int


class Exchange(NamedTuple):
    """One collective: how often it runs in the whole program, and the bytes of its result on one device."""

    kind: str
    turns: int
    bytes: int
    in_a_loop: bool


class Loop(NamedTuple):
    """One `while`: how often its body runs in the whole program, and what is in the body."""

    turns: int
    body: int
    launches: int  # by one turn, inner loops not counted
    products: list[Product]  # of one turn, inner loops not counted
    innermost: bool


def read_module(compiled: Any) -> Module:
    """The module of a `jax.stages.Compiled`."""
    (module,) = compiled.runtime_executable().hlo_modules()
    fields = _fields(module.as_serialized_hlo_module_proto())
    computations = {}
    for raw in fields[3]:
        computation = _fields(raw)
        computations[computation[5][0]] = [_instruction(i) for i in computation.get(2, [])]
    return Module(computations, fields[6][0])


def launches(module: Module, computation: int) -> int:
    """Kernels and copies that one run of a computation launches, its inner loops not counted."""
    return sum(map(_launches, _flat(module, computation)))


def loops(module: Module, computation: int | None = None, turns: int = 1) -> Iterator[Loop]:
    """Every loop below a computation, in the order in which they run, an inner loop before the one around it."""
    computation = module.entry if computation is None else computation
    for instruction in _flat(module, computation):
        if instruction.opcode == "while":
            body = instruction.called[0]
            total = turns * _trip_count(instruction)
            inner = list(loops(module, body, total))
            yield from inner
            yield Loop(total, body, launches(module, body), list(_products(module, body)), not inner)


def total_launches(module: Module) -> int:
    """Kernels and copies of the whole program, each loop's body as often as it runs; conditions not counted."""
    return launches(module, module.entry) + sum(loop.turns * loop.launches for loop in loops(module))


def collectives(module: Module) -> dict[str, int]:
    """How many collectives of each kind the program has, and under "in a loop" how many stand in one."""
    counts: dict[str, int] = {}
    for exchange in exchanges(module):
        counts[exchange.kind] = counts.get(exchange.kind, 0) + 1
        counts["in a loop"] = counts.get("in a loop", 0) + exchange.in_a_loop
    return counts


def exchanges(module: Module) -> Iterator[Exchange]:
    """Every collective of the program."""
    bodies = {module.entry: (1, False)} | {loop.body: (loop.turns, True) for loop in loops(module)}
    for body, (turns, in_a_loop) in bodies.items():
        for instruction in _flat(module, body):
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                yield Exchange(kind, turns, instruction.bytes, in_a_loop)


def operations(module: Module) -> int:
    """Multiplications and additions of all matrix products, those of a loop as often as it runs."""
    in_loops = sum(loop.turns * sum(map(_operations, loop.products)) for loop in loops(module))
    return in_loops + sum(map(_operations, _products(module, module.entry)))


def _flat(module: Module, computation: int) -> Iterator[Instruction]:
    """The instructions of a computation, those of the computations it calls in place; loops stay closed."""
    for instruction in module.computations[computation]:
        yield instruction
        if instruction.opcode in ("call", "conditional"):
            for called in instruction.called:
                yield from _flat(module, called)


def _launches(instruction: Instruction) -> int:
    return not (instruction.opcode in STRUCTURE or instruction.opcode.endswith("-done"))


def _trip_count(loop: Instruction) -> int:
    if "known_trip_count" not in loop.config:
        raise ValueError("A loop's number of turns is not known when it is compiled.")
    return int(loop.config["known_trip_count"]["n"])


def _products(module: Module, computation: int) -> Iterator[Product]:
    """Each product of a computation, fused ones too; an inner loop's are its own."""
    here = module.computations[computation]
    by_id = {instruction.id: instruction for instruction in here}
    for instruction in here:
        axes = instruction.dot or _gemm_axes(instruction)
        if axes is not None:
            left, right = (by_id[i].dims for i in instruction.operands[:2])
            yield _product(left, right, axes[0], axes[2])
        elif instruction.opcode in ("fusion", "call", "conditional", "async-start"):
            for called in instruction.called:
                yield from _products(module, called)


def _product(left: Axes, right: Axes, summed: Axes, split: Axes) -> Product:
    """Axes of one kind count as one. XLA splits long sums, and adds the parts up later: those axes are terms too."""
    terms = math.prod(left[axis] for axis in summed + split)
    return Product(terms, math.prod(left) // terms, math.prod(right) // terms)


def _operations(product: Product) -> int:
    return 2 * product.terms * product.left * product.right


def _gemm_axes(instruction: Instruction) -> tuple[Axes, ...] | None:
    """The axes of a product that is a library call."""
    gemm = instruction.config.get("gemm_backend_config")
    if gemm is None:
        return None
    names = [f"{side}_{kind}_dimensions" for kind in ("contracting", "batch") for side in ("lhs", "rhs")]
    return tuple(tuple(map(int, gemm["dot_dimension_numbers"].get(name, []))) for name in names)


def _instruction(raw: bytes) -> Instruction:
    fields = _fields(raw)
    dot = fields.get(30)
    return Instruction(
        id=fields[35][0],
        opcode=fields[2][0].decode(),
        dims=_ints(_fields(fields[3][0]), 3),
        bytes=_bytes(_fields(fields[3][0])),
        operands=_ints(fields, 36),
        called=_ints(fields, 38),
        config=_json(fields.get(43, [b""])[0]),
        dot=tuple(_ints(_fields(dot[0]), n) for n in (1, 2, 3, 4)) if dot else None,
    )


def _bytes(shape: dict[int, list[Any]]) -> int:
    """What a shape takes; a token, and other things without items, nothing."""
    if 4 in shape:
        return sum(_bytes(_fields(part)) for part in shape[4])
    return ITEM_SIZES.get(shape[2][0], 0) * math.prod(_ints(shape, 3))


def _json(text: bytes) -> dict[str, Any]:
    try:
        return json.loads(text or b"{}")
    except ValueError:  # some backends keep other things there
        return {}


def _ints(fields: dict[int, list[Any]], number: int) -> tuple[int, ...]:
    """A repeated integer, which may be packed."""
    found: list[int] = []
    for value in fields.get(number, []):
        found += _packed(value) if isinstance(value, bytes) else [value]
    return tuple(found)


def _packed(raw: bytes) -> Iterator[int]:
    at = 0
    while at < len(raw):
        value, at = _varint(raw, at)
        yield value


def _fields(raw: bytes) -> dict[int, list[Any]]:
    """The fields of a protocol buffer message by number: integers, and bytes for all that has a length."""
    fields: dict[int, list[Any]] = {}
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(raw, at)
        else:
            size, at = _varint(raw, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = raw[at : at + size], at + size
        fields.setdefault(number, []).append(value)
    return fields


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
