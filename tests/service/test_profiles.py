"""The profiles verb prints a table's wide form and nothing else."""

import sys
from pathlib import Path

import pytest

from hwsearch.service.cli import main

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("schema", [1, 2])
def test_the_wide_form_of_a_table_is_printed_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], schema: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["hwsearch", "profiles", str(DATA / f"profile_schema{schema}"), "--csv"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert capsys.readouterr().out == (DATA / "profile_schema1" / "ops.csv").read_text(encoding="utf-8")
