"""Write the report on probing Bach's chorales, docs/chorales-probes.md: the chorale study's experiments on descriptors.

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
# The study used MERT's vectors raw; descriptors have different units, so they are standardised here.
CHANGES = {"space": SPACE, "prepare": "standardise", "layers": ("each", "all")}

INTRODUCTION = """\
Which chorale does a snippet come from? These are the experiments of `tonelake probe --protocol chorales`, on {clips:,} clips of
four bars from {tracks} pieces, rendered from music21's corpus by the built-in organ and embedded by `spectral`: hand-crafted
descriptors, each family a layer, and all of them concatenated.

**Comparable:** another encoder on this lake and split (`tonelake embed`, then `tonelake probe --protocol chorales --space …`),
figure by figure. **Not comparable:** the study's own figures, which use MERT, another rendering and an unpublished split; and
results on recordings: here there is one organ, one tempo a piece, no reverberation.

**Interpreting high figures:** snippets overlap by half, and {shared:.0%} of the test snippets in a random split share audio
with the training set. The first three experiments therefore measure whether a passage is recognised, not a piece. The last two
measure performance with whole pieces, or whole tunes, held out.

    tonelake ingest chorales --seed-rule
    tonelake embed --encoder spectral
    tonelake probe --protocol chorales --prepare standardise --layers each,all

"""


def section(stage: Stage, run: Run) -> str:
    """Return the report of one experiment, with headings one level lower; its pictures are copied beside the page's."""
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
    about = circumstances("the split, the initial weights and the order of clips (seeded)")
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
        f"# A report on probing Bach's chorales\n\n{facts}\n{introduction}"
        + f"## Summary\n\n{overview}\n" + "".join(section(stage, run) for stage, run in zip(stages, runs, strict=True))
    )
    (DOCS / "chorales-probes.md").write_text(text.rstrip() + "\n", encoding="utf-8")
    print("docs/chorales-probes.md and its pictures are written")


if __name__ == "__main__":
    main()
