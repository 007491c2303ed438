"""Shorten results for a terminal of eighty columns: fewer columns than a program gets, and narrower ones."""

from __future__ import annotations

import polars as pl

TAGS_SHOWN = 3                           # of a hit
HITS_BY_LAYER = 5                        # columns beside the layer's name and the average


def hits(frame: pl.DataFrame) -> pl.DataFrame:
    """Neighbours: songs or clips, scores, and the positions of the best moments."""
    return frame.select(
        "rank", pl.col("^(score|distance)$"), *cosine_columns(frame), pl.col("^clips$"), "clip_id", "artist", "title", "track",
        pl.col("^(query_at_s|hit_at_s|part_score)$"), pl.col("^heard$").list.head(TAGS_SHOWN).list.join(", "),
        at=clock(pl.col("start_s")), flag=pl.coalesce(pl.col("^(flag|state)$")),
    )


def events(frame: pl.DataFrame) -> pl.DataFrame:
    """Events of a clip, times in seconds from its start."""
    return frame.select(
        "kind", start=number(pl.col("start_s"), ".3f"), end=number(pl.col("end_s"), ".3f"), value="value",
        pitch=number(pl.col("pitch"), "g"), velocity="velocity", source="source",
    )


def cosine_columns(frame: pl.DataFrame) -> list[pl.Expr]:
    """The cosine in each space of a mixture, as a column of its own."""
    kind = frame.schema.get("cosine")
    if not isinstance(kind, pl.Struct):
        return []
    return [pl.col("cosine").struct.field(field.name).alias(f"cos {field.name}") for field in kind.fields]


def names(frame: pl.DataFrame) -> pl.DataFrame:
    """Songs found by name; the file where it is not the title, and the number of other versions if there are any."""
    others = pl.col("versions").list.len()
    return frame.select(
        "rank", number(pl.col("score"), ".0f"), "clip_id", "title", "artist", "album",
        file=pl.when(pl.col("file").str.starts_with(pl.col("title")).not_()).then("file"),
        others=pl.when(others > 0).then(others), state="state",
    )


def cosines(frame: pl.DataFrame) -> pl.DataFrame:
    """Cosines of two sounds by layer, with enough digits to distinguish those near 1."""
    return frame.select(
        pl.col("name").alias("layer"), number(pl.col("cosine"), ".4f"), number(pl.col("percentile"), ".1f"),
        number(pl.col("usual"), ".4f"), "pairs",
    )


def pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Pairs of groups, each with its interval and the numbers of tracks of both."""
    return frame.select(
        "rank", frame.columns[1], "other", interval_text("similarity", "similarity (95 %)", ""),
        tracks=pl.format("{} + {}", "tracks", "other_tracks"),
    )


def stations(frame: pl.DataFrame) -> pl.DataFrame:
    """A path: its stations, and their similarity to both ends."""
    return frame.select(
        "step", "score", "to_start", "to_end", pl.col("^clips$"), "clip_id", "artist", "title", "track",
        at=clock(pl.col("start_s")),
    )


def playlist(frame: pl.DataFrame) -> pl.DataFrame:
    """The songs of a playlist."""
    return frame.select(pl.exclude("seconds", "source"), length=clock(pl.col("seconds")))


def typical(frame: pl.DataFrame) -> pl.DataFrame:
    """Typical and unusual clips."""
    hidden = ("duration_s", "start_s", "source", "flag")
    return frame.select(pl.exclude(*hidden), at=clock(pl.col("start_s")))


def clusters(frame: pl.DataFrame) -> pl.DataFrame:
    """Clusters of a map, with the labels that characterise them."""
    return frame.select("cluster", "clips", "labels")


def by_layer(frame: pl.DataFrame) -> pl.DataFrame:
    """Cosine of the average clip and of the first hits at each layer; columns of hits are named by rank."""
    first = frame.head(HITS_BY_LAYER)
    names = frame["by_layer"].struct.fields
    columns = {str(rank): list(values.values()) for rank, values in zip(first["rank"], first["by_layer"], strict=True)}
    usual = list(first["usual"].to_list()[0].values()) if len(first) else [None] * len(names)
    return pl.DataFrame({"layer": names, "usual": usual} | columns)


def clips(frame: pl.DataFrame) -> pl.DataFrame:
    """Clips without the columns that only programs need; all artists of a clip in one column."""
    hidden = (
        "recording", "digest", "added_at", "source", "start_s", "dataset", "cut", "labelled", "artists", "album_artist",
        "track_number",
    )
    if "artists" in frame.columns:
        several = pl.col("artists").list.len() > 1
        frame = frame.with_columns(artist=pl.when(several).then(pl.col("artists").list.join(", ")).otherwise("artist"))
    labels = [name for name in frame.columns if name not in (*hidden, "clip_id", "artist", "title", "track", "duration_s")]
    return frame.select(
        "clip_id", "artist", "title", "track", *labels, at=clock(pl.col("start_s")), seconds=number(pl.col("duration_s"), ".1f")
    )


def spaces(frame: pl.DataFrame) -> pl.DataFrame:
    """Spaces by name, the default one starred."""
    overlap = pl.when(pl.col("hop_s") < pl.col("window_s")).then(pl.lit(" hop ") + number(pl.col("hop_s"), "g"))
    window = number(pl.col("window_s"), "g") + overlap.otherwise(pl.lit(""))
    name = pl.col("name") + pl.when("default").then(pl.lit(" *")).otherwise(pl.lit(""))
    shown = frame.with_columns(name=name, window_s=window).rename({"window_s": "window"})
    return shown.drop("default", "hop_s", "fingerprint", *(["run"] if shown["run"].is_null().all() else []))


def encoders(frame: pl.DataFrame) -> pl.DataFrame:
    """Encoders by their shortest name."""
    weights = pl.when("here").then(pl.lit("here")).otherwise(pl.lit("not here, ") + pl.col("size"))
    return frame.select(
        pl.coalesce(pl.col("aliases").list.first(), "name").alias("name"), "layers", "width", "licence", hz="sample_rate",
        weights=weights, good_for="good_for",
    )


def indexes(frame: pl.DataFrame) -> pl.DataFrame:
    """Indexes, with the number of clips they lack."""
    gone = pl.when(pl.col("gone") > 0).then(pl.format(", {} gone", "gone")).otherwise(pl.lit(""))
    lacking = pl.format("{} new{}", "behind", gone)
    return frame.select(
        "space", "layer", "metric", "kind", "rows", recall=number(pl.col("recall"), ".3f"),
        state=pl.when(pl.col("state") == "behind").then(lacking).otherwise(pl.col("state")), mb=number(pl.col("mb"), ".0f"),
    )


def layers(frame: pl.DataFrame) -> pl.DataFrame:
    """The layer report: one column for a metric with its interval, the best layer starred.  Hubness is left to programs."""
    return frame.select(
        pl.col("name").add(pl.when("best").then(pl.lit(" *")).otherwise(pl.lit(""))).alias("layer"),
        "span", pl.col("matrix_span").alias("matrix"), "auc", interval_text("recall_1", "recall@1 (95 %)"),
        interval_text("map", "mAP (95 %)"), number(pl.col("anisotropy"), ".2f"),
    )


def effects(frame: pl.DataFrame) -> pl.DataFrame:
    """Effects of preparations on layers."""
    return frame.select(
        pl.col("name").alias("layer"), prepared=pl.col("prepared") + pl.when(pl.col("hubs") == "corrected").then(
            pl.lit(", hubs corrected")).otherwise(pl.lit("")),
    ).hstack(frame.select(
        interval_text("map", "mAP (95 %)"), interval_text("gain", "gain (95 %)"), number(pl.col("anisotropy"), ".2f"),
        number(pl.col("hubness"), ".1f"),
    ))


def comparison(frame: pl.DataFrame) -> pl.DataFrame:
    """Two spaces, layer by layer."""
    pair = pl.when(pl.col("layer_a") == pl.col("layer_b")).then("layer_a").otherwise(pl.format("{} / {}", "layer_a", "layer_b"))
    columns = [pair.alias("layer"), pl.col("agreement"), pl.col("cka")]
    if "gain" in frame.columns:
        columns += [pl.col("map_a"), pl.col("map_b"), interval_text("gain", "gain (95 %)"), pl.col("^matrix_span_[ab]$")]
    return frame.select(columns)


def duplicates(frame: pl.DataFrame) -> pl.DataFrame:
    """Sets of duplicate recordings or clips."""
    return frame.select("set", pl.col("^clips$"), "clip_id", "cosine", "correlation", "offset_s", "artist", "title", "track",
                        at=clock(pl.col("start_s")))


def probe_layers(frame: pl.DataFrame) -> pl.DataFrame:
    """Layers of a probe at their best settings: the main metric with its interval, the selected layer starred."""
    main = next((name for name in ("accuracy", "map", "r2") if f"{name}_low" in frame.columns), "")
    others = [name for name in ("key_score", "balanced_accuracy", "macro_f1", "roc_auc", "rmse") if name in frame.columns]
    settings = [name for name in ("rate", "decay") if name == "decay" or (frame["rate"] > 0).any()]  # lbfgs has no rate
    return frame.select(
        pl.col("name").add(pl.when("best").then(pl.lit(" *")).otherwise(pl.lit(""))).alias("layer"),
        interval_text(main, f"{main} (95 %)"), *others[:2], *(number(pl.col(name), "g") for name in settings),
    )


def frame_layers(frame: pl.DataFrame) -> pl.DataFrame:
    """Layers of a run on frames at their best settings: the main score with its interval, the selected layer starred."""
    main = next(name for name in ("onset_f1", "f1", "majmin", "key_score") if f"{name}_low" in frame.columns)
    others = [name for name in ("onset_offset_f1", "frame_f1", "cmlt", "amlt", "root") if name in frame.columns]
    return frame.select(
        pl.col("name").add(pl.when("best").then(pl.lit(" *")).otherwise(pl.lit(""))).alias("layer"),
        interval_text(main, f"{main} (95 %)"), *others[:2], number(pl.col("rate"), "g"), number(pl.col("decay"), "g"),
    )


def found_events(frame: pl.DataFrame) -> pl.DataFrame:
    """Events that a run found, times in seconds from the recording's beginning."""
    return frame.select(
        pl.col("recording").str.head(8), "kind", start=number(pl.col("start_s"), ".3f"), end=number(pl.col("end_s"), ".3f"),
        value="value", pitch=number(pl.col("pitch"), "g"),
    )


