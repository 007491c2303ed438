"""The page docs/notes.md from scored models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.notes.models import DEFAULTS, TUNED, Model, Result
from bench.notes.pieces import COUNTS, HELD_OUT, ORGAN, SECONDS, SEEN
from bench.notes.scores import FAST_HELD, FAST_MS, FAST_SEEN, HELD_GROUP, SEEN_GROUP, Figures
from bench.report import table

F1 = "onset_f1"
GROUPS = (SEEN_GROUP, HELD_GROUP, FAST_SEEN, FAST_HELD, ORGAN)

INTRODUCTION = """\
How well do heads on stored frames read notes, and do they read them in timbres that they have not heard? {pieces} of Bach's
chorales, {seconds:.0f} s each at 80 to 100 quarter notes a minute, are rendered by FluidSynth with TimGM6mb.sf2 and by the
built-in organ. Notes and beats are exact. Tunes are disjoint between {train} training, {validation} validation and {test} test
pieces.

| timbres | where |
|---|---|
| {seen} (*seen*) | training, validation and test |
| oboe, harp | validation alone: training stops, and thresholds are chosen, for seen and unheard timbres alike |
| {held} (*held out*), built-in organ | test alone |

A note is right if its pitch is and its onset is within 50 ms (mir_eval); unisons of two voices are one note. Figures are means
over clips with 95 % intervals, jackknifed over pieces. Each test piece is in three clips: in a seen and a held-out timbre, and
by the built-in organ. Timbres differ in how soon a note is heard: choir reaches half of its level after {slow:.0f} ms, so its
onsets cannot be read reliably within 50 ms. *Fast* timbres reach it within {fast} ms; theirs are the figures to compare.

**Not shown:** recordings. There is one soundfont, all notes are equally loud, and nothing reverberates.

"""

REPRODUCE = """\
## Reproduce

    make report-notes

The commands for a library of your own with notes as MIDI files:

    tonelake ingest folder music
    tonelake ingest events music
    tonelake embed --encoder vqt --frames vqt
    tonelake probe notes --frames --space vqt --head harmonic --hold-out timbre
