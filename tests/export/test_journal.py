"""A search that was killed goes on where it stopped."""

from pathlib import Path
from typing import Any

from edgegeo.export.journal import Journal


def noted(journal: Journal, key: list[Any], value: Any) -> list[Any]:
    """[value] if it had to be measured, else what was known."""
    measured = []
    found = journal.recall(key, lambda: measured.append(value) or value)
    return [found, bool(measured)]


def test_what_is_known_is_not_measured_again(tmp_path: Path) -> None:
    file, facts = tmp_path / "journal", {"recipe": "int4"}
    one = Journal(file, facts)
    assert noted(one, ["a", 1], {"recall": [0.0, 1.0]}) == [{"recall": [0.0, 1.0]}, True]
    assert noted(one, ["a", 1], "other") == [{"recall": [0.0, 1.0]}, False]
    assert noted(one, ["a", 2], 2.5) == [2.5, True]
    again = Journal(file, facts)
    assert noted(again, ["a", 1], "other") == [{"recall": [0.0, 1.0]}, False]
    assert noted(again, ["b"], 3) == [3, True]
    again.close()
    assert not file.exists()


def test_other_facts_begin_anew(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    noted(Journal(file, {"recipe": "int4"}), ["a"], 1)
    assert noted(Journal(file, {"recipe": "int8"}), ["a"], 2) == [2, True]
    assert noted(Journal(file, {"recipe": "int4"}), ["a"], 3) == [3, True]


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    noted(Journal(file, {}), ["a"], 1)
    noted(Journal(file, {}), ["b"], 2)
    file.write_text(file.read_text()[:-6])
    cut = Journal(file, {})
    assert noted(cut, ["a"], 0) == [1, False]
    assert noted(cut, ["b"], 5) == [5, True]
    assert noted(Journal(file, {}), ["b"], 6) == [5, False]


def test_without_a_file_it_lasts_as_long_as_the_search() -> None:
    journal = Journal()
    assert noted(journal, ["a"], 1) == [1, True]
    assert noted(journal, ["a"], 2) == [1, False]
    journal.close()
