"""The command `listen`: a sound card, a file or raw samples against the lake, with its outputs and the duet."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tonelake.cli.shared import MARKUP, TOKENS, Json, LakePath, Layer, SpaceName, Where, config_option, open_lake, say, show

if TYPE_CHECKING:
    import numpy as np

    from tonelake.lake import Lake
    from tonelake.live_outputs import LiveEvent, Output

app = typer.Typer(rich_markup_mode=MARKUP)

SOUND, OUT, DUET = "Sound", "Output", "Duet"
CARD = "device"


@app.command(rich_help_panel=TOKENS)
def listen(
    source: Annotated[
        str, typer.Argument(help="device (the default sound card), device:NAME or device:NUMBER, an audio file, or - for raw "
                                 "samples on standard input.")
    ] = CARD,
    lake: LakePath = "lake", space: SpaceName = None, layer: Layer = None,
    vocabulary: Annotated[
        list[str] | None,
        typer.Option(help="Also print the tokens of this vocabulary, repeatable; SPACE/NAME if several spaces have the name."),
    ] = None,
    gestures: Annotated[
        bool, typer.Option("--gestures", help="Also print each gesture with its features; needs --vocabulary.")
    ] = False,
    grid: Annotated[
        float | None, typer.Option(help="Seconds of a gesture on a fixed grid; default: from onset to onset.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=0, help="Number of hits; 0 for none.")] = 3, where: Where = None,
    heard: Annotated[float, typer.Option(help="Seconds of the stream that are compared with clips.")] = 3.0,
    window: Annotated[float, typer.Option(help="Seconds encoded at once.")] = 5.0,
    hop: Annotated[float, typer.Option(help="Seconds between two runs of the encoder.")] = 0.5,
    device: Annotated[
        str | None,
        typer.Option(help="Device of the encoder: cpu, cuda or mps; default: an accelerator if there is one."),
    ] = None,
    devices: Annotated[
        bool, typer.Option("--devices", help="List the sound cards and MIDI ports, and exit.", rich_help_panel=SOUND)
    ] = False,
    rate: Annotated[
        int | None,
        typer.Option(help="Sample rate in Hz; default: the sound card's own, 44,100 for raw samples.", rich_help_panel=SOUND),
    ] = None,
    channels: Annotated[
        int,
        typer.Option(min=1, max=64, help="Channels of the sound card or of raw samples, mixed to one.", rich_help_panel=SOUND),
    ] = 1,
    block: Annotated[
        int, typer.Option(min=16, max=65_536, help="Samples of a block of the sound card.", rich_help_panel=SOUND)
    ] = 1_024,
    form: Annotated[
        str, typer.Option("--format", help="Format of raw samples: s16le, s32le or f32le.", rich_help_panel=SOUND)
    ] = "s16le",
    fast: Annotated[
        bool, typer.Option("--fast", help="Read a file as fast as possible, not in real time.", rich_help_panel=SOUND)
    ] = False,
    as_json: Json = False,
    osc: Annotated[
        list[str] | None,
        typer.Option(metavar="[HOST:]PORT", help="Also send everything by OSC, repeatable; the default host is this machine.",
                     rich_help_panel=OUT),
    ] = None,
    midi_out: Annotated[
        str | None,
        typer.Option(help="Also play gestures as notes at this MIDI port (a part of its name), or virtual:NAME for a new one.",
                     rich_help_panel=OUT),
    ] = None,
    midi: Annotated[
        Path | None, typer.Option(help="Write gestures and answers to this MIDI file.", rich_help_panel=OUT)
    ] = None,
    play: Annotated[
        str | None,
        typer.Option(metavar="CARD", help="Play the answers on this sound card: default, a number or a part of its name; needs "
                                          "--duet.", rich_help_panel=OUT),
    ] = None,
    wav: Annotated[
        Path | None, typer.Option(help="Write the audio of the answers to this file; needs --duet.", rich_help_panel=OUT)
    ] = None,
    duet: Annotated[
        bool, typer.Option("--duet", help="Answer with gestures of the lake; needs --vocabulary, and implies --gestures.",
                           rich_help_panel=DUET)
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Gestures for each answer.", rich_help_panel=DUET)] = 1,
    pause: Annotated[
        float | None, typer.Option(help="Answer only in pauses that last this many seconds.", rich_help_panel=DUET)
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Gestures of an answer.", rich_help_panel=DUET)] = 4,
    want: Annotated[
        list[str] | None,
        typer.Option(help="Condition on each gesture of an answer, or on steps counted from 0; repeatable, the most important "
                          "first: \"consonance >= 0.6\", \"3: token = 12\". It is relaxed where no gesture meets it.",
                     rich_help_panel=DUET),
    ] = None,
    prefer: Annotated[
        list[str] | None,
        typer.Option(help="Preference, repeatable, with a weight if wanted: \"loudness > -20 weight 2\".",
                     rich_help_panel=DUET),
    ] = None,
    context: Annotated[
        int, typer.Option(min=1, help="Tokens that two places must share before an answer may jump.", rich_help_panel=DUET)
    ] = 2,
    jump: Annotated[
        float, typer.Option(min=0, max=1, help="Probability of a jump to another place, at each step.", rich_help_panel=DUET)
    ] = 0.3,
    seed: Annotated[int, typer.Option(help="Random seed of the answers.", rich_help_panel=DUET)] = 0,
    config: Annotated[Any, config_option("listen_options")] = None,
) -> None:
    """Follow live sound: the clips that it resembles, its tokens and gestures, and answers in sounds of the lake.

    Example: tonelake listen device --vocabulary 7-2048 --duet --osc 9000
    """
    if devices:
        show_devices(as_json)
        return
    only_with_duet({"--play": play, "--wav": wav, "--pause": pause, "--want": want, "--prefer": prefer}, duet)
    from tonelake.duet import Duet
    from tonelake.index import Continuer, LiveGestures, LiveSession
    from tonelake.listen import Lateness, Stop, run_session
    from tonelake.live_outputs import Outputs

    pieces, rate_hz, card = open_source(source, rate, channels=channels, block=block, form=form, real_time=not fast)
    fast = fast and not card
    opened = open_lake(lake)
    if config is not None:
        space, layer, vocabulary = config.for_session(opened, space, layer, vocabulary or ())
    session = LiveSession(
        opened, vocabulary or (), rate=rate_hz, space=space, layer=layer, k=k, where=where, window_s=window, hop_s=hop,
        heard_s=heard, device=device,
    )
    for one in session.layers:
        named = f"vocabulary {one.name}: " if one.name is not None else ""
        say(f"{named}space {one.space.name}, layer {one.space.layers[one.layer]}")
    say(f"frames are {session.frames.latency_s:.2f} s behind their sound, plus the time to compute them")
    live: LiveSession | LiveGestures = session
    if gestures or duet:
        live = LiveGestures(session, grid_s=grid)
        say(f"gestures are complete at most {live.latency_s:.2f} s after their end, plus that time")
    continuer = None
    if duet:
        first = session.layers[0]
        assert first.vocabulary is not None
        continuer = Continuer(
            opened, first.vocabulary.name, want=want or (), prefer=prefer or (), least=context, jump=jump,
            space=first.space.name, where=where, seed=seed,
        )
        continuer.check_steps(steps)
        say("duet: {:,} gestures of {:,} clips may answer".format(*continuer.counts))
    outputs = Outputs(open_outputs(opened, as_json, osc or (), midi_out, midi, play, wav))
    partner = None
    with Stop() as stop:
        try:
            if continuer is not None:
                partner = Duet(
                    continuer, outputs.send, every=every, pause_s=pause, steps=steps, wait=fast,
                    vocabulary=session.layers[0].name,
                )
            late = None if fast or card else Lateness()
            run_session(live, stop.until(pieces), outputs.send, duet=partner, late=late)
        finally:
            if partner is not None:
                partner.close()
            outputs.close(cut=stop.asked or fast)


def only_with_duet(given: dict[str, Any], duet: bool) -> None:
    """Raise BadParameter for an option that has no effect without a duet."""
    for option, value in given.items():
        if value is not None and value != [] and not duet:
            raise typer.BadParameter(f"{option}: is about answers. Add --duet")


def open_source(
    source: str, rate: int | None, *, channels: int, block: int, form: str, real_time: bool
) -> tuple[Iterable[np.ndarray], int, bool]:
    """Return the pieces of a source, their rate in Hz, and whether it is a sound card, whose settings are printed."""
    from tonelake.live_inputs import FILE_RATE, RAW_RATE, file_pieces, standard_input, stream_pieces

    kind, _, name = source.partition(":")
    if kind == CARD:
        from tonelake.sound_card import SoundCard

        card = SoundCard(name or None, rate=rate, channels=channels, block=block)
        say(str(card))
        return card.pieces(), card.rate, True
    if source == "-":
        rate = rate or RAW_RATE
        return stream_pieces(standard_input(), rate, channels=channels, form=form), rate, False
    return file_pieces(Path(source).expanduser(), real_time=real_time), FILE_RATE, False


def open_outputs(
    lake: Lake, as_json: bool, osc: Iterable[str], midi_out: str | None, midi: Path | None, play: str | None, wav: Path | None
) -> list[Output]:
    """Return the outputs of a session, the terminal first."""
    from tonelake.live_outputs import JsonLines, Osc

    found: list[Output] = [JsonLines() if as_json or not sys.stdout.isatty() else Terminal()]
    found += [Osc(address) for address in osc]
    if midi_out is not None:
        from tonelake.live_midi import MidiPort

        found.append(MidiPort(midi_out))
    if midi is not None:
        from tonelake.live_midi import MidiRecording

        found.append(MidiRecording(midi))
    if play is not None:
        from tonelake.live_sound import AnswersPlayed

        found.append(AnswersPlayed(lake, play))
    if wav is not None:
        from tonelake.live_sound import AnswersWav

        found.append(AnswersWav(lake, wav))
    return found


def show_devices(as_json: bool) -> None:
    """Print the inputs and outputs of sound cards, and the MIDI outputs; say why where they cannot be listed."""
    import polars as pl

    from tonelake.live_midi import midi_ports
    from tonelake.sound_card import list_devices
    from tonelake.store import InputError

    tables = []
    try:
        tables += [list_devices(kind).insert_column(0, pl.lit(f"sound {kind}").alias("kind")) for kind in ("input", "output")]
    except InputError as error:
        say(f"warning: {error}")
    try:
        ports = pl.DataFrame({"name": midi_ports()}, schema={"name": pl.String})
        tables.append(ports.insert_column(0, pl.lit("MIDI output").alias("kind")))
    except InputError as error:
        say(f"warning: {error}")
    if tables:
        show(pl.concat(tables, how="diagonal"), as_json, False, empty="no sound card and no MIDI port")


class Terminal:
    """Events as lines for a person: hits, gestures and answers."""

    name, kinds = "the terminal", ("gesture", "hits", "continue")

    def send(self, event: LiveEvent) -> None:
        from tonelake.store import printable

        minutes, seconds = divmod(event.at_s, 60)
        line = {"gesture": gesture_line, "hits": hits_line, "continue": answer_line}[event.kind](event.data)
        typer.echo(f"{minutes:3.0f}:{seconds:04.1f}  {printable(line)}")

    def close(self, cut: bool) -> None: ...


def gesture_line(row: dict[str, Any]) -> str:
    """The main features of a gesture."""
    figures = [f"token {row['token']}", f"{row['loudness']:.0f} dB"]
    figures += [f"pitch {row['pitch']:.1f}", f"consonance {row['consonance']:.2f}"] if row["pitch"] is not None else []
    figures += [row["ratio"]] if row["ratio"] else []
    return "  ".join(figures)


def hits_line(hits: Any) -> str:
    """The nearest clips with their scores."""
    return "  |  ".join(
        f"{hit['title'] or hit['track']}{' - ' + hit['artist'] if hit['artist'] else ''} {hit['score']:.3f}"
        for hit in hits.iter_rows(named=True)
    )


def answer_line(answer: Any) -> str:
    """The gestures of an answer: titles, times and tokens, and the conditions that were relaxed."""
    parts = [
        f"{row['title'] or row['clip_id'][:8]} {row['start_s']:.1f}-{row['end_s']:.1f} s ({row['token']})"
        for row in answer.path.iter_rows(named=True)
    ]
    relaxed = sorted({text for texts in answer.path["relaxed"].to_list() for text in texts})
    return f"answer: {'  '.join(parts)}" + (f"  relaxed: {'; '.join(relaxed)}" if relaxed else "")
