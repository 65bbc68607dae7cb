"""AArch64: decoded to the forms that pipelines.py prices, and priced as its tables say."""

import pytest

from hwsearch.emulation.aarch64 import FLAGS, decoder
from hwsearch.emulation.cores.cortex_a53 import PIPELINE as CORTEX_A53
from hwsearch.emulation.cores.cortex_a72 import PIPELINE as CORTEX_A72
from hwsearch.emulation.instructions import Instruction, Kind
from hwsearch.emulation.pipelines import Pipeline, block_cycles, blocks

PIPELINES = (CORTEX_A53, CORTEX_A72)
V = 32
FORMS = [
    ("20040091", "add x0, x1, #1", "plain", {1}, {0}),
    ("200c028b", "add x0, x1, x2, lsl #3", "shifted", {1, 2}, {0}),
    ("200c029b", "madd x0, x1, x2, x3", "multiply general", {1, 2, 3}, {0}),
    ("2008c21a", "udiv w0, w1, w2", "divide", {1, 2}, {0}),
    ("2004c13c", "ldr q0, [x1], #16", "load q", {1}, {1, V}),
    ("200040fd", "ldr d0, [x1]", "load", {1}, {V}),
    ("400440ad", "ldp q0, q1, [x2]", "load pair q", {2}, {V, V + 1}),
    ("400440a9", "ldp x0, x1, [x2]", "load pair", {2}, {0, 1}),
    ("20c0400d", "ld1r {v0.8b}, [x1]", "load lane", {1}, {V}),
    ("2000803d", "str q0, [x1]", "store q", {1, V}, set()),
    ("e007bfa9", "stp x0, x1, [sp, #-16]!", "store pair", {0, 1, 31}, {31}),
    ("20c0222e", "umull v0.8h, v1.8b, v2.8b", "multiply long q", {V + 1, V + 2}, {V}),
    ("2080226e", "umlal2 v0.8h, v1.16b, v2.16b", "multiply long q", {V, V + 1, V + 2}, {V}),
    ("2068606e", "uadalp v0.4s, v1.8h", "accumulate q", {V, V + 1}, {V}),
    ("2094220e", "mla v0.8b, v1.8b, v2.8b", "multiply d", {V, V + 1, V + 2}, {V}),
    ("2044226e", "ushl v0.16b, v1.16b, v2.16b", "shift q", {V + 1, V + 2}, {V}),
    ("2054a24e", "srshl v0.4s, v1.4s, v2.4s", "round q", {V + 1, V + 2}, {V}),
    ("2028612e", "sqxtun v0.4h, v1.4s", "narrow q", {V + 1}, {V}),
    ("2018024e", "uzp1 v0.16b, v1.16b, v2.16b", "permute q", {V + 1, V + 2}, {V}),
    ("2058204e", "cnt v0.16b, v1.16b", "vector q", {V + 1}, {V}),
    ("200c014e", "dup v0.16b, w1", "insert", {1}, {V}),
    ("203c040e", "umov w0, v1.s[0]", "transfer", {V + 1}, {0}),
    ("2000669e", "fmov x0, d1", "transfer", {V + 1}, {0}),
    ("01000054", "b.ne .", "branch", {FLAGS}, set()),
    ("00000094", "bl .", "call", set(), {30}),
    ("1f0001eb", "cmp x0, x1", "plain", {0, 1}, {FLAGS}),
    ("2000829a", "csel x0, x1, x2, eq", "plain", {1, 2, FLAGS}, {0}),
]


@pytest.mark.parametrize(("code", "text", "form", "reads", "writes"), FORMS, ids=[text for _, text, *_ in FORMS])
def test_an_instruction_is_of_its_form_and_touches_its_registers(
    code: str, text: str, form: str, reads: set[int], writes: set[int]
) -> None:
    found = decoder().decode(bytes.fromhex(code), 0x1000)[0]
    assert (found.form, set(found.reads), set(found.writes)) == (form, reads, writes)
    assert found.target == (0x1000 if text.endswith(" .") else None)


def test_every_core_prices_every_form() -> None:
    assert len({frozenset(core.costs) - {"multiply long d"} for core in PIPELINES}) == 1
    assert {form for _, _, form, *_ in FORMS} <= set(CORTEX_A72.costs)
    for core in PIPELINES:
        letters = {letter for cost in core.costs.values() for letter in cost.operations}
        assert letters <= set(core.units) | set(core.either)


def made(form: str, reads: set[int], writes: set[int], *, accumulates: bool = False, at: int = 0) -> Instruction:
    return Instruction(
        address=at, size=4, kind=Kind.OTHER, reads=frozenset(reads), writes=frozenset(writes), form=form,
        accumulates=frozenset(writes if accumulates else ()),
    )  # fmt: skip


def products(count: int) -> list[Instruction]:
    """UMLAL to registers of their own."""
    return [made("multiply long q", {V + i, V + 30}, {V + i}, accumulates=True) for i in range(count)]


@pytest.mark.parametrize(("core", "cycles"), [(CORTEX_A53, 16.0), (CORTEX_A72, 8.0)])
def test_eight_long_products_take_what_the_multiplier_takes(core: Pipeline, cycles: float) -> None:
    assert block_cycles(products(8), core) == cycles


def test_the_larger_core_accumulates_beside_multiplying_and_the_smaller_does_not() -> None:
    pairs = [made("accumulate q", {V + i, V + 8 + i}, {V + i}, accumulates=True) for i in range(8)]
    multiplications = [made("multiply long q", {V + 30, V + 31}, {V + 8 + i}) for i in range(8)]
    both = [instruction for pair in zip(multiplications, pairs, strict=True) for instruction in pair]
    assert block_cycles(both, CORTEX_A72) == pytest.approx(8.0, abs=0.5)
    assert block_cycles(both, CORTEX_A53) >= 32.0


def test_two_plain_instructions_share_a_cycle_unless_one_needs_the_other() -> None:
    apart = [made("plain", {1}, {n}) for n in (2, 3, 4)]
    chained = [made("plain", {n}, {n + 1}) for n in (1, 2, 3)]
    assert block_cycles(apart, CORTEX_A53) == pytest.approx(1.5, abs=0.05)
    assert block_cycles(chained, CORTEX_A53) == 2.0


def loop(body: list[Instruction]) -> list[Instruction]:
    """The body, and a branch to its start."""
    placed = [made(i.form, set(i.reads), set(i.writes), accumulates=bool(i.accumulates), at=4 * n) for n, i in enumerate(body)]
    branch = Instruction(
        address=4 * len(body), size=4, kind=Kind.BRANCH, reads=frozenset(), writes=frozenset(), form="branch", ends_flow=True,
        target=0,
    )  # fmt: skip
    return [*placed, branch]


def test_only_a_loop_waits_for_its_turn_before() -> None:
    chain = [made("load", {1}, {1})]
    assert block_cycles(loop(chain), CORTEX_A72) == 4.0
    assert block_cycles(chain, CORTEX_A72) == 1.0


def test_the_cost_of_a_block_stands_at_its_first_instruction() -> None:
    code = [*loop(products(4)), made("plain", {1}, {2}, at=20), made("plain", {3}, {4}, at=24)]
    assert [len(block) for block in blocks(code)] == [5, 2]
    assert CORTEX_A53.issue(code)[0] == [8, 0, 0, 0, 0, 1, 0]
