"""The example of docs/configuration.md: it has every key, with the stated defaults, and its commands run with it."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from commands import run
from sounds import melody, write

from tonelake.configuration import Configuration, Quantizer
from tonelake.store import InputError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"^```yaml [^\n]*\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1]
# Without the encoder's weights, a GPU and minutes of music.
SMALLER = {"encoder: mert-95m": "encoder: fakes:FakeEncoder", "device: cuda": "device: cpu", "size: 64": "size: 8"}


def test_the_example_has_every_key_and_its_defaults():
    values = yaml.safe_load(EXAMPLE)
    offered = {line.split(":")[0].removeprefix("# ") for line in EXAMPLE.splitlines() if not line.startswith(" ")}
    assert offered == {one.name for one in fields(Configuration)} - {"adapter", "tokens"}
    assert "adapter:" in EXAMPLE and "tokens:" in EXAMPLE
    assert set(values["quantizer"]) == {one.name for one in fields(Quantizer)}
    found = Configuration.from_dict(values)
    for name in ("pooling", "precision", "live_window_s", "live_hop_s", "heard_s", "hits"):
        assert getattr(found, name) == getattr(Configuration(), name), name
    assert found.quantized == Quantizer(size=64)
    every = re.sub(r"^# ", "", EXAMPLE, flags=re.MULTILINE).replace("NAME", "name")
    with pytest.raises(InputError, match="'hybrid': joins stored spaces"):       # lines that are commented out are valid too
        Configuration.from_dict(yaml.safe_load(every))
    whole = Configuration.from_dict({key: value for key, value in yaml.safe_load(every).items() if key != "hybrid"})
    assert whole.frames == ("5", "-1") and whole.vocabulary == ("12-64",)


def test_the_commands_of_the_page_run_with_the_example(tmp_path, monkeypatch):
    text = EXAMPLE
    for old, new in SMALLER.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "performance.yaml").write_text(text)
    for number in range(3):
        write(tmp_path / "music" / f"{number}.wav", melody(2.5, seed=number, rate=8_000), 8_000)
    write(tmp_path / "song.wav", melody(1.5, seed=9, rate=8_000), 8_000)
    monkeypatch.chdir(tmp_path)
    assert run("ingest", "folder", "music", lake="lake").returncode == 0
    block = re.search(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[1]
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        words = ["song.wav" if word == "song.mp3" else word for word in command]
        done = run(*words, *(["--fast"] if "listen" in words else []), lake="lake")
        assert done.returncode == 0, done.stderr
    assert '"tokens"' in done.stdout and "vocabulary high-8" in done.stderr
