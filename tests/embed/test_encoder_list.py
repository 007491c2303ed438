"""The list of encoders agrees with the encoders, and names what is missing."""

from __future__ import annotations

import csv
import io
import sys

import pytest
from commands import run

from tonelake.embed import BASELINE_ENCODER, DEFAULT_ENCODER, SMALL_ENCODER, list_encoders, load_encoder
from tonelake.embed.encoders.listing import width_of
from tonelake.embed.encoders.registry import find_class, needs_torch
from tonelake.embed.encoders.table import ALIASES, BY_NAME, CHECKPOINTS, ENTRIES


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.present()], ids=lambda entry: entry.name)
def test_an_entry_agrees_with_the_encoder(entry):
    encoder = load_encoder(entry.name)
    assert encoder.name == encoder.location == entry.name
    assert (encoder.sample_rate, len(encoder.layers), width_of(encoder.dims)) == (entry.sample_rate, entry.layers, entry.width)
    assert encoder.learned == entry.learned and encoder.needs_torch == entry.needs_torch == needs_torch(entry.name)
    assert (encoder.text_layer is not None) == entry.words


def test_names_are_unique_and_every_class_of_checkpoints_is_an_encoder():
    names = [name for entry in ENTRIES for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names)) == len(BY_NAME) + len(ALIASES)
    assert {DEFAULT_ENCODER, SMALL_ENCODER, BASELINE_ENCODER} <= BY_NAME.keys()
    for location in CHECKPOINTS.values():
        assert find_class(location).needs_torch


def test_the_list_states_origin_licence_and_whether_weights_are_here(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = {row["name"]: row for row in list_encoders().to_dicts()}
    assert rows["small"]["here"] and rows["spectral"]["here"] and not rows["spectral"]["learned"]
    mert = rows[DEFAULT_ENCODER]
    assert (mert["aliases"], mert["licence"], mert["origin"]) == (["mert-95m"], "CC-BY-NC-4.0", f"hub, {DEFAULT_ENCODER}")
    assert mert["size"] == "378 MB" and "GTZAN" in mert["good_for"] and "2306.00107" in mert["source"]


def test_the_list_includes_encoders_of_other_packages_and_their_problems(tmp_path, monkeypatch):
    (tmp_path / "loudly.py").write_text(
        "from tonelake.embed import Encoder\n"
        "class Loud(Encoder):\n"
        "    sample_rate, layers, dims, licence, learned = 8_000, ('a', 'b'), (2, 3), 'MIT', False\n"
        "    def encode(self, windows, keep=None, frames=()): ...\n"
    )
    info = tmp_path / "loudly-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loudly\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tonelake.encoders]\nloud = loudly:Loud\nquiet = loudly:Quiet\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = {row["name"]: row for row in list_encoders().to_dicts()}
    sys.modules.pop("loudly")
    loud = rows["loud"]
    assert (loud["location"], loud["sample_rate"], loud["layers"], loud["width"]) == ("loudly:Loud", 8_000, 2, "2–3")
    assert (loud["licence"], loud["here"], loud["learned"], loud["words"]) == ("MIT", True, False, False)
    assert rows["quiet"]["here"] is None and "has no class Quiet" in rows["quiet"]["good_for"]


def test_the_command_prints_the_list_for_people_and_programs():
    done = run("encoders", "--csv", lake="lake")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["name"] for row in rows][: len(ENTRIES)] == [entry.name for entry in ENTRIES]
    assert rows[0]["aliases"] == "mert-95m"