def probes(frame: pl.DataFrame) -> pl.DataFrame:
    """Runs side by side."""
    return frame.select(
        "run", "head", "split", "layer", "figure", interval_text("value", "value (95 %)", ""), "baseline",
        pl.col("baseline_value").alias("its value"),
    )


def epochs(frame: pl.DataFrame) -> pl.DataFrame:
    """Epochs of a fine-tuning."""
    return frame.with_columns(number(pl.col("rate"), "g"))


def finetunes(frame: pl.DataFrame) -> pl.DataFrame:
    """Fine-tuning runs."""
    return frame.select(
        "run", "where", "split", "figure", interval_text("value", "value (95 %)", ""), "frozen",
        interval_text("difference", "difference (95 %)"), "over", "chance", "majority",
    )


def finetunes_compared(frame: pl.DataFrame) -> pl.DataFrame:
    """Runs on their common test tracks, with the difference from the first run."""
    return frame.select(
        "run", "where", "figure", interval_text("value", "value (95 %)", ""), interval_text("away", "from the first (95 %)"),
        "over", "tied",
    )


def finetune_plans(frame: pl.DataFrame) -> pl.DataFrame:
    """Plans of fine-tunings by the value of a column, with what was measured and what derived."""
    costs = [number(pl.col("cost"), ",.2f")] if (frame["cost"] > 0).any() else []
    return frame.select(
        pl.first(), "clips", "tracks", number(pl.col("audio_hours"), ",.2f"), number(pl.col("memory_gb"), ",.1f"),
        number(pl.col("step_s"), ".2f"), number(pl.col("hours"), ",.2f"), number(pl.col("disk_gb"), ",.2f"), *costs, "how",
    )


def finetune_epoch(frame: pl.DataFrame) -> pl.DataFrame:
    """Figures of one epoch of a run beside those of its best epoch."""
    return frame.select(
        "figure", "epoch", interval_text("value", "value (95 %)", ""), "best_epoch", "best",
        interval_text("away", "from the best epoch (95 %)"),
    )


def predicted(frame: pl.DataFrame) -> pl.DataFrame:
    """Predictions without the columns that only programs need."""
    return frame.select(pl.exclude("probabilities", "likeliest"))


