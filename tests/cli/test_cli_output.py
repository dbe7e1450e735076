"""Tables, JSON, files."""

import json
import os
import select
from pathlib import Path

import numpy as np
import pytest

from edgegeo.cli.cards import card_line, metric_text
from edgegeo.cli.files import check_suffix, write_whole
from edgegeo.cli.flags import choices, numbers
from edgegeo.cli.output import emit_json, progress_bar, table
from edgegeo.errors import InputError
from edgegeo.geo import Position


def test_json_has_no_nan_and_knows_our_types(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"a": float("nan"), "b": np.float32(0.5), "c": Position(1.0, 2.0), "d": Path("x"), "e": np.arange(2)})
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": None, "b": 0.5, "c": {"lat": 1.0, "lon": 2.0}, "d": "x", "e": [0, 1]}


def test_tables_keep_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    table(("name", "score"), [("[red]tile[/red]", "1 [0, 2]")])
    assert "[red]tile[/red]  1 [0, 2]" in capsys.readouterr().out


def test_progress_is_quiet_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as progress:
        progress("stage", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_draws_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    main, side = os.openpty()
    with os.fdopen(side, "w") as terminal:
        monkeypatch.setattr("sys.stderr", terminal)
        with progress_bar() as progress:
            progress("count", 0, 0)
            progress("tiles", 1, 2)
            progress("tiles", 2, 2)
            progress("check", 0, 1)
        terminal.flush()
        drawn = ""
        # One read gives a terminal's buffer at most, and a slow machine draws more than that.
        while select.select([main], [], [], 0.2)[0]:
            drawn += os.read(main, 65536).decode(errors="replace")
    os.close(main)
    assert "tiles" in drawn
    assert "check" in drawn


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")

    def fail(draft: Path) -> None:
        draft.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="No space left on device"):
        write_whole(target, fail)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    write_whole(target, lambda draft: draft.write_text("new"))
    assert target.read_text() == "new"
    with pytest.raises(InputError, match="can't write"):
        write_whole(target / "below" / "y.txt", lambda draft: draft.write_text("new"))


def test_flags_of_lists() -> None:
    assert choices("b, a,b", ("a", "b"), "--x") == ("b", "a")
    assert numbers("8,1,8", "--x") == (8, 1)
    for bad in ("c", "", ","):
        with pytest.raises(InputError, match="--x"):
            choices(bad, ("a", "b"), "--x")
    for bad in ("1.5", "", "a"):
        with pytest.raises(InputError, match="--x"):
            numbers(bad, "--x")
    with pytest.raises(InputError, match=r"\.npy"):
        check_suffix(Path("a.txt"), (".npy",))


def test_accuracy_in_words() -> None:
    metrics = {"gps_within_750_km": {"value": 0.4, "low": 0.3, "high": 0.5}}
    assert card_line({"places": 20, "metrics": metrics}) == "GPS within 750 km 40.0 % (20 unseen places)"
    assert "not measured" in card_line({})
    assert metric_text("gps_within_750_km", metrics["gps_within_750_km"]) == "40.0 % [30.0 %, 50.0 %]"
    assert metric_text("gps_median_km", {"value": 1234.5, "low": 1.0, "high": None}) == "1,234 km [1, none]"
