"""Times of a manifest: start, seconds and end, each wrong cell named with its row."""

from __future__ import annotations

from pathlib import Path

import pytest
from sounds import melody, write

from tonelake.ingest import ingest_manifest
from tonelake.ingest.manifest import read_manifest
from tonelake.store import InputError

DATA = Path(__file__).parents[1] / "data" / "span-twice"


def spans(tmp_path: Path, text: str):
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    recordings, labels = read_manifest(tmp_path / "m.csv")
    return [span for one in recordings for span in one.spans], labels.frame.columns


def test_a_span_listed_twice_with_different_labels_is_an_error_before_anything_is_written(lake):
    words = r"tags\.csv, row 3: two different rows for 'one\.mp3' from 0 to 2 s, the other is row 2"
    with pytest.raises(InputError, match=words):
        ingest_manifest(lake, DATA / "tags.csv")
    assert lake.clips.count() == 0 and lake.failures.count() == 0


def test_a_row_listed_twice_is_one_clip(tmp_path):
    assert spans(tmp_path, "path,start,seconds,tag\na.wav,0,2,x\n./a.wav,0.0,2.0,x\n")[0] == [(0.0, 2.0)]
    with pytest.raises(InputError, match=r"row 4: two different rows for '\./a\.wav' from 1 s to the end, the other is row 2"):
        spans(tmp_path, "path,start,tag\na.wav,1,x\nb.wav,1,x\n./a.wav,1.0000001,y\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,start,end\na,0,2.5\na,2.5,4\na,4,\n", [(0.0, 2.5), (2.5, 1.5), (4.0, None)]),
        ("path,end_s\na,2.5\n", [(0.0, 2.5)]),
        ("path,start_s,stop\na,0.1,0.4\n", [(0.1, 0.3)]),
        ("path,start,seconds,end\na,1,2,3\nb,1,,3\nc,1,2,\n", [(1.0, 2.0)] * 3),
        ("path,offset,duration\na,2.1,1e1\na,2.10,nan\nb,NA,\n", [(2.1, 10.0), (2.1, None), (0.0, None)]),
        ("path,start,seconds\na,.5,007\n", [(0.5, 7.0)]),
    ],
)
def test_starts_ends_and_lengths_make_spans(tmp_path, text, expected):
    found, labels = spans(tmp_path, text)
    assert (found, labels) == (expected, [])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,start\na,0\na,soon\n", "row 3: column 'start' must hold seconds, such as 12.5, not 'soon'"),
        ("path,start,end\na,0,inf\n", "row 2: column 'end' must hold seconds"),
        ("path,start,end\na,0,4\na,5,4\n", "row 3: column 'end' must be later than the start at 5 s, not 4 s"),
        ("path,start,duration,end\na,1,30,3\n", "row 2: duration 30 s and end 3 s contradict each other"),
        ("path,start\na,0\n\n,0\n", "row 4: has no path"),
    ],
)
def test_a_wrong_time_is_an_error_that_names_its_row(tmp_path, text, words):
    with pytest.raises(InputError, match=r"m\.csv, " + words):
        spans(tmp_path, text)


def test_a_manifest_with_ends_gives_those_clips(lake, tmp_path):
    write(tmp_path / "a.wav", melody(6))
    (tmp_path / "m.csv").write_text("path,start,end,mood\na.wav,1,3.5,calm\na.wav,3.5,6,wild\n", encoding="utf-8")
    ingest_manifest(lake, tmp_path / "m.csv")
    assert lake.clips.read(["start_s", "duration_s", "mood"]).rows() == [(1.0, 2.5, "calm"), (3.5, 2.5, "wild")]