def labelled(frame: pl.DataFrame) -> pl.DataFrame:
    """Labels by words, without the columns that only programs need."""
    return frame.select(pl.exclude("likeliest", "shares", "scores"))


def reviewed(frame: pl.DataFrame) -> pl.DataFrame:
    """Evaluated clips, with their positions in their tracks."""
    return frame.select(pl.exclude("start_s", "duration_s", "source", "album"), at=clock(pl.col("start_s")))


def vocabularies(frame: pl.DataFrame) -> pl.DataFrame:
    """Vocabularies, with rounded figures."""
    return frame.select(
        "vocabulary", "space", "layer", "tokens", "metric", "frames", "used", number(pl.col("perplexity"), ",.0f"),
        number(pl.col("explained"), ".1%"), "clips",
    )


def gestures(frame: pl.DataFrame) -> pl.DataFrame:
    """Gestures of a clip, with rounded figures; pitch classes are left out."""
    return frame.select(
        number(pl.col("start_s"), ".2f"), number(pl.col("end_s"), ".2f"), "token", number(pl.col("loudness"), ".1f"),
        number(pl.col("centroid"), ".0f"), number(pl.col("pitch"), ".1f"), number(pl.col("consonance"), ".2f"),
        number(pl.col("ioi_s"), ".2f"), "ratio",
    )


def token_hits(frame: pl.DataFrame) -> pl.DataFrame:
    """Clips that share tokens, with the times of the shared passages."""
    return frame.select(
        "rank", "score", "shared", "clip_id", "artist", "title", "track", "at_s", "hit_at_s",
    )


def passages(frame: pl.DataFrame) -> pl.DataFrame:
    """Repeated passages."""
    return frame.select(
        "runs", "title", "clip_id", from_=clock(pl.col("start_s")), to=clock(pl.col("end_s")), first="first_title",
        first_clip="first_clip_id", first_at=clock(pl.col("first_start_s")),
    ).rename({"from_": "from"})


def continued(frame: pl.DataFrame) -> pl.DataFrame:
    """A continuation: one row a stretch of one clip."""
    stretch = pl.col("jumped").cum_sum().alias("stretch")
    return frame.group_by(stretch, maintain_order=True).agg(
        pl.first("clip_id", "title"), clock(pl.first("start_s")).alias("from"), clock(pl.last("end_s")).alias("to"),
        pl.len().alias("runs"), pl.first("context"), pl.col("token").cast(pl.String).str.join(" ").alias("tokens"),
        pl.col("relaxed").list.explode().drop_nulls().unique(maintain_order=True).str.join("; "),
    )


def trimmed(frame: pl.DataFrame) -> pl.DataFrame:
    """Tables after `optimize`."""
    return frame.select(
        "table", pl.format("{} of {}", "fragments", "fragments_before").alias("fragments"), "versions_removed",
        number(pl.col("bytes_removed") / 1e6, ",.1f").alias("MB removed"),
    )


def precision(frame: pl.DataFrame) -> pl.DataFrame:
    """Layers, with enough digits to distinguish cosines near 1."""
    return frame.with_columns(number(pl.col("cosine"), ".6f"), number(pl.col("relative_error"), ".1e"))


def interval_text(column: str, name: str, prefix: str | None = None) -> pl.Expr:
    """A value and its interval as text: 0.33 (0.17-0.53).

    The ends are in `<column>_low` and `<column>_high`, or in `<prefix>low` and `<prefix>high`.
    """
    first = f"{column}_" if prefix is None else prefix
    value, low, high = (number(pl.col(c), ".2f") for c in (column, f"{first}low", f"{first}high"))
    between = pl.when(pl.col(f"{first}low") < 0).then(pl.format(" to {}", high)).otherwise(pl.format("-{}", high))
    return pl.format("{} ({}{})", value, low, between).alias(name)


def number(value: pl.Expr, form: str) -> pl.Expr:
    """A number as text, in one of Python's formats."""
    return value.map_elements(lambda v: format(v, form), return_dtype=pl.String)


def clock(seconds: pl.Expr) -> pl.Expr:
    """Seconds as minutes and seconds: 75.5 is 1:15.5."""
    return seconds.map_elements(lambda s: f"{int(s // 60)}:{s % 60:04.1f}", return_dtype=pl.String)
