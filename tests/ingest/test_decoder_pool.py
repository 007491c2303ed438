"""Decoder processes may crash, hang, reply with garbage or fail to start, without harm to their parent or each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from kept_decoders import own_decoders
from sounds import encode, melody, write

from tonelake.ingest import AudioError, DecoderPool, DecoderStartError, decoder_libraries, decoder_pool, ingest_folder
from tonelake.ingest.decoder_process import NICENESS, READY

HOME = Path(__file__).parents[2]
ODD_WORKER = """
import json, os, sys, time
print("a greeting of a site hook", flush=True)
print("tonelake decoder: ready", flush=True)
for line in sys.stdin.buffer:
    source = json.loads(line)["source"]
    if "crash" in source: os.abort()
    if "hang" in source: time.sleep(60)
    if "garbage" in source: body = b"this is not a reply\\n"
    else: body = json.dumps({"echo": source, "bytes": 0}).encode() + b"\\n"
    sys.stdout.buffer.write(body); sys.stdout.buffer.flush()
"""


@pytest.fixture(autouse=True)
def _own_decoders():
    with own_decoders():
        yield


class OddPool(DecoderPool):
    command = (sys.executable, "-c", ODD_WORKER)


@pytest.mark.parametrize("count", [1, 3])
def test_a_crash_a_hang_and_garbage_cost_only_their_own_request(count):
    names = ["a", "crash 1", "b", "c", "hang", "d", "garbage", "e", "crash 2", "f"]
    with OddPool(count, time_limit_s=2.0) as pool:
        replies = list(pool.map({"do": "x", "source": name} for name in names))
    assert [request["source"] for request, _ in replies] == names
    for request, reply in replies:
        name = request["source"]
        if len(name) == 1:
            assert reply == {"echo": name, "bytes": 0}
        else:
            assert isinstance(reply, AudioError)
            assert name in str(reply)
            assert ("within 2 s" if name == "hang" else "crashed the decoder") in str(reply)


def test_a_hang_is_distinguished_from_a_crash_even_if_killing_takes_long():
    class Slow(OddPool):
        def _start(self):
            decoder = super()._start()
            kill = decoder.process.kill
            decoder.process.kill = lambda: (kill(), time.sleep(0.3))         # the killing thread returns late
            return decoder

    with Slow(1, time_limit_s=1.0) as pool:
        (_, reply), (_, after) = pool.map({"do": "x", "source": name} for name in ("hang", "a"))
    assert "within 1 s" in str(reply) and after == {"echo": "a", "bytes": 0}


def test_few_requests_are_in_flight_at_once():
    taken = 0

    def requests():
        nonlocal taken
        for i in range(10_000):
            taken = i
            yield {"do": "x", "source": str(i)}

    with OddPool(2) as pool:
        replies = pool.map(requests())
        for _ in range(5):
            next(replies)
        assert taken < 20


def test_replies_come_in_order_with_their_own_samples(tmp_path):
    paths = [write(tmp_path / f"{i}.wav", melody(2, seed=i), subtype="FLOAT") for i in range(6)]
    with DecoderPool(2) as pool:
        replies = list(pool.map(
            {"do": "read", "source": str(p), "start_s": 0.5, "duration_s": 1.0, "rate": 44_100} for p in paths
        ))
    for seed, (request, reply) in enumerate(replies):
        assert request["source"] == str(paths[seed])
        np.testing.assert_array_equal(reply["samples"], melody(2, seed=seed)[22_050:66_150, 0])


def test_a_decoder_process_loads_no_table_libraries_and_leaves_an_encoder_the_processors(tmp_path):
    """These libraries would cost each process 60 MB, and make it start in a second instead of a third of one.  Once it reads
    samples, it has a lower priority."""
    path = str(write(tmp_path / "a.wav", melody(2.0)))
    part = {"do": "read", "start_s": 0.5, "duration_s": 1.0, "rate": 24_000}
    requests = [
        {"do": "digest", "source": path}, {"do": "scan", "source": path}, part | {"source": path},
        part | {"source": "chorale:bwv66.6.mxl"}, part | {"source": str(tmp_path / "b.wav")},
    ]
    code = (
        "import os, sys\n"
        "from tonelake.ingest.decoder_process import main\nmain()\n"
        "print(os.nice(0), file=sys.stderr)\n"
        "print(sorted({'polars', 'pyarrow', 'lancedb', 'torch'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"".join(json.dumps(request).encode() + b"\n" for request in requests),
        capture_output=True, check=True, cwd=HOME,
    )
    ready, replies = done.stdout.split(b"\n", 1)
    assert ready + b"\n" == READY
    heads = []
    while replies:
        line, replies = replies.split(b"\n", 1)
        heads.append(json.loads(line))
        replies = replies[heads[-1]["bytes"] :]
    assert [head.get("samples") for head in heads] == [None, None, 24_000, 24_000, None]
    assert [("error" in head) for head in heads] == [False, False, False, False, True]
    assert done.stderr.decode().split("\n")[-3:-1] == [str(min(os.nice(0) + NICENESS, 19)), "[]"]


def test_clips_of_one_chorale_are_read_by_one_process_and_others_are_passed_on_at_once():
    """A process parses a piece, and renders the whole of it, for each clip otherwise."""
    drawn = []

    def requests():
        for name in ["/a.wav", "/a.wav", *["chorale:1.mxl"] * 18, "chorale:2.mxl", "/b.wav", "chorale:2.mxl"]:
            drawn.append({"do": "read", "source": name})
            yield drawn[-1]

    groups = decoder_pool.rendered_together(requests())
    assert [next(groups) for _ in range(2)] == [[{"do": "read", "source": "/a.wav"}]] * 2 and len(drawn) == 2
    rest = list(groups)
    assert [len(group) for group in rest] == [16, 2, 1, 1, 1]
    assert [request for group in rest for request in group] == drawn[2:]


def test_ask_returns_one_reply_or_raises(tmp_path):
    path = write(tmp_path / "a.wav", melody(2))
    with DecoderPool(1) as pool:
        assert len(pool.ask({"do": "digest", "source": str(path)})["digest"]) == 32
        with pytest.raises(AudioError, match="cannot be read"):
            pool.ask({"do": "digest", "source": str(tmp_path / "x")})


def test_a_lake_that_is_garbage_collected_ends_its_decoders(tmp_path, music):
    import gc

    import tonelake

    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingest_folder(music, seconds=None)
    clip = lake.clips.read().row(0, named=True)
    samples = lake.audio(clip["clip_id"], 8_000)
    assert len(samples) == pytest.approx(clip["duration_s"] * 8_000, abs=1)
    children = [decoder.process for decoder in lake._decoders._decoders]
    assert all(child.poll() is None for child in children)
    del lake
    gc.collect()
    assert children
    assert all(child.poll() is not None for child in children)


def test_no_process_is_left_behind(tmp_path):
    with DecoderPool(2) as pool:
        list(pool.map({"do": "digest", "source": str(tmp_path / "x")} for _ in range(4)))
        children = [decoder.process for decoder in pool._decoders]
    assert children
    assert all(child.poll() is not None for child in children)


# -- processes that do not start


def write_package(folder, **modules):
    """A folder for PYTHONPATH with modules that replace installed ones."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    return str(folder)


