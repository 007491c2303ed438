"""Match songs of a music server to files of a lake, each to at most one of the other: by path, then by tags and duration.

By path: the folders and names that two paths share at their ends are counted, in any case and any Unicode normal form, since a
server reports paths below its own folder, or invents them.  Pairs that share most come first.  A pair that shares its name
alone has to agree in size or tags; one that shares two parts must not contradict in title or length; more parts, or all parts
of the server's path, count on their own.

By tags: the same title and artist, compared without case, punctuation and spaces, and a duration that differs by at most
TOLERANCE_S.  Several songs or files with the same tags are kept apart by size, album and track number.

Whatever leaves a choice is not guessed: such songs are returned as ambiguous, with the files that they could be.  Files with
the same recording are not a choice, nor are songs about which the server says the same: the first of them is taken.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tonelake.ingest.subsonic.songs import ServerSong

TOLERANCE_S = 2.0                        # servers round to seconds, and lengths of VBR files without a header are estimates
FEW_PARTS = 2                            # shared parts of paths that need the agreement of title and length
MOST_PAIRS = 100_000                     # of files and songs of one name, above which only those of one size are compared

Length = Callable[[str], float | None]   # the length of a file in seconds by its header; None where it has none


@dataclass(frozen=True, kw_only=True)
class LakeFile:
    """A file of the lake, as far as it is compared."""

    source: str
    path: str                            # with `/` between folders
    recording: str | None = None
    is_missing: bool = False
    size: int | None = None
    title: str | None = None
    artists: tuple[str, ...] = ()        # and the album's artist
    album: str | None = None
    track_number: int | None = None
    reach_s: float = 0.0                 # where its last clip ends: it is at least that long


@dataclass(frozen=True, kw_only=True)
class Matches:
    """Sources by the id of their song, and sources that a song could be by the id of each ambiguous one."""

    by_path: Mapping[str, str] = field(default_factory=dict)
    by_tags: Mapping[str, str] = field(default_factory=dict)
    ambiguous: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def source_of(self) -> dict[str, str]:
        """All that are matched."""
        return {**self.by_path, **self.by_tags}


class _Pair(NamedTuple):
    song: ServerSong
    file: LakeFile


def match_songs(songs: Sequence[ServerSong], files: Sequence[LakeFile], length: Length = lambda _: None) -> Matches:
    """Match songs to files, as the module says.  `length` is asked for files that have the tags of a song."""
    by_path, unclear = match_by_path(songs, files)
    taken = set(by_path.values())
    rest = [song for song in songs if song.id not in by_path]
    by_tags, unclear_tags = match_by_tags(rest, [file for file in files if file.source not in taken], length)
    taken |= set(by_tags.values())
    ambiguous = {
        song: left for song, sources in {**unclear, **unclear_tags}.items()
        if song not in by_tags and (left := tuple(source for source in sources if source not in taken))
    }
    return Matches(by_path=by_path, by_tags=by_tags, ambiguous=ambiguous)


def match_by_path(
    songs: Iterable[ServerSong], files: Iterable[LakeFile]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """(source by id, sources by id of ambiguous songs)."""
    left_songs = {song.id: (song, parts(song.path)) for song in songs if song.path}
    left_files = {file.source: (file, parts(file.path)) for file in files}
    ends: dict[tuple[str, ...], list[str]] = defaultdict(list)       # sources by each of the endings of their paths
    for source, (_, folded) in left_files.items():
        for first in range(len(folded)):
            ends[folded[first:]].append(source)
    found: dict[str, str] = {}
    unclear: dict[str, tuple[str, ...]] = {}
    for shared in range(max((len(folded) for _, folded in left_songs.values()), default=0), 0, -1):
        groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for song, (_, folded) in left_songs.items():
            if len(folded) >= shared and folded[-shared:] in ends:
                groups[folded[-shared:]].append(song)
        for end, group in groups.items():
            candidates = [left_files[source][0] for source in ends[end] if source in left_files]
            pairs = [
                _Pair(left_songs[song][0], file) for song, file in _combined(group, candidates, left_songs)
                if _may_share(left_songs[song][0], file, shared, whole=shared == len(left_songs[song][1]))
            ]
            for pair in distinct(pairs, _path_ranks):
                found[pair.song.id] = pair.file.source
                unclear.pop(pair.song.id, None)
                del left_songs[pair.song.id], left_files[pair.file.source]
            for pair in pairs:
                if pair.song.id in left_songs and pair.file.source in left_files:
                    unclear.setdefault(pair.song.id, tuple(
                        other.file.source for other in pairs if other.song.id == pair.song.id
                    ))
    return found, unclear


def match_by_tags(
    songs: Iterable[ServerSong], files: Iterable[LakeFile], length: Length
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """(source by id, sources by id of ambiguous songs)."""
    of_tags: dict[tuple[str, str], dict[str, LakeFile]] = defaultdict(dict)
    for file in files:
        for key in tag_keys(file.title, file.artists):
            of_tags[key][file.source] = file
    lengths: dict[str, float | None] = {}
    pairs: list[_Pair] = []
    for song in songs:
        artists = song.artists + ((song.album_artist,) if song.album_artist else ())
        candidates = {source: file for key in tag_keys(song.title, artists) for source, file in of_tags.get(key, {}).items()}
        for source, file in candidates.items():
            if song.size is None or song.size != file.size:
                if source not in lengths:
                    lengths[source] = length(source)
                if not _lasts(song, file, lengths[source]):
                    continue
            pairs.append(_Pair(song, file))
    found: dict[str, str] = {}
    for group in _connected(pairs):
        found |= {pair.song.id: pair.file.source for pair in distinct(group, _tag_ranks)}
    taken = set(found.values())
    unclear: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.song.id not in found and pair.file.source not in taken:
            unclear[pair.song.id].append(pair.file.source)
    return found, {song: tuple(sources) for song, sources in unclear.items()}


def distinct(pairs: Sequence[_Pair], ranks: Callable[[_Pair], tuple[int, ...]]) -> list[_Pair]:
    """Pairs that are the best for their song and for their file alike, and the only best; `ranks`: higher is better.

    A chosen pair takes its song and its file away from the others, so this is repeated until nothing changes.  Where several
    are the best and their files have one recording, the first counts.
    """
    chosen: list[_Pair] = []
    left = [((*ranks(pair), int(not pair.file.is_missing)), pair) for pair in pairs]
    while left:
        best: dict[tuple[str, str], list[tuple[int, ...]]] = defaultdict(list)
        for rank, pair in left:
            for key in (("song", pair.song.id), ("file", pair.file.source)):
                best[key].append(rank)
        tops = {key: (max(found), found.count(max(found))) for key, found in best.items()}
        found = [
            pair for rank, pair in left
            if tops["song", pair.song.id] == (rank, 1) and tops["file", pair.file.source] == (rank, 1)
        ]
        if not found:
            found = _first_of_copies([pair for rank, pair in left if tops["song", pair.song.id][0] == rank])
        if not found:
            break
        chosen += found
        songs, sources = {pair.song.id for pair in found}, {pair.file.source for pair in found}
        left = [(rank, pair) for rank, pair in left if pair.song.id not in songs and pair.file.source not in sources]
    return chosen


def parts(path: str) -> tuple[str, ...]:
    r"""The folders and the name of a path, to be compared.

    >>> parts("/Music/Be\u0301la/A.MP3"), parts("./a//b.mp3")
    (('music', 'béla', 'a.mp3'), ('a', 'b.mp3'))
    """
    return tuple(folded(part) for part in path.split("/") if part not in ("", "."))


def folded(text: str) -> str:
    """Text to be compared in any case and normal form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def name_key(text: str | None) -> str:
    """A title or name without case, punctuation and spaces; the whole text if nothing is left.

    >>> name_key("Don't Stop (Live)"), name_key("DON’T STOP  LIVE"), name_key("!!!"), name_key(None)
    ('dontstoplive', 'dontstoplive', '!!!', '')
    """
    whole = unicodedata.normalize("NFKC", text or "").casefold().strip()
    return "".join(c for c in whole if unicodedata.category(c)[0] in "LNM") or whole


