"""The check of docstrings and comments counts the intended words and reports the intended files."""

import pytest

from tests.style import prose
from tests.style.prose import Figures


def test_docstrings_and_comments_are_counted_and_code_is_not():
    source = '"""What it is."""\nwhich = "who"  # those\n# noqa: that\ndef f():\n    """One."""\n'
    found = Figures.of(" ".join(prose.texts(source)))
    assert (found.words, found.pronouns, found.relatives) == (5, 3, 1)


def test_only_the_part_above_a_limit_is_excess():
    assert Figures(1000, 55, 6).excess() == 0
    assert Figures(1000, 57, 0).excess() == pytest.approx(2)
    assert Figures(1000, 0, 9).excess() == pytest.approx(3)


def test_a_folder_above_a_limit_fails_and_names_the_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "good.py").write_text('"""The replica answers the request."""\n')
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    monkeypatch.setattr(prose, "FOLDERS", ("plain",))
    assert prose.main() == 0
    (tmp_path / "plain" / "riddle.py").write_text('"""Whoever asks is told what it was that they asked."""\n')
    assert prose.main() == 1
    assert "plain/riddle.py" in capsys.readouterr().out
