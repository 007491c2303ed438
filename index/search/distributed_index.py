"""Build an index inside a lake's table on a Ray cluster: workers encode, one commit adds their work to the table.

    centroids, a rotation (the driver)  ->  a segment of some fragments each (workers)  ->  one segment (a worker)  ->  commit

A segment is a set of files that no version of the table knows before the commit, so a run that is killed, or fails, leaves the
table as it was.  Segments of a run that fails are removed at once; those of a killed run, or of a commit that failed, by Lance
a week later.  A fragment that another process replaced meanwhile (compaction) makes the commit a conflict, and the table's
`commit` has everything built again.  The common rotation makes codes of all segments comparable, so the merged index equals one
that a single process builds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tonelake.store import Lake, Space, is_local, prepare_process

if TYPE_CHECKING:
    from tonelake.embed import Cluster

SEGMENTS_A_TASK = 2                      # segments for each task that can run at once: evens out fast and slow nodes
THREADS = "LANCE_CPU_THREADS"            # Lance's own variable, read when it first computes


def create_on_cluster(cluster: Cluster, lake: Lake, space: Space, column: str, options: dict[str, Any]) -> None:
    """Add an index of all fragments of a space's table, in one commit.

    `options`: those of Lance's `create_index`, with `ivf_centroids` of (list, dim) float32.  Raises Lance's error if another
    commit conflicts with this one, EncoderError if the cluster fails.
    """
    from lance.lance import indices

    dataset = lake.vectors(space).table.dataset()
    fragments = {fragment.fragment_id: fragment.physical_rows for fragment in dataset.get_fragments()}
    tasks, cpus = cluster.shares()
    rotation = indices.build_rq_model(dimension=options["ivf_centroids"].shape[1], num_bits=options["num_bits"])
    options = options | {"rabitq_model": rotation}
    place = (lake.uri, space.name, dataset.version, cpus)
    segments: list[Any] = []
    try:
        parts = split_fragments(fragments, SEGMENTS_A_TASK * tasks)
        for segment in cluster.run_calls(build_segment, [(*place, column, part, options) for part in parts], cpus):
            segments.append(segment)
        whole = segments[0]
        if len(segments) > 1:
            whole, = cluster.run_calls(merge_segments, [(*place, segments)], cpus)
    except BaseException:
        remove_segments(lake, space, segments)
        raise
    try:
        dataset.commit_existing_index_segments(options["name"], column, [whole])
    finally:                             # never `whole`: a commit whose answer was lost may have succeeded
        remove_segments(lake, space, [segment for segment in segments if segment.uuid != whole.uuid])


def build_segment(
    lake: str, space: str, version: int, cpus: int, column: str, fragments: Sequence[int], options: dict[str, Any]
) -> Any:
    """Encode the rows of some fragments into a segment that is not committed; return its description.  Runs on a worker."""
    dataset = open_version(lake, space, version, cpus)
    return dataset.create_index_uncommitted(column, "IVF_RQ", fragment_ids=list(fragments), **options)


def merge_segments(lake: str, space: str, version: int, cpus: int, segments: Sequence[Any]) -> Any:
    """Write segments as one that is not committed; return its description.  Runs on a worker, which copies all codes."""
    return open_version(lake, space, version, cpus).merge_existing_index_segments(list(segments))


def open_version(lake: str, space: str, version: int, cpus: int) -> Any:
    """Open a version of a space's table in a worker, as a Lance dataset that computes on `cpus` threads."""
    os.environ.setdefault(THREADS, str(cpus))
    prepare_process()
    opened = Lake(lake, create=False)
    return opened.vectors(opened.spaces.get(space)).table.dataset().checkout_version(version)


def split_fragments(rows: dict[int, int], most: int) -> list[list[int]]:
    """Divide fragments, given by their numbers of rows, into at most `most` parts of similar numbers of rows.

    >>> split_fragments({0: 100, 1: 10, 2: 40, 3: 50}, 2), split_fragments({7: 5}, 4)
    ([[0], [1, 2, 3]], [[7]])
    """
    parts: list[list[int]] = [[] for _ in range(min(most, len(rows)))]
    sizes = [0] * len(parts)
    for fragment in sorted(rows, key=lambda fragment: -rows[fragment]):
        smallest = sizes.index(min(sizes))
        parts[smallest].append(fragment)
        sizes[smallest] += rows[fragment]
    return [sorted(part) for part in parts]


def remove_segments(lake: Lake, space: Space, segments: Sequence[Any]) -> None:
    """Remove the files of segments that no version of the table has.  Raises nothing: Lance removes what is left."""
    for segment in segments:
        folder = f"{space.table_name}.lance/_indices/{segment.uuid}"
        with contextlib.suppress(Exception):
            for file in segment.files or ():
                lake.files(folder).remove(file.path)
            if is_local(lake.uri):
                (Path(lake.uri) / folder).rmdir()
