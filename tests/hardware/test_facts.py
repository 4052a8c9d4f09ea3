"""The tables hold together: every row has sources that exist, every operator is one of Core ML's."""

from __future__ import annotations

import re

import pytest

from compiler import hardware
from compiler.dialects import mil, mil_forms
from compiler.errors import UserError
from compiler.hardware import facts

#: What is no operator of the running program: constants and what they are made from; and one that no release documents.
NOT_RUN = {n for n in mil_forms.operator_names() if n == "const" or n.startswith("constexpr_")} | {"conv_quantized"}


def letters(source: str) -> set[str]:
    return set(re.findall(r"\b[A-Z]\b(?!')", source.replace("-D", "")))


def test_every_operator_of_core_ml_has_a_row() -> None:
    assert set(hardware.operators()) == set(mil_forms.operator_names()) - NOT_RUN


def test_every_row_has_known_sources() -> None:
    rows = [*hardware.operators().values(), *hardware.limits(), *facts.advice()]
    for row in rows:
        assert letters(row.source), row
        assert letters(row.source) <= set(hardware.sources()), row
    for source in hardware.sources().values():
        assert source.title
        assert source.route


def test_what_is_never_taken_says_what_to_do_instead() -> None:
    for row in hardware.operators().values():
        if row.since not in ("A12", "A13"):
            assert row.remedy, row.operator


def test_every_figure_of_a_chip_has_a_source() -> None:
    assert list(hardware.chips()) == [*(f"A{n}" for n in range(12, 19)), *(f"M{n}" for n in range(1, 6))]
    for chip in hardware.chips().values():
        assert chip.tier in hardware.TIERS
        figures = {"ane_tflops", "gpu_tflops", "cpu_gops", "memory_gb_s", "dispatch_ms"}
        figures |= {"weights_gb_s"} if chip.weights_gb_s is not None else set()
        assert set(chip.sources) == figures
        for source in chip.sources.values():
            assert letters(source.partition(":")[0]) <= set(hardware.sources())


def test_limits_name_operators_and_checks_that_exist() -> None:
    from compiler.hardware.capability import _CHECKS, _TYPE_CHECKS

    for limit in (*hardware.limits(), *facts.advice()):
        assert limit.check in {**_CHECKS, **_TYPE_CHECKS}
        assert all(mil.since(n) for n in limit.operators)


def test_newer_generations_take_no_less() -> None:
    for fact in hardware.operators().values():
        taken = [fact.on(t) for t in hardware.TIERS]
        assert taken == sorted(taken)


def test_an_unknown_chip_is_an_error_with_a_remedy() -> None:
    assert hardware.chip("m1") is hardware.chip("M1")
    with pytest.raises(UserError, match=r"no chip is called 'A11'.*did you mean") as e:
        hardware.chip("A11")
    assert "A12" in (e.value.remedy or "")