"""


def write_page(
    *, about: Mapping[str, str], notes: Sequence[tuple[Result, Figures]], beats: Sequence[tuple[Result, Figures]],
    repeated: Mapping[str, Mapping[str, tuple[float, float]]], attacks: Mapping[str, float], speeds: Mapping[str, float],
) -> str:
    """Return the page.  `notes` and `beats`: models with their estimates; `repeated`: recalls by label of the model."""
    facts = "".join(f"- {key}: {value}\n" for key, value in about.items())
    figures = {result.model.label: own for result, own in notes}
    main = [result.model for result, _ in notes if not is_small_or_musicnn(result.model)]
    main += [best_of(notes, "small"), best_of(notes, "musicnn")]
    introduction = INTRODUCTION.format(
        pieces=sum(COUNTS.values()), seconds=SECONDS, **COUNTS, seen=", ".join(SEEN), held=", ".join(HELD_OUT),
        slow=attacks["choir"], fast=FAST_MS,
    )
    parts = [
        f"# A report on reading notes from frames\n\n{facts}\n{introduction}",
        f"## Summary\n\n{aims(figures, main)}\n",
        "## Onset F1\n\n" + score_table(main, figures, F1, GROUPS)
        + "\nOf `small` and musicnn, the layer and head with the best figure on seen test clips are shown; all are below.\n",
        "## Further scores\n\n" + further_table(main, figures),
        "## By timbre\n\nOnset F1, and the time until a note reaches half of its level.\n\n"
        + timbre_table(main, figures, attacks),
        "Median of estimated minus reference onsets, in ms:\n\n" + error_table(main, figures, attacks),
        "## Repeated notes\n\n" + repeated_table(main, repeated),
        "## Every layer of small and musicnn\n\n" + layers_table(notes),
        "## Beats\n\n" + beats_table(beats),
        "## Cost\n\n" + cost_table(speeds, notes),
        REPRODUCE,
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def is_small_or_musicnn(model: Model) -> bool:
    return model.space in ("small", "musicnn")


def best_of(notes: Sequence[tuple[Result, Figures]], space: str) -> Model:
    """Return the model of a space with the highest onset F1 in seen timbres."""
    own = [(figures[SEEN_GROUP, F1].value, result.model) for result, figures in notes if result.model.space == space]
    return max(own, key=lambda pair: pair[0])[1]


def aims(figures: Mapping[str, Figures], main: Sequence[Model]) -> str:
    """State each aim with what was reached."""
    heads = [model for model in main if model not in (DEFAULTS, TUNED)]

    def best(group: str) -> tuple[str, float]:
        label = max((model.label for model in heads), key=lambda name: figures[name][group, F1].value)
        return label, figures[label][group, F1].value

    lines = []
    for group, aim in ((SEEN_GROUP, 0.80), (HELD_GROUP, 0.50), (FAST_HELD, 0.85)):
        label, value = best(group)
        verdict = "reached" if value >= aim else f"**less than the aim by {aim - value:.2f}**"
        lines.append(f"- Onset F1, {group} timbres: {figures[label][group, F1]} by {label}; aim {aim:.2f}: {verdict}.")
    if TUNED.label in figures:
        label, value = best(HELD_GROUP)
        other = figures[TUNED.label][HELD_GROUP, F1]
        verdict = "reached" if value >= other.value - 0.03 else f"**missed by {other.value - 0.03 - value:.2f}**"
        lines.append(
            f"- Held-out timbres, not more than 0.03 below basic-pitch with thresholds of validation ({other}): {verdict}."
        )
        for group in (FAST_HELD, ORGAN):
            (label, value), other = best(group), figures[TUNED.label][group, F1]
            than = "**below**" if value < other.value else "not below"
            own = figures[label][group, F1]
            lines.append(f"- {group.capitalize()}: {own} by {label}, {than} basic-pitch, which has {other}.")
    small = {group: max(
        (own[group, F1].value for name, own in figures.items() if name.startswith("small 6,")), default=float("nan")
    ) for group in (SEEN_GROUP, HELD_GROUP)}
    for group, aim in ((SEEN_GROUP, 0.55), (HELD_GROUP, 0.33)):
        verdict = "reached" if small[group] >= aim else f"**less than the aim by {aim - small[group]:.2f}**"
        lines.append(f"- Layer 6 of `small`, {group} timbres: {small[group]:.2f}; aim {aim:.2f}: {verdict}.")
    return "\n".join(lines)


def score_table(models: Sequence[Model], figures: Mapping[str, Figures], score: str, groups: Sequence[str]) -> str:
    rows = [[model.label, *(str(figures[model.label][group, score]) for group in groups)] for model in models]
    return table(["frames, head", *groups], rows)


def further_table(models: Sequence[Model], figures: Mapping[str, Figures]) -> str:
    """Onset+offset, frames and triads, in seen and held-out timbres."""
    scores = {"onset_offset_f1": "onset and offset F1", "frame_f1": "frame F1", "triad_recall": "triad recall a beat"}
    header = ["frames, head", *(f"{name}, {group}" for name in scores.values() for group in (SEEN_GROUP, HELD_GROUP))]
    rows = [
        [model.label, *(str(figures[model.label][group, score]) for score in scores for group in (SEEN_GROUP, HELD_GROUP))]
        for model in models
    ]
    return table(header, rows)


def timbre_table(models: Sequence[Model], figures: Mapping[str, Figures], attacks: Mapping[str, float]) -> str:
    rows = [
        [timbre, where, f"{attacks[timbre]:.0f} ms", *(str(figures[model.label][timbre, F1]) for model in models)]
        for where, timbres in ((SEEN_GROUP, SEEN), (HELD_GROUP, (*HELD_OUT, ORGAN))) for timbre in timbres
    ]
    return table(["timbre", "", "half level", *(model.label for model in models)], rows)


def error_table(models: Sequence[Model], figures: Mapping[str, Figures], attacks: Mapping[str, float]) -> str:
    timbres = (*SEEN, *HELD_OUT, ORGAN)
    rows = [
        [timbre, *(f"{1e3 * figures[model.label][timbre, 'median_error_s'].value:.0f}" for model in models)]
        for timbre in timbres
    ]
    return table(["timbre", *(model.label for model in models)], rows)


def repeated_table(models: Sequence[Model], repeated: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    text = "Recall of notes that repeat the pitch of a note that ends as they begin, and of all other notes.\n\n"
    groups = (SEEN_GROUP, HELD_GROUP, ORGAN)
    rows = [
        [model.label, *(f"{repeated[model.label][group][kind]:.2f}" for group in groups for kind in (0, 1))] for model in models
    ]
    return text + table(["frames, head", *(f"{kind}, {group}" for group in groups for kind in ("repeated", "others"))], rows)


def layers_table(notes: Sequence[tuple[Result, Figures]]) -> str:
    own = [(result.model, figures) for result, figures in notes if is_small_or_musicnn(result.model)]
    rows = [[model.label, *(str(figures[group, F1]) for group in GROUPS)] for model, figures in own]
    return table(["frames, head", *GROUPS], rows)


def beats_table(beats: Sequence[tuple[Result, Figures]]) -> str:
    text = "F1 of beats within 70 ms; CMLt and AMLt ask for unbroken sequences, AMLt at any metrical level.\n\n"
    groups = (SEEN_GROUP, HELD_GROUP, ORGAN)
    rows = [
        [
            result.model.label, result.about.rpartition("; ")[2], *(str(figures[group, "f1"]) for group in groups),
            *(str(figures[HELD_GROUP, score]) for score in ("cmlt", "amlt")),
        ]
        for result, figures in beats
    ]
    header = ["frames, head", "decoder", *(f"F1, {group}" for group in groups), "CMLt, held out", "AMLt, held out"]
    return text + table(header, rows)


def cost_table(speeds: Mapping[str, float], notes: Sequence[tuple[Result, Figures]]) -> str:
    text = "Seconds of audio that are encoded in a second of one core, in float32:\n\n"
    shown = [result for result, _ in notes if not is_small_or_musicnn(result.model)]
    chosen = "".join(f"- {result.model.label}: {result.about}\n" for result in shown)
    return (
        text + table(["encoder", "audio s a CPU second"], [[name, f"{speed:.0f}"] for name, speed in speeds.items()])
        + "\nHeads, and thresholds that the validation clips chose. A head whose best epoch is the last one would gain from "
        f"longer training: conv and linear were given as much as fits the report, not as much as they can use.\n\n{chosen}"
    )
