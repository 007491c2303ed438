"""Progress for programs: records among the lines of standard error."""

from __future__ import annotations

import pytest

from tonelake.render import progress_bar
from tonelake.store import ProgressRecord, progress_lines, read_record


def test_every_item_is_yielded_and_the_last_record_is_complete(capsys):
    assert list(progress_lines(range(5), 5, "decoding")) == [0, 1, 2, 3, 4]
    records = [read_record(line) for line in capsys.readouterr().err.splitlines()]
    assert records[0] == ProgressRecord("decoding", 0, 5) and records[-1] == ProgressRecord("decoding", 5, 5)
    assert len(records) <= 3             # the items come faster than four a second


def test_commands_write_records_only_where_the_environment_asks_for_them(capsys, monkeypatch):
    monkeypatch.delenv("TONELAKE_PROGRESS", raising=False)
    assert list(progress_bar(range(2), 2, "embedding")) == [0, 1] and not capsys.readouterr().err
    monkeypatch.setenv("TONELAKE_PROGRESS", "lines")
    assert list(progress_bar(range(2), 2, "embedding")) == [0, 1]
    assert read_record(capsys.readouterr().err.splitlines()[-1]) == ProgressRecord("embedding", 2, 2)


@pytest.mark.parametrize(
    "line", ["", "decoding", '{"progress": "x"}', '{"progress": "x", "done": null, "total": 1}', '{"progress": ']
)
def test_other_lines_are_no_records(line):
    assert read_record(line) is None