def tag_keys(title: str | None, artists: Iterable[str]) -> list[tuple[str, str]]:
    """(title, artist) for each artist, to be compared; [] without a title or an artist."""
    key = name_key(title)
    return [(key, artist) for artist in dict.fromkeys(name_key(artist) for artist in artists) if key and artist]


def _first_of_copies(pairs: Sequence[_Pair]) -> list[_Pair]:
    """A pair in which nothing is left to choose: [it], or [].

    Its song could be files of one recording alone, and there are enough of them for all songs that could be it, or these songs
    are copies too, as in two folders of the server.
    """
    recordings: dict[str, set[str | None]] = defaultdict(set)
    sources: dict[str, set[str]] = defaultdict(set)
    songs: dict[str, set[str]] = defaultdict(set)
    kinds: dict[str, set[tuple]] = defaultdict(set)
    for song, file in pairs:
        recordings[song.id].add(file.recording)
        sources[song.id].add(file.source)
        songs[file.source].add(song.id)
        kinds[file.source].add((song.title, song.artists, song.album, song.duration_s, song.size))
    clear = [
        pair for pair in pairs
        if len(recordings[pair.song.id]) == 1 and None not in recordings[pair.song.id]
        and (len(songs[pair.file.source]) <= len(sources[pair.song.id]) or len(kinds[pair.file.source]) == 1)
    ]
    return [min(clear, key=lambda pair: pair.song.id)] if clear else []