@pytest.fixture
def without(tmp_path, monkeypatch):
    """Make a library fail to import in decoder processes."""
    def replace(**modules):
        folder = tmp_path / "broken"
        folder.mkdir()
        (folder / "tonelake").symlink_to(HOME / "tonelake")
        monkeypatch.setattr(decoder_pool, "HOME", write_package(folder, **modules))

    return replace


def test_a_decoder_that_cannot_start_stops_the_ingest_with_its_errors(lake, tmp_path, without):
    write(tmp_path / "music" / "a.wav", melody(2))
    without(numpy="import sys\nprint('x' * 100_000, file=sys.stderr)\nraise ImportError('no numpy here')\n")
    with pytest.raises(DecoderStartError) as info:
        ingest_folder(lake, tmp_path / "music", workers=2)
    said = str(info.value)
    assert said.startswith("decoder process: did not start (exit status 1): ")
    assert "ImportError: no numpy here. Check the installation with `tonelake doctor`" in said
    assert len(said) < decoder_pool.STDERR_BYTES + 200
    assert lake.failures.read().is_empty() and lake.clips.count() == 0


def test_a_wrong_python_path_is_an_error_of_the_installation(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_pool, "HOME", tmp_path)
    monkeypatch.setattr(DecoderPool, "command", (sys.executable, "-S", "-P", "-m", "tonelake.ingest.decoder_process"))
    with DecoderPool(1) as pool, pytest.raises(DecoderStartError, match=r"did not start .*No module named .?tonelake"):
        list(pool.map([{"do": "digest", "source": "a.wav"}]))


