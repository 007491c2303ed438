"""Sound cards: blocks to pieces, what is dropped is said, and a device that vanishes is opened again."""

from __future__ import annotations

import logging
import sys
import threading

import numpy as np
import polars as pl
import pytest
from fake_sounddevice import FakeSoundDevice

from tonelake import sound_card
from tonelake.listen import Stop
from tonelake.live_outputs import Answer, LiveEvent
from tonelake.live_sound import AnswersPlayed
from tonelake.recombine import FADE_S, RATE
from tonelake.sound_card import BlockQueue, SoundCard, list_devices
from tonelake.store import InputError


@pytest.fixture
def audio(monkeypatch, caplog) -> FakeSoundDevice:
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(sound_card, "STALL_S", 0.05)
    monkeypatch.setattr(sound_card, "RETRY_S", 0.01)
    caplog.set_level(logging.INFO, "tonelake")
    return fake


def block(value: float, length: int = 100, channels: int = 1) -> np.ndarray:
    return np.full((length, channels), value, np.float32)


def test_blocks_come_as_pieces_in_their_order(audio):
    card = SoundCard("usb", channels=2, block=256)
    assert str(card) == "sound card 'USB Audio': 48,000 Hz, 2 channels, blocks of 256 samples (5 ms), latency 30 ms"
    pieces = card.pieces()
    (stream,) = audio.streams
    assert (stream.device, stream.samplerate, stream.channels, stream.blocksize) == (1, 48_000, 2, 256) and not stream.active
    for value in (0.1, 0.2, 0.3):
        given = block(value, channels=2)
        stream.hear(given)
        given[:] = 9                     # PortAudio uses the memory again
    piece = next(pieces)
    assert stream.active and piece.shape == (300, 2) and piece[::100, 0] == pytest.approx([0.1, 0.2, 0.3])
    stream.hear(block(np.nan, channels=2))
    assert next(pieces).max() == 0
    pieces.close()
    assert stream.closed


def test_a_long_wait_is_given_in_pieces_and_a_full_queue_drops_the_oldest_and_says_how_much(audio, caplog):
    card = SoundCard(rate=8_000)
    pieces = card.pieces()
    for second in range(10):
        for _ in range(8):
            audio.streams[0].hear(block(second / 10, 1_000), overflow=second == 3)
    found = [next(pieces) for _ in range(8)]
    assert [len(piece) for piece in found] == [4_000] * 8            # 4 s, half a second each
    assert np.concatenate(found)[::8_000, 0] == pytest.approx([0.6, 0.7, 0.8, 0.9])
    assert caplog.text.count("6.0 s of sound dropped, since the encoder is behind. Use a lower --layer") == 1
    assert "8 times sound was lost before it arrived. Use a longer --block" in caplog.text
    for _ in range(40):
        audio.streams[0].hear(block(1.0, 1_000))
    next(pieces)
    assert caplog.text.count("dropped") == 1                         # once a minute …
    pieces.close()
    assert caplog.text.count("1.0 s of sound dropped") == 1          # … and at the end


def test_a_device_that_vanishes_is_opened_again_by_its_name_when_it_is_back(audio, caplog):
    pieces = SoundCard("1").pieces()
    played = AnswersPlayed(None, "default")
    audio.streams[0].hear(block(0.1))
    assert next(pieces)[0, 0] == np.float32(0.1)
    audio.devices = audio.devices[:1]                                # unplugged
    found = []
    waiting = threading.Thread(target=lambda: found.append(next(pieces)))
    waiting.start()
    while audio.started < 3:
        waiting.join(0.01)
    assert not found and audio.streams[0].closed and "no sound for 0.05 s, as if it was unplugged" in caplog.text
    assert caplog.text.count("not back yet") == 1 and "Choose one of 0 (Built-in Mic)" in caplog.text
    audio.devices = [("Built-in Mic", 1, 0), ("Webcam", 1, 0), ("USB Audio", 2, 0)]      # with another number
    while len(audio.streams) < 3:
        waiting.join(0.01)
    while not found:
        audio.streams[2].hear(block(0.2))
        waiting.join(0.01)
    assert audio.streams[2].device == 2 and found[0][0, 0] == np.float32(0.2) and "is back after 0 s" in caplog.text
    assert audio.streams[1].closed       # before PortAudio was started again, which would have left it dangling
    audio.devices.append(("Speakers", 0, 2))
    played.send(answer(0.1, 0.5))
    assert (audio.streams[3].play(10) == 0.5).all()
    played.close(cut=True)
    pieces.close()


