"""Read a column of vectors directly from the pages of Lance's files, at the speed of the disk cache.

A column of FixedSizeLists without nulls is stored in a Lance file as it is in memory, page after page.  If the table is on a
local disk and was written that way, threads read the pages into place, and nothing is decoded or copied twice: twice the speed
of a scan.  The layout of a page is read from the file, and the first and last row of each file are compared with those that
Lance itself returns; a file with any other layout is left to Lance.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tonelake.store.blobs import is_local
from tonelake.store.machine import cores

THREADS = min(8, cores())
PIECE_BYTES = 8 << 20                    # bytes per read
CONVERTED_BYTES = 1 << 20                # bytes per read if they are converted afterwards, while in the cache


class Page(NamedTuple):
    """Consecutive rows of a column in a file."""

    path: Path
    offset: int                          # bytes
    rows: int


_layouts: dict[tuple[str, int, int], list[Page] | None] = {}         # Lance never changes a file once it is written


def read_column(dataset: Any, column: str, dtype: str) -> np.ndarray | None:
    """Read a FixedSizeList column as (row, dim) of `dtype`, in table order; None if Lance has to read it."""
    kind = dataset.schema.field(column).type
    stored, dim = np.dtype(kind.value_type.to_pandas_dtype()), kind.list_size
    pages = find_pages(dataset, column, stored.itemsize * dim)
    if pages is None:
        return None
    out = np.empty((sum(page.rows for page in pages), dim), dtype)
    jobs, row = [], 0
    step = max(1, (PIECE_BYTES if stored == dtype else CONVERTED_BYTES) // (stored.itemsize * dim))
    for page in pages:
        for first in range(0, page.rows, step):
            count = min(step, page.rows - first)
            jobs.append((page.path, page.offset + first * stored.itemsize * dim, out[row + first : row + first + count]))
        row += page.rows
    files = {page.path: os.open(page.path, os.O_RDONLY) for page in pages}
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda job: read_piece(files[job[0]], job[1], job[2], stored), jobs))
    finally:
        for descriptor in files.values():
            os.close(descriptor)
    return out


class MappedColumn:
    """A FixedSizeList column that is read from the disk where it is indexed, by a slice or an array of rows, as (row, dim).

    For a layer larger than memory: the system keeps what it has memory for.
    """

    def __init__(self, pages: list[Page], dim: int, dtype: np.dtype) -> None:
        files = {page.path: np.memmap(page.path, np.uint8, "r") for page in pages}
        size = dim * dtype.itemsize
        self._pages = [
            files[page.path][page.offset : page.offset + page.rows * size].view(dtype).reshape(page.rows, dim) for page in pages
        ]
        self._starts = np.cumsum([0, *(page.rows for page in pages)])
        self.shape, self.dtype = (int(self._starts[-1]), dim), dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        wanted = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else np.asarray(rows)
        out = np.empty((len(wanted), self.shape[1]), self.dtype)
        order = np.argsort(wanted, kind="stable")
        cuts = np.searchsorted(wanted, self._starts, sorter=order)
        for page, start, first, last in zip(self._pages, self._starts, cuts, cuts[1:], strict=False):
            if first < last:
                some = order[first:last]
                out[some] = page[wanted[some] - start]
        return out


def map_column(dataset: Any, column: str) -> MappedColumn | None:
    """Map a FixedSizeList column into memory, in table order; None if Lance has to read it."""
    kind = dataset.schema.field(column).type
    stored, dim = np.dtype(kind.value_type.to_pandas_dtype()), kind.list_size
    pages = find_pages(dataset, column, stored.itemsize * dim)
    if pages is None or any(page.offset % stored.itemsize for page in pages):
        return None
    return MappedColumn(pages, dim, stored)


def read_piece(descriptor: int, offset: int, target: np.ndarray, stored: np.dtype) -> None:
    """Fill `target`, contiguous rows, from an offset in a file."""
    raw = target if target.dtype == stored else np.empty(target.shape, stored)
    view: Any = memoryview(raw.reshape(-1).view(np.uint8).data)
    while len(view):
        got = os.preadv(descriptor, [view], offset)
        if not got:
            raise OSError("a file of the lake is shorter than its table of contents says")
        view, offset = view[got:], offset + got
    if raw is not target:
        target[...] = raw


def find_pages(dataset: Any, column: str, width: int) -> list[Page] | None:
    """The pages of a column whose rows are `width` bytes each; None if the files are not laid out that way."""
    if not is_local(dataset.uri) or not hasattr(os, "preadv"):
        return None
    found: list[Page] = []
    for fragment in dataset.get_fragments():
        about = fragment.metadata
        if about.deletion_file is not None or len(about.files) != 1 or not about.physical_rows:
            return None
        file = about.files[0]
        path = Path(dataset.uri) / "data" / file.path
        field = dataset.schema.get_field_index(column)
        key = (str(path), field, width)
        if key not in _layouts:
            _layouts[key] = file_pages(path, fragment, column, field, width)
        pages = _layouts[key]
        if pages is None:
            return None
        found += pages
    return found or None


def file_pages(path: Path, fragment: Any, column: str, field: int, width: int) -> list[Page] | None:
    """The pages of a column in one file, checked; None if they hold anything but plain rows."""
    from lance.file import LanceFileReader

    about = fragment.metadata
    file = about.files[0]
    try:
        names = [f.name for f in fragment.schema]
        number = file.column_indices[names.index(column)]
        contents = LanceFileReader(str(path)).metadata().columns[number]
    except (OSError, ValueError, IndexError, RuntimeError):
        return None
    pages = []
    for page in contents.pages:
        plain = "bits_rep: 0" in page.encoding and "bits_def: 0" in page.encoding and "Flat" in page.encoding
        if not plain or len(page.buffers) != 1 or page.buffers[0].size % width:
            return None
        pages.append(Page(path, page.buffers[0].position, page.buffers[0].size // width))
    if sum(page.rows for page in pages) != about.physical_rows:
        return None
    first, last = fragment.take([0, about.physical_rows - 1], columns=[column]).column(0).chunk(0).flatten().to_numpy(
        zero_copy_only=False
    ).reshape(2, -1)
    with path.open("rb") as data:
        for page, row, expected in ((pages[0], 0, first), (pages[-1], pages[-1].rows - 1, last)):
            data.seek(page.offset + row * width)
            if data.read(width) != expected.tobytes():
                return None
    return pages