@pytest.mark.parametrize(("library", "suffix", "error"), [
    ("soundfile", ".wav", "ImportError"), ("soundfile", ".wav", "OSError"), ("av", ".mp3", "ImportError"),
    ("tinytag", ".flac", "ImportError"),
])
def test_a_decoding_library_that_cannot_be_imported_stops_the_ingest(lake, tmp_path, without, library, suffix, error):
    (encode if suffix == ".mp3" else write)(tmp_path / "music" / f"a{suffix}", melody(2))
    without(**{library: f"raise {error}('it is broken')"})
    with pytest.raises(DecoderStartError, match=r"it is broken.*tonelake doctor"):
        ingest_folder(lake, tmp_path / "music", workers=1)
    assert lake.failures.read().is_empty()


def test_a_decoder_that_hangs_before_it_is_ready_did_not_start(monkeypatch):
    monkeypatch.setattr(DecoderPool, "command", (sys.executable, "-c", "import time; time.sleep(60)"))
    with DecoderPool(1, time_limit_s=0.5) as pool, pytest.raises(DecoderStartError, match=r"did not start \(within 0 s\)"):
        pool.ask({"do": "digest", "source": "a.wav"})


def test_a_crash_does_not_claim_that_the_file_is_damaged():
    with OddPool(1) as pool, pytest.raises(AudioError) as info:
        pool.ask({"do": "x", "source": "/music/crash.wav"})
    assert str(info.value) == "crash.wav: crashed the decoder (exit status -6)"


def test_a_decoder_that_fills_its_standard_error_is_not_blocked(monkeypatch):
    """More than a pipe holds (64 kB on Linux)."""
    code = "import sys; sys.stderr.write('x' * 1_000_000); sys.stderr.flush()\n" + ODD_WORKER
    monkeypatch.setattr(DecoderPool, "command", (sys.executable, "-c", code))
    with DecoderPool(1, time_limit_s=20.0) as pool:
        assert pool.ask({"do": "x", "source": "a"}) == {"echo": "a", "bytes": 0}


def test_the_decoding_libraries_are_known_by_version():
    assert set(decoder_libraries()) == {"soundfile", "av", "soxr"}
    assert all(version[0].isdigit() for version in decoder_libraries().values())


def test_the_doctor_reports_the_decoding_libraries_or_the_reason_why_they_fail(without):
    from tonelake.doctor import decoders

    assert decoders().startswith("soundfile ") and ", av " in decoders()
    without(soxr="raise ImportError('it is broken')")
    assert "soxr: cannot be imported (it is broken)" in decoders()


HALF_BROKEN = """
import json, os, sys
print("tonelake decoder: ready", flush=True)
for line in sys.stdin.buffer:
    request = json.loads(line)
    if request.get("skip", 0) < int(request["source"]): os.abort()
    reply = {"error": "x: refused"} if request["do"] == "read" else {"skip": request.get("skip", 0)}
    sys.stdout.write(json.dumps(reply | {"bytes": 0}) + "\\\\n"); sys.stdout.flush()
"""


@pytest.mark.parametrize(("crashes", "reply"), [(0, {"skip": 0}), (1, {"skip": 1}), (2, {"skip": 2}), (3, None)])
def test_a_file_that_crashes_one_library_is_tried_with_the_next(monkeypatch, crashes, reply):
    monkeypatch.setattr(DecoderPool, "command", (sys.executable, "-c", HALF_BROKEN.replace("\\\\", "\\")))
    with DecoderPool(1) as pool:
        if reply is None:
            with pytest.raises(AudioError, match=r"3: crashed the decoder \(exit status -6\)$"):
                pool.ask({"do": "scan", "source": str(crashes)})
        else:
            assert pool.ask({"do": "scan", "source": str(crashes)}) == reply | {"bytes": 0}


def test_the_first_reason_is_reported_if_the_next_library_refuses_the_file(monkeypatch):
    monkeypatch.setattr(DecoderPool, "command", (sys.executable, "-c", HALF_BROKEN.replace("\\\\", "\\")))
    with DecoderPool(1) as pool, pytest.raises(AudioError, match="1: crashed the decoder"):
        pool.ask({"do": "read", "source": "1"})


def test_skipped_decoders_are_not_used(tmp_path):
    path = write(tmp_path / "a.wav", melody(2))
    with DecoderPool(1) as pool:
        request = {"do": "read", "source": str(path), "start_s": 0.5, "duration_s": 1.0, "rate": 44_100}
        replies = [pool.ask(request | {"skip": skip}) for skip in (0, 1)]
        np.testing.assert_array_equal(replies[0]["samples"], replies[1]["samples"])
        with pytest.raises(AudioError):
            pool.ask(request | {"skip": 9})
