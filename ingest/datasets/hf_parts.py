"""Open a Hugging Face data set from files of this machine, split by split and a few rows at a time.

A folder written by `save_to_disk`, a folder of parquet or arrow files, such as a clone of a data set's repository, one parquet
file, or a data set in the cache of `datasets` or of the hub.  No code of a data set is run, nothing is unpickled and nothing
is downloaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.store import InputError, import_extra

BATCH_ROWS = 16                          # rows in memory at once: each may hold the bytes of a whole file
TABLES = (".parquet", ".arrow")


@dataclass(kw_only=True)
class Part:
    """One split of a data set: its columns, its number of rows and the rows in batches."""

    split: str | None
    features: Mapping[str, Any]
    rows: int
    batches: Iterator[Any]               # pyarrow tables or record batches
    root: Path | None = None             # folder that relative paths of audio start from


def open_parts(path: str, config: str | None) -> list[Part]:
    """The splits of a data set.  Raises InputError with the remedy if it cannot be read."""
    datasets = import_extra("datasets", "hf", "Hugging Face data sets")
    place = Path(path).expanduser().absolute()
    try:
        if (place / "dataset_dict.json").is_file() or (place / "state.json").is_file():
            return parts_of_dataset(datasets.load_from_disk(str(place)))
        if place.is_dir():
            return parts_of_folder(datasets, place, config)
        if place.is_file():
            if place.suffix != ".parquet":
                raise InputError(f"{place}: is not a parquet file. Name a folder, a .parquet file or a cached data set")
            return [part_of_files(datasets, None, None, [str(place)], place.parent)]
        if "\\" in path or path.count("/") > 1 or path.startswith((".", "/", "~")):
            raise InputError(f"{place}: does not exist. Name a folder, a .parquet file or a cached data set (owner/name)")
        snapshot = cached_snapshot(path)
        if snapshot is not None:
            return parts_of_folder(datasets, snapshot, config)
        return parts_of_dataset(datasets.load_dataset(path, name=config))
    except InputError:
        raise
    except Exception as error:           # of `datasets`, of pyarrow, of the hub's client
        raise InputError(f"{path}: cannot be read as a Hugging Face data set ({type(error).__name__}: {error})") from error


def parts_of_dataset(loaded: Any) -> list[Part]:
    """The splits of a data set that `datasets` has opened; one without splits has none."""
    splits = loaded.items() if hasattr(loaded, "keys") else [(str(loaded.split) if loaded.split else None, loaded)]
    return [
        Part(
            split=split, features=part.features, rows=len(part),
            batches=part.with_format("arrow").iter(batch_size=BATCH_ROWS),
        )
        for split, part in splits
    ]


def parts_of_folder(datasets: Any, folder: Path, config: str | None) -> list[Part]:
    """The splits of a folder of tables, found as `datasets` does: by names of files, or by the YAML of its README."""
    if not has_tables(folder):
        raise InputError(
            f"{folder}: holds no parquet or arrow files. `tonelake ingest folder` takes a folder of audio files, with "
            "--labels metadata.csv"
        )
    builder = datasets.load_dataset_builder(str(folder), name=config)
    files = {str(split): list(map(str, names)) for split, names in (builder.config.data_files or {}).items()}
    if not files or any(Path(name).suffix not in TABLES for names in files.values() for name in names):
        raise InputError(f"{folder}: holds more tables of other kinds than parquet or arrow. Name a folder of one kind")
    named = len(files) > 1 or names_train(folder, files.get("train", []))
    return [
        part_of_files(datasets, split if named or split != "train" else None, builder.info.features, names, folder)
        for split, names in files.items()
    ]


def names_train(folder: Path, files: list[str]) -> bool:
    """Whether a set whose only split is train says so itself: `datasets` calls every set without splits train."""
    card = folder / "README.md"
    said = re.search(r"^[\s-]*split:\s*train\b", card.read_text("utf-8", "replace"), re.M) if card.is_file() else None
    return said is not None or any("train" in os.path.relpath(file, folder).lower() for file in files)


def part_of_files(datasets: Any, split: str | None, features: Any, files: list[str], root: Path) -> Part:
    """A split in parquet or arrow files, read a few rows at a time."""
    import pyarrow.parquet as pq

    def read() -> Iterator[Any]:
        for file in files:
            if file.endswith(".parquet"):
                with pq.ParquetFile(file) as table:
                    yield from table.iter_batches(batch_size=BATCH_ROWS)
            else:
                with arrow_batches(file) as (_, batches):
                    for batch in batches:
                        for first in range(0, batch.num_rows, BATCH_ROWS):
                            yield batch.slice(first, BATCH_ROWS)

    rows = 0
    for file in files:
        if file.endswith(".parquet"):
            schema, count = pq.read_schema(file), pq.read_metadata(file).num_rows
        else:
            with arrow_batches(file) as (schema, batches):
                count = sum(batch.num_rows for batch in batches)
        rows += count
    features = features or datasets.Features.from_arrow_schema(schema)
    return Part(split=split, features=features, rows=rows, batches=read(), root=root)


@contextmanager
def arrow_batches(file: str) -> Iterator[tuple[Any, Iterator[Any]]]:
    """The schema and the record batches of an arrow file, in the form of a stream, as `datasets` writes it, or of a file."""
    import pyarrow as pa

    with pa.memory_map(file) as source:
        try:
            stream = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            table = pa.ipc.open_file(source)
            yield table.schema, (table.get_batch(i) for i in range(table.num_record_batches))
        else:
            yield stream.schema, iter(stream)


def cached_snapshot(name: str) -> Path | None:
    """The folder of a data set in the hub's cache, if it holds tables."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None
    return folder if has_tables(folder) else None


def has_tables(folder: Path) -> bool:
    return any(next(folder.rglob(f"*{suffix}"), None) is not None for suffix in TABLES)


def rows_of(part: Part, path: str) -> Iterator[dict[str, Any]]:
    """The rows of a split as dictionaries.  Raises InputError if its files are damaged."""
    import pyarrow as pa

    try:
        for batch in part.batches:
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: split {part.split or 'without name'} cannot be read ({error}). Download it again") from error


@contextmanager
def offline() -> Iterator[None]:
    """Keep `datasets` and the hub's client from using the network, whatever the environment says."""
    datasets = import_extra("datasets", "hf", "Hugging Face data sets")
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE, datasets.utils.logging.get_verbosity()
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    datasets.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before[:2]
        datasets.utils.logging.set_verbosity(before[2])
