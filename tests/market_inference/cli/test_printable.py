"""What a terminal would obey is printed as an escape, wherever a command prints a foreign text."""

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from market_inference.cli.commands.output import PlainConsole, table
from market_inference.cli.main import main
from market_inference.cli.printable import printable
from tests.runtime.remote.answers import answering

ODD = "n\x1b[2J\x9b1m\x07\r\u202ex"
"""Clears the screen, changes the colour, rings, goes back in the line, and turns the direction of writing."""
ESCAPED = r"n\x1b[2J\x9b1m\x07\r\u202ex"
OBEYED = [*map(chr, {*range(32), *range(127, 160)} - {9, 10}), "\u2028", "\u202e", "\u2066", "\u200f", "\ud800"]


def run(*command: str | Path, status: int = 0, **environment: str) -> str:
    """Standard output and standard error, with colours as on a terminal."""
    found: Result = CliRunner().invoke(main, [*map(str, command)], env=environment, color=True)
    assert found.exit_code == status, found.output
    return found.output


def clean(output: str) -> bool:
    return not any(one in output for one in OBEYED)


@given(st.text())
def test_a_text_that_no_terminal_obeys_stays(text: str) -> None:
    assert clean(printable(text))
    if clean(text):
        assert printable(text) == text


def test_lines_and_columns_stay() -> None:
    assert printable("a\tb\r\nc\n") == "a\tb\nc\n"
    assert printable("Aktie: 株 é 🚀\u200d\u00a0") == "Aktie: 株 é 🚀\u200d\u00a0"


@pytest.fixture
def odd_file(tmp_path: Path) -> Path:
    rows = [f"2026-01-{day:02},{100 + day % 7},{day}" for day in range(1, 29)]
    file = tmp_path / f"{ODD}.csv"
    file.write_text("\n".join([f"date,close,{ODD}".replace("\r", ""), *rows]))
    return file


def test_names_of_files_and_columns_in_the_report_of_a_file(odd_file: Path) -> None:
    shown = run("inspect", odd_file)
    assert clean(shown)
    assert r"\x1b[2J" in shown


@pytest.mark.parametrize("command", ["inspect", "predict --csv", "sentiment --file", "indicators --csv"])
def test_names_in_refusals(odd_file: Path, command: str) -> None:
    odd_file.write_text(f"date,{ODD}\n2026-01-01,x\n")
    shown = run(*command.split(), odd_file.with_name(f"{ODD}-absent"), status=2)
    assert clean(shown)
    assert r"\x1b[2J" in shown
    assert clean(run(command.split()[0], f"--{ODD}", status=2))
    assert clean(run(f"--{ODD}", status=2))


def test_a_column_in_a_refusal(odd_file: Path) -> None:
    odd_file.write_text(f"date,{ODD}\n2026-01-01,x\n2026-01-02,y\n".replace("\r", ""))
    shown = run("inspect", odd_file, status=1)
    assert clean(shown)
    assert r"\x1b[2J" in shown


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff\x1b.csv")
    file.write_bytes(b"close\n1\n2\n")
    assert clean(run("inspect", file))


def test_answers_of_a_training_plane() -> None:
    job = {"id": ODD, "name": ODD, "state": ODD, "reason": ODD, "attempts": [], "progress": 0.5, "attempt": 1}
    answer = {**job, "result": {"measures": {ODD: ODD}}, "jobs": [job]}
    with answering(json.dumps(answer).encode()) as plane:
        for command in (["show", "j"], ["list"], ["show", "j", "--json"], ["cancel", "j"], ["logs", "j"]):
            assert clean(run("train", *command, MARKET_TRAINING_URL=plane.url, MARKET_INFERENCE_API_KEY="k")), command
    with answering(ODD.encode()) as plane:
        assert clean(run("train", "logs", "j", MARKET_TRAINING_URL=plane.url, MARKET_INFERENCE_API_KEY="k"))
    with answering(json.dumps({"detail": ODD}).encode(), 400) as plane:
        found = run("train", "list", status=1, MARKET_TRAINING_URL=plane.url, MARKET_INFERENCE_API_KEY="k")
    assert found == f"Error: {ESCAPED}\n"


def test_cells_titles_and_lines_of_a_console_and_its_own_styles() -> None:
    out = PlainConsole(highlight=False, markup=False, force_terminal=True, width=200, color_system="standard")
    shown = table(ODD, ODD, caption=ODD)
    shown.add_row(ODD)
    with out.capture() as captured:
        out.print(shown)
        out.print(ODD)
        out.print("styled", style="red")
    text = captured.get()
    assert r"n\x1b[2J" in text
    assert "\x1b[31mstyled\x1b[0m" in text
    assert not {"\x1b[2J", "\x9b", "\x07", "\u202e"} & {one for one in (*text, "\x1b[2J") if one in text}
