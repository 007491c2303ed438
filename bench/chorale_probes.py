"""The report on probing Bach's chorales, docs/chorales-probes.md: the chorale study's experiments on hand-crafted descriptors.

    python -m bench.chorale_probes --lake chorales-lake
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import tonelake
from bench.report import circumstances
from tonelake.probes import ProbeConfig, Run, Stage, stages_of

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = "chorales"
SPACE = "spectral"
# The study took MERT's vectors raw; descriptors have other units each, so here they are standardised.
CHANGES = {"space": SPACE, "prepare": "standardise", "layers": ("each", "all")}

INTRODUCTION = """\
Which chorale is a snippet of? The experiments of `tonelake probe --protocol chorales`, on {clips:,} clips of four bars of
{tracks} pieces, rendered from music21's corpus by the built-in organ and embedded by `spectral`: hand-crafted descriptors, each
family a layer, and all of them side by side.

**What it may be compared with:** another encoder on this same lake and split (`tonelake embed`, then `tonelake probe --protocol
chorales --space …`), figure by figure. **What not:** the study's own figures, which are of MERT, of another rendering and of a
split that is not published; and anything about recordings: one organ, one tempo a piece, no room.

**What to make of a high figure:** snippets overlap by half, and {shared:.0%} of those judged in a random split share audio with
one learned from. So the first three experiments ask whether a passage is recognised, not whether a piece is. The last two ask
what is left where pieces, or whole tunes, are held out.

    tonelake ingest chorales --seed-rule
    tonelake embed --encoder spectral
    tonelake probe --protocol chorales --prepare standardise --layers each,all

"""


def section(stage: Stage, run: Run) -> str:
    """One experiment: its report, one heading lower, pictures beside the page's."""
    text = run.report().split("## Reproduce")[0].rstrip()
    for name in run.files.names(".png"):
        target = f"{PICTURES}/probe-{stage.name.replace(' ', '-')}-{name}"
        with run.files.fetched(name) as path:
            assert path is not None
            (DOCS / target).write_bytes(path.read_bytes())
        text = text.replace(f"]({name})", f"]({target})")
    text = re.sub(r"^# .*\n", "", text)
    return f"## {stage.name.capitalize()}: {stage.why}\n" + re.sub(r"^## ", "### ", text, flags=re.M) + "\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lake", default="chorales-lake")
    lake = tonelake.open(parser.parse_args().lake, progress=True)
    lake.ingest_chorales(seed_rule=True)
    lake.embed(SPACE)
    about = circumstances("the split, the starts and the order of clips (seeded)")
    runs = lake.probe("piece", protocol="chorales", again=True, **CHANGES)
    stages = stages_of("chorales", ProbeConfig(("piece",)), **CHANGES)
    (DOCS / PICTURES).mkdir(parents=True, exist_ok=True)
    status = lake.status()
    shared = next(leak["share"] for leak in runs[0].metrics["leaks"] if leak["column"] == "audio")
    facts = "".join(f"- {key}: {value}\n" for key, value in about.items())
    overview = "".join(
        f"- **{stage.name}** ({stage.why}): {run.summary()}\n" for stage, run in zip(stages, runs, strict=True)
    )
    introduction = INTRODUCTION.format(clips=status.clips, tracks=status.tracks, shared=shared)
    text = (
        f"# A report: probing Bach's chorales\n\n{facts}\n{introduction}"
        + f"## In short\n\n{overview}\n" + "".join(section(stage, run) for stage, run in zip(stages, runs, strict=True))
    )
    (DOCS / "chorales-probes.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    print("docs/chorales-probes.md and its pictures are written")


if __name__ == "__main__":
    main()