def test_devices_that_are_not_there_are_sentences_with_those_that_are(audio):
    assert list_devices("input").select("number", "name", "default").rows() == [
        (0, "Built-in Mic", True), (1, "USB Audio", False),
    ]
    for name, message in (
        ("nix", r"sound card 'nix': no such input\. Choose one of 0 \(Built-in Mic\), 1 \(USB Audio\)"),
        ("i", "sound card 'i': several such input"), ("2", "sound card 2: no such input"),
    ):
        with pytest.raises(InputError, match=message):
            SoundCard(name)
    with pytest.raises(InputError, match=r"cannot be opened with 96,000 Hz and 1 channels \(Invalid sample rate\)\. Choose"):
        SoundCard(rate=96_000)
    audio.devices = []
    with pytest.raises(InputError, match="this machine has no sound input"):
        SoundCard()


def test_a_missing_portaudio_is_a_sentence_with_a_remedy(monkeypatch):
    def missing(*_):
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(sound_card, "import_extra", missing)
    with pytest.raises(InputError, match=r"PortAudio is not installed\. Install it: `apt-get install libportaudio2`"):
        list_devices("input")


def test_the_real_portaudio_lists_what_this_machine_has():
    try:
        sound_card.portaudio()
    except InputError:
        pytest.skip("no PortAudio here")
    assert list_devices("input").columns == ["number", "name", "channels", "rate", "system", "default"]


def test_a_queue_gives_none_where_nothing_comes():
    queue = BlockQueue(8_000)
    assert queue.get(0.001) is None
    queue.put(block(0.5))
    assert len(queue.get(0.001)) == 100


# -- playing


def answer(length_s: float, value: float) -> LiveEvent:
    made = Answer(pl.DataFrame())
    made._sound = np.full(round(length_s * RATE), value, np.float32)
    return LiveEvent("continue", 0.0, made)


def test_an_answer_is_played_and_fades_out_where_the_next_one_begins(audio):
    played = AnswersPlayed(None, "default")
    (stream,) = audio.streams
    assert stream.active and stream.device == 2 and stream.play(50).tolist() == [0] * 50
    played.send(answer(0.1, 0.5))
    assert (stream.play(1_000) == 0.5).all()
    played.send(answer(0.05, 0.25))
    fade = round(FADE_S * RATE)
    part = stream.play(3_000)
    assert part[0] == pytest.approx(0.75) and np.abs(np.diff(part[:fade])).max() < 0.01
    assert (part[fade : 2_205] == 0.25).all() and (part[2_205:] == 0).all()
    played.close(cut=False)
    assert stream.closed


def test_an_output_that_died_is_opened_again_with_the_next_answer(audio):
    played = AnswersPlayed(None, "speak")
    audio.streams[0].active = False
    played.send(answer(0.1, 0.5))
    assert len(audio.streams) == 2 and (audio.streams[1].play(10) == 0.5).all()
    audio.streams[1].active, audio.devices = False, audio.devices[:2]
    with pytest.raises(InputError, match="no sound output"):
        played.send(answer(0.1, 0.5))
    played.close(cut=True)


# -- the end


def test_ctrl_c_ends_a_wait_at_once_and_other_work_after_the_piece():
    import signal

    ended = []

    def source():
        try:
            yield np.zeros(1)
            yield np.zeros(1)
            signal.raise_signal(signal.SIGINT)                       # while it waits for sound
            yield np.zeros(1)
        finally:
            ended.append(True)

    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        assert len(list(stop.until(source()))) == 2 and stop.asked and ended == [True]
        with pytest.raises(KeyboardInterrupt):                       # a second one interrupts whatever runs
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    done = []
    with Stop() as stop:
        for piece in stop.until(source()):
            signal.raise_signal(signal.SIGINT)                       # while a piece is encoded
            done.append(piece)
    assert len(done) == 1 and ended == [True, True]
