"""Write the report on reading notes from frames, docs/notes.md, and bench/results/frames.json.

    python -m bench.notes --lake notes-lake

Needs FluidSynth and TimGM6mb.sf2 (Debian packages fluidsynth and timgm6mb-soundfont).  basic-pitch is compared if it and
onnxruntime are installed, here or in the folder that --basic-pitch names.  Finished steps are kept in the lake and beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.notes.lake import encoding_speeds, fill_lake
from bench.notes.models import BEAT_MODELS, FURTHER, NOTES, BasicPitchClips, clip_events, run_all
from bench.notes.page import write_page
from bench.notes.pieces import HELD_OUT, ORGAN, SEEN, SOUNDFONT, attack_ms, choose_pieces, render_pieces
from bench.notes.results import write_note_results
from bench.notes.scores import group_figures, repeated_recall
from bench.report import circumstances
from tonelake.store import InputError

PAGE = Path(__file__).parent.parent.parent / "docs" / "notes.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lake", type=Path, default=Path("notes-lake"))
    parser.add_argument("--soundfont", type=Path, default=SOUNDFONT)
    parser.add_argument("--basic-pitch", type=Path, help="Folder of Python packages with basic-pitch and onnxruntime.")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fewer", action="store_true", help="Leave out some layers of small and musicnn.")
    options = parser.parse_args()
    about = circumstances("initial weights, dropout and the order of segments (seeded)")
    played = choose_pieces(options.workers)
    audio = options.lake.parent / f"{options.lake.name}-audio"
    render_pieces(played, audio, options.soundfont, options.workers)
    attacks = {timbre: attack_ms(timbre, options.soundfont) for timbre in (*SEEN, *HELD_OUT, ORGAN)}
    lake = fill_lake(options.lake, played, audio)
    results = run_all(lake, "notes", NOTES if options.fewer else (*NOTES, *FURTHER))
    try:
        kept = options.lake.parent / f"{options.lake.name}-basic-pitch"
        results += BasicPitchClips(lake, kept, options.basic_pitch).results()
    except InputError as error:
        print(error)
    clips = lake.clips.read(["clip_id", "recording", "start_s", "duration_s", "piece", "timbre", "part"])
    notes = [(result, group_figures(result, clips, attacks)) for result in results]
    beats = [(result, group_figures(result, clips, attacks)) for result in run_all(lake, "beats", BEAT_MODELS)]
    events, timbres = clip_events(lake, clips), dict(clips.select("clip_id", "timbre").iter_rows())
    repeated = {result.model.label: repeated_recall(result, events, timbres) for result in results}
    speeds = encoding_speeds()
    PAGE.write_text(write_page(
        about=about, notes=notes, beats=beats, repeated=repeated, attacks=attacks, speeds=speeds
    ), encoding="utf-8")
    write_note_results(about, notes, beats)
    print(f"{PAGE} is written")


if __name__ == "__main__":
    main()
