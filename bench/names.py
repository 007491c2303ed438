"""Find songs by name: accuracy, latency, time to index and to bring up to date, and size, on made-up songs.

Titles, artists and albums are drawn from a vocabulary whose words are as unevenly common as those of real titles; some have
accents, are Japanese, Korean or Russian, consist of signs, or are live and remastered versions.  Queries are of the kinds that
people type: with typing errors, without accents, words in another order, file names, beginnings, and names that are not there.

    python -m bench.names --songs 100000
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from bench.report import circumstances, table, write_results

SEED, A_KIND, CLIPS_A_SONG, CHANGED = 7, 40, 2, 100
COMMON: list[str] = """
love night day heart time dream girl man fire rain world road home light moon sun blue black summer winter dance song baby life
death angel devil river city street star sky ocean the a of in my your me you we for on to and no never always gone again
tonight forever young wild free lost broken golden silver little last first theme intro
""".split()  # noqa: SIM905
ONSETS = (*"bcdfghjklmnprstvw", "br", "ch", "cl", "dr", "fl", "gr", "pl", "sh", "sl", "st", "th", "tr")
VOWELS = (*"aeiou", "ai", "ea", "ee", "oo", "ou")
ENDS = ["", "", "n", "r", "l", "s", "t", "nd", "rk", "m"]
ACCENTS = str.maketrans("aeioun", "áéíöüñ")
JAPANESE = "月光夜空花火海風雪星夢愛心春夏秋冬桜雨涙旅道影声歌恋君僕時空森山川灯"
KOREAN = "사랑하늘바다봄여름가을겨울별밤꿈비눈길노래마음"
LATIN = {
    "ночь": "noch", "луна": "luna", "звезда": "zvezda", "огонь": "ogon", "дождь": "dozhd", "город": "gorod", "дорога": "doroga",
    "сердце": "serdce", "любовь": "lyubov", "зима": "zima", "весна": "vesna", "река": "reka", "ветер": "veter", "небо": "nebo",
    "море": "more", "снег": "sneg", "птица": "ptica", "кино": "kino",
}
MARKS = ("(Live)", "(Live at {})", "- Remastered 2011", "(2009 Remaster)", "[Live 1975]", "- Live in {}")


@dataclass(frozen=True)
class Song:
    title: str
    artist: str
    album: str
    file: str
    plain: str                           # the title without a mark of its version


@dataclass(frozen=True)
class Asked:
    """A query with the song that it is about; None if the lake has no such song."""

    kind: str
    words: str
    song: Song | None


class Maker:
    """Makes songs and queries; the same seed makes the same ones."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rare = [self.word() for _ in range(6_000)]
        self.artists = [self.artist() for _ in range(9_000)]

    def word(self) -> str:
        draw = self.random.choice
        return "".join(draw(ONSETS) + draw(VOWELS) + draw(ENDS) for _ in range(self.random.choice((1, 1, 2, 2, 3))))

    def words(self, count: int) -> str:
        drawn = []
        for _ in range(count):
            source = COMMON if self.random.random() < 0.55 else self.rare
            drawn.append(source[int(len(source) * self.random.random() ** 1.6)])
        return " ".join(drawn).title()

    def artist(self) -> str:
        name = " ".join(self.random.choice(self.rare) for _ in range(self.random.choice((1, 2, 2)))).title()
        if self.random.random() < 0.15:
            name = f"The {name}"
        return name.translate(ACCENTS) if self.random.random() < 0.06 else name

    def title(self) -> str:
        kind = self.random.random()
        if kind < 0.03:
            return "".join(self.random.choices(JAPANESE, k=self.random.choice((1, 2, 2, 3, 4, 5))))
        if kind < 0.04:
            return "".join(self.random.choices(KOREAN, k=self.random.choice((2, 3, 4))))
        if kind < 0.06:
            return " ".join(self.random.choices([*LATIN], k=self.random.choice((2, 3)))).title()
        if kind < 0.0602:
            return self.random.choice(("!!!", "???", "...", "$$$", "*", "[ ]", "+", "!?"))
        title = self.words(self.random.choices((1, 2, 3, 4, 5, 6), (10, 30, 28, 18, 9, 5))[0])
        return title.translate(ACCENTS) if kind > 0.94 else title

    def songs(self, count: int) -> list[Song]:
        made: list[Song] = []
        while len(made) < count:
            artist, album = self.random.choice(self.artists), self.words(self.random.choice((1, 2, 3)))
            for number in range(1, self.random.randint(4, 14)):
                plain = self.title()
                names = [plain]
                if self.random.random() < 0.08:
                    names.append(f"{plain} {self.random.choice(MARKS).format(self.words(1))}")
                for title in names:
                    file = self.random.choice((
                        f"{number:02d} - {title}", f"{number:02d} {title}", f"{artist} - {title}",
                        f"{artist} - {album} - {number:02d} - {title}", title.replace(" ", "_"),
                    )).replace("/", "-") + self.random.choice((".mp3", ".flac", ".m4a"))
                    made.append(Song(title, artist, album if title == plain else f"{album} Live", file, plain))
        return made[:count]

    def typo(self, text: str) -> str:
        """A text with one letter left out, doubled, replaced or exchanged with the next."""
        place = self.random.randrange(len(text) - 1)
        a, b = text[place : place + 2]
        return text[:place] + self.random.choice((b, a + a + b, self.random.choice("aeiourstn") + b, b + a)) + text[place + 2 :]

    def queries(self, songs: list[Song]) -> list[Asked]:
        latin = [song for song in songs if song.title.isascii() and len(song.plain) > 3 and song.plain[0].isalpha()]
        long = [song for song in latin if len(song.plain) > 11]
        short = [song for song in latin if 5 <= len(song.plain) <= 7]
        accents = [song for song in songs if any("à" <= c <= "ÿ" for c in song.plain + song.artist)]
        asian = [song for song in songs if song.title[0] > "\u3000"]
        russian = [song for song in songs if "\u0400" < song.title[0] < "\u0500"]
        signs = [song for song in songs if not any(c.isalnum() for c in song.title)]
        lower = str.lower
        kinds: dict[str, tuple[list[Song], Callable[[Song], str]]] = {
            "title": (long, lambda s: lower(s.plain)),
            "title and artist": (latin, lambda s: lower(f"{s.plain} {s.artist}")),
            "artist, title": (latin, lambda s: f"{s.artist} - {s.title}"),
            "one typing error, title": (long, lambda s: self.typo(lower(s.plain))),
            "one typing error, short title": (short, lambda s: self.typo(lower(s.plain))),
            "short title with artist, error": (short, lambda s: self.typo(lower(s.plain)) + " " + lower(s.artist)),
            "two errors, with artist": (latin, lambda s: self.typo(lower(s.plain)) + " " + self.typo(lower(s.artist))),
            "without accents": (accents, lambda s: lower(strip(f"{s.plain} {s.artist}"))),
            "without spaces": (long, lambda s: lower(s.plain).replace(" ", "")),
            "other order of words": (long, lambda s: self.shuffled(f"{s.plain} {s.artist}")),
            "beginning of the title": (long, lambda s: lower(s.plain)[: len(s.plain) * 2 // 3]),
            "file name": (songs, lambda s: s.file),
            "song with words of a site": (long, lambda s: f"{s.artist} - {s.plain} (Official Video)"),
            "Japanese and Korean": (asian, lambda s: f"{s.plain} {s.artist}"),
            "Russian in Latin letters": (russian, lambda s: f"{in_latin(s.plain)} {s.artist}"),
            "signs with artist": (signs, lambda s: f"{s.plain} {s.artist}"),
        }
        asked = [
            Asked(kind, say(song), song)
            for kind, (among, say) in kinds.items() for song in self.random.choices(among, k=A_KIND)
        ]
        known = {song.plain.lower() for song in songs}
        while len(asked) < (len(kinds) + 2) * A_KIND:
            words = " ".join(self.word() for _ in range(2)) if len(asked) % 2 else f"{self.words(2)} {self.word()}".lower()
            if words not in known:
                asked.append(Asked("not in the lake", words, None))
        return asked

    def shuffled(self, text: str) -> str:
        words = text.lower().split()
        self.random.shuffle(words)
        return " ".join(words)


def in_latin(text: str) -> str:
    return " ".join(LATIN[word] for word in text.lower().split())


def strip(text: str) -> str:
    import unicodedata

    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def clip_rows(songs: list[Song]) -> pl.DataFrame:
    """Rows of clips: CLIPS_A_SONG of each song."""
    return pl.DataFrame({
        "clip_id": [f"{number:012x}{clip:04x}" for number in range(len(songs)) for clip in range(CLIPS_A_SONG)],
        "track": [f"{number}/{song.file}" for number, song in enumerate(songs) for _ in range(CLIPS_A_SONG)],
        "source": [f"/music/{number}/{song.file}" for number, song in enumerate(songs) for _ in range(CLIPS_A_SONG)],
        "digest": [f"{number:032x}" for number in range(len(songs)) for _ in range(CLIPS_A_SONG)],
        "start_s": [30.0 * clip for _ in songs for clip in range(CLIPS_A_SONG)],
        "duration_s": [30.0] * (len(songs) * CLIPS_A_SONG),
        **{
            column: [None if column == "title" and number % 20 == 0 else getattr(song, column)
                     for number, song in enumerate(songs) for _ in range(CLIPS_A_SONG)]
            for column in ("title", "artist", "album")
        },
    })


def is_answer(found: object, song: Song) -> bool:
    """Whether a found song is the wanted one or a version of it: the same artist and a title that contains its own."""
    from tonelake.index.names.normalise import fold, squeeze

    title, plain = (squeeze(fold(text)) for text in (found.title, song.plain))              # type: ignore[attr-defined]
    return found.artist == song.artist and plain in title                                    # type: ignore[attr-defined]


def judge(lake: object, asked: list[Asked]) -> tuple[dict[str, Counter[str]], list[float]]:
    """Counts by kind of query (first, among_ten, taken right, taken wrong, asked, none), and milliseconds of each query."""
    from tonelake.index.names.find import match_songs
    from tonelake.index.names.rank import decide

    counts: dict[str, Counter[str]] = {}
    times = []
    for query in asked:
        start = time.perf_counter()
        songs = match_songs(lake, query.words)               # type: ignore[arg-type]
        times.append(1000 * (time.perf_counter() - start))
        count = counts.setdefault(query.kind, Counter())
        decision = decide(songs, literally=False)
        right = [query.song is not None and is_answer(song, query.song) for song in songs[:10]]
        count["queries"] += 1
        count["first"] += bool(right[:1] == [True])
        count["among ten"] += any(right)
        taken = "taken, right" if right[:1] == [True] else "taken, wrong"
        count[{"one": taken, "several": "asked", "none": "none"}[decision]] += 1
    return counts, times


def size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    from tonelake.index.names.find import match_songs
    from tonelake.store import Lake

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--songs", type=int, default=100_000)
    given = parser.parse_args()
    maker = Maker(SEED)
    songs = maker.songs(given.songs)
    asked = maker.queries(songs)
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        for part in clip_rows(songs).iter_slices(40_000):
            lake.clips.add(part)

        def seconds(words: str, opened: Lake) -> float:
            start = time.perf_counter()
            match_songs(opened, words)
            return time.perf_counter() - start

        build_s = seconds("love theme", lake)
        built_mb = size_mb(Path(folder) / "lake" / "names.lance")
        busy = time.process_time()
        counts, times = judge(lake, asked)
        busy_ms = 1000 * (time.process_time() - busy) / len(asked)
        first_ms = 1000 * seconds("love theme", Lake(lake.uri))
        changed = lake.clips.read(["clip_id"]).gather_every(CLIPS_A_SONG * 7).head(CHANGED)
        lake.clips.set_labels(changed.with_columns(title=pl.lit("Renamed ") + pl.col("clip_id")))
        sync_s = seconds("renamed 000000000", lake)
        after = statistics.median(1000 * seconds(query.words, lake) for query in asked[::9])
    total = sum(counts.values(), Counter())
    there = Counter({key: value - counts["not in the lake"][key] for key, value in total.items()})
    cuts = statistics.quantiles(times, n=20)
    figures = {
        "songs": given.songs, "queries": total["queries"], "p50_ms": statistics.median(times), "p95_ms": cuts[-1],
        "processor_ms_a_query": busy_ms, "load_per_core": os.getloadavg()[1] / (os.cpu_count() or 1),
        "first_query_of_a_process_ms": first_ms, "p50_after_sync_ms": after, "build_s": build_s, "sync_100_s": sync_s,
        "table_and_index_mb": built_mb,
        "first_share": there["first"] / there["queries"], "among_ten_share": there["among ten"] / there["queries"],
        "taken_wrong_share": total["taken, wrong"] / total["queries"],
    }
    columns = ("queries", "first", "among ten", "taken, right", "taken, wrong", "asked", "none")
    rows = [[kind, *(str(count[name]) for name in columns)] for kind, count in [*counts.items(), ("all", total)]]
    speed = [[key, f"{value:,.3g}" if isinstance(value, float) else f"{value:,}"] for key, value in figures.items()]
    text = f"{table(['kind of query', *columns], rows)}\n\n{table(['figure', 'value'], speed)}\n\n" + (
        "*first*, *among ten*: the wanted song, or another version of it, is listed first, or among ten.  *taken*: one song\n"
        "was clearly ahead; *asked*: several were near; *none*: no name was near.  Titles share a small vocabulary, so many\n"
        "are near one another."
    )
    print(text)
    write_results(
        "names", "Songs by name", text, circumstances(f"songs and queries from seed {SEED}"), {}, figures=figures,
        kinds={kind: dict(count) for kind, count in counts.items()},
    )


if __name__ == "__main__":
    main()