def _combined(
    group: Sequence[str], files: Sequence[LakeFile], songs: Mapping[str, tuple[ServerSong, tuple[str, ...]]]
) -> Iterable[tuple[str, LakeFile]]:
    """Each song with each file; where there are very many, with those of its size."""
    if len(group) * len(files) <= MOST_PAIRS:
        return ((song, file) for song in group for file in files)
    of_size: dict[int | None, list[LakeFile]] = defaultdict(list)
    for file in files:
        of_size[file.size].append(file)
    sizes = {song: songs[song][0].size for song in group}
    return ((song, file) for song in group if sizes[song] is not None for file in of_size.get(sizes[song], ()))


def _may_share(song: ServerSong, file: LakeFile, shared: int, whole: bool) -> bool:
    """Whether a song and a file whose paths share `shared` parts may be the same; `whole`: all of the server's path."""
    same_size = song.size is not None and song.size == file.size
    if same_size:
        return True
    too_short = song.duration_s is not None and file.reach_s > song.duration_s + TOLERANCE_S
    titles = name_key(song.title), name_key(file.title)
    same_title = titles[0] == titles[1] if all(titles) else None
    if shared == 1 and not whole:
        return bool(same_title) and not too_short and bool(
            {*tag_keys(song.title, song.artists)} & {*tag_keys(file.title, file.artists)}
        )
    if shared <= FEW_PARTS:
        return not too_short and same_title is not False
    return not too_short


def _path_ranks(pair: _Pair) -> tuple[int, ...]:
    song, file = pair
    return (
        int(song.size is not None and song.size == file.size), _equal_ends(song.path, file.path),
        int(bool(song.title) and name_key(song.title) == name_key(file.title)), int(song.track_number == file.track_number),
    )


def _tag_ranks(pair: _Pair) -> tuple[int, ...]:
    song, file = pair
    albums = name_key(song.album), name_key(file.album)
    return (
        int(song.size is not None and song.size == file.size), int(bool(albums[0]) and albums[0] == albums[1]),
        int(song.track_number is not None and song.track_number == file.track_number),
    )


def _equal_ends(path: str, other: str) -> int:
    """Number of parts at the end that are equal letter by letter, but for normal forms."""
    pairs = zip(reversed(path.split("/")), reversed(other.split("/")), strict=False)
    count = 0
    for one, two in pairs:
        if unicodedata.normalize("NFC", one) != unicodedata.normalize("NFC", two):
            break
        count += 1
    return count


def _lasts(song: ServerSong, file: LakeFile, length_s: float | None) -> bool:
    """Whether the duration that a server states fits a file.  A song without one needs the same album."""
    if song.duration_s is None:
        return bool(name_key(song.album)) and name_key(song.album) == name_key(file.album)
    if length_s is None:                 # it is at least as long as its clips reach
        return file.reach_s <= song.duration_s + TOLERANCE_S and file.reach_s > 0
    return abs(song.duration_s - length_s) <= TOLERANCE_S


def _connected(pairs: Sequence[_Pair]) -> Iterable[list[_Pair]]:
    """Pairs in groups that share no song and no file."""
    root: dict[Any, Any] = {}

    def find(key: Any) -> Any:
        root.setdefault(key, key)
        while root[key] != key:
            root[key] = root[root[key]]
            key = root[key]
        return key

    for pair in pairs:
        root[find(("song", pair.song.id))] = find(("file", pair.file.source))
    groups: dict[Any, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        groups[find(("song", pair.song.id))].append(pair)
    return groups.values()
