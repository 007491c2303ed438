"""Decoding processes may crash, hang or lie; the others, and the one who asked, go on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sounds import melody, write

from tonelake.ingest import AudioError, DecoderPool

HOME = Path(__file__).parents[2]
ODD_WORKER = """
import json, os, sys, time
for line in sys.stdin.buffer:
    source = json.loads(line)["source"]
    if "crash" in source: os.abort()
    if "hang" in source: time.sleep(60)
    if "garbage" in source: body = b"this is no reply\\n"
    else: body = json.dumps({"echo": source, "bytes": 0}).encode() + b"\\n"
    sys.stdout.buffer.write(body); sys.stdout.buffer.flush()
"""


class OddWorkers(DecoderPool):
    def _start(self) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        child = subprocess.Popen([sys.executable, "-c", ODD_WORKER], **pipes)
        self._children.add(child)
        return child


@pytest.mark.parametrize("count", [1, 3])
def test_a_crash_a_hang_and_garbage_cost_only_their_own_request(count):
    names = ["a", "crash 1", "b", "c", "hang", "d", "garbage", "e", "crash 2", "f"]
    with OddWorkers(count, time_limit_s=3.0) as pool:
        replies = list(pool.map({"do": "x", "source": name} for name in names))
    assert [request["source"] for request, _ in replies] == names
    for request, reply in replies:
        name = request["source"]
        if len(name) == 1:
            assert reply == {"echo": name, "bytes": 0}
        else:
            assert isinstance(reply, AudioError)
            assert name in str(reply)
            assert ("within 3 s" if name == "hang" else "crashed the decoder") in str(reply)


def test_a_hang_is_told_from_a_crash_however_long_the_killing_takes():
    class Slow(OddWorkers):
        def _start(self):
            child = super()._start()
            kill = child.kill
            child.kill = lambda: (kill(), time.sleep(0.3))     # the thread that kills is busy after the deed
            return child

    with Slow(1, time_limit_s=1.0) as pool:
        (_, reply), (_, after) = pool.map({"do": "x", "source": name} for name in ("hang", "a"))
    assert "within 1 s" in str(reply) and after == {"echo": "a", "bytes": 0}


def test_few_requests_are_in_flight_however_many_there_are():
    taken = 0

    def requests():
        nonlocal taken
        for i in range(10_000):
            taken = i
            yield {"do": "x", "source": str(i)}

    with OddWorkers(2) as pool:
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


def test_who_decodes_loads_no_tables(tmp_path):
    """Each such process would carry 60 MB of them, and start in a second instead of a third of one."""
    path = str(write(tmp_path / "a.wav", melody(2.0)))
    part = {"do": "read", "start_s": 0.5, "duration_s": 1.0, "rate": 24_000}
    requests = [
        {"do": "digest", "source": path}, {"do": "scan", "source": path}, part | {"source": path},
        part | {"source": "chorale:bwv66.6.mxl"}, part | {"source": str(tmp_path / "b.wav")},
    ]
    code = (
        "import sys\n"
        "from tonelake.ingest.decoder_process import main\nmain()\n"
        "print(sorted({'polars', 'pyarrow', 'lancedb', 'torch'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=b"".join(json.dumps(request).encode() + b"\n" for request in requests),
        capture_output=True, check=True, cwd=HOME,
    )
    heads, replies = [], done.stdout
    while replies:
        line, replies = replies.split(b"\n", 1)
        heads.append(json.loads(line))
        replies = replies[heads[-1]["bytes"] :]
    assert [head.get("samples") for head in heads] == [None, None, 24_000, 24_000, None]
    assert [("error" in head) for head in heads] == [False, False, False, False, True]
    assert done.stderr.decode().split("\n")[-2] == "[]"


def test_one_question_has_one_answer_or_raises(tmp_path):
    path = write(tmp_path / "a.wav", melody(2))
    with DecoderPool(1) as pool:
        assert len(pool.ask({"do": "digest", "source": str(path)})["digest"]) == 32
        with pytest.raises(AudioError, match="cannot be read"):
            pool.ask({"do": "digest", "source": str(tmp_path / "x")})


def test_a_lake_that_is_let_go_ends_its_players(tmp_path, music):
    import gc

    import tonelake

    lake = tonelake.open(tmp_path / "lake", progress=False)
    lake.ingest_folder(music, seconds=None)
    clip = lake.clips().row(0, named=True)
    samples = lake.audio(clip["clip_id"], 8_000)
    assert len(samples) == pytest.approx(clip["duration_s"] * 8_000, abs=1)
    children = list(lake._decoders._children)
    assert all(child.poll() is None for child in children)
    del lake
    gc.collect()
    assert children
    assert all(child.poll() is not None for child in children)


def test_no_process_is_left_behind(tmp_path):
    with DecoderPool(2) as pool:
        list(pool.map({"do": "digest", "source": str(tmp_path / "x")} for _ in range(4)))
        children = list(pool._children)
    assert children
    assert all(child.poll() is not None for child in children)
