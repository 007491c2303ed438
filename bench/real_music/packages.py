"""Fetch Debian packages of freely licensed game music, and take the music out of them without installing anything.

`packages.tsv` lists each package with its version and sha256.  A package is an `ar` archive whose member `data.tar`
(compressed) holds the files; music also lies in .zip and .pk3 files among them.  Only files with an audio suffix are written,
below a folder of the package's name, without what `excluded.tsv` lists.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

import polars as pl

HERE = Path(__file__).parent
MUSIC = (".ogg", ".mp3", ".flac", ".opus", ".wav", ".oga")
ARCHIVES = (".zip", ".pk3")
MUSIC_BYTES = 250_000                    # a smaller file is a sound effect or a jingle
DONE = "fetched"                         # written last in a package's folder


def packages() -> pl.DataFrame:
    """Return the packages: package, version, MB, licence_as_parsed, sha256_of_the_deb, …."""
    return pl.read_csv(HERE / "packages.tsv", separator="\t", infer_schema_length=None)


def read_rules(name: str) -> list[list[str]]:
    """Return (package, glob, text) of each line of artists.tsv or excluded.tsv."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def match_rules(rules: list[list[str]], package: str, path: PurePosixPath) -> str | None:
    """Return the text of the first rule that a file of a package matches, or None."""
    return next((text for of, glob, text in rules if fnmatch(package, of) and fnmatch(f"/{path}", glob)), None)


def fetch_music(folder: Path, debs: Path) -> list[str]:
    """Fill `folder/PACKAGE/` with the music of every package, and return the names of packages that could not be had.

    `debs`: where packages are, or are downloaded to by `apt-get download`.  Raises SystemExit if one has another hash.
    """
    debs.mkdir(parents=True, exist_ok=True)
    missing = []
    for row in packages().iter_rows(named=True):
        own = folder / row["package"]
        if (own / DONE).exists():
            continue
        deb = find_deb(debs, row["package"], row["version"]) or download(debs, row["package"], row["version"])
        if deb is None:
            missing.append(f"{row['package']}={row['version']}")
            continue
        with deb.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != row["sha256_of_the_deb"]:
            raise SystemExit(f"{deb}: has another sha256 than packages.tsv. Delete it and fetch {row['package']} again")
        shutil.rmtree(own, ignore_errors=True)
        count = extract_music(deb, own, row["package"])
        (own / DONE).write_text(f"{count} files\n")
        print(f"{row['package']} {row['version']}: {count} files of music", flush=True)
    return missing


def find_deb(folder: Path, package: str, version: str) -> Path | None:
    """Return the file of a package in a folder, named as apt names it; an epoch's colon is written %3a."""
    return next(iter(sorted(folder.glob(f"{package}_{version.replace(':', '%3a')}_*.deb"))), None)


def download(folder: Path, package: str, version: str) -> Path | None:
    """Download a package by apt; None if apt is absent or does not have it."""
    if shutil.which("apt-get") is None:
        return None
    subprocess.run(["apt-get", "download", "--quiet", f"{package}={version}"], cwd=folder, check=False, capture_output=True)
    return find_deb(folder, package, version)


def extract_music(deb: Path, folder: Path, package: str) -> int:
    """Write the music of a package below `folder` but what excluded.tsv lists, and return the number of files."""
    count, excluded = 0, read_rules("excluded.tsv")
    for name, content in members(deb):
        if match_rules(excluded, package, name):
            continue
        target = folder.joinpath(*(part for part in name.parts if part not in ("/", "..", ".")))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        count += 1
    return count


def members(deb: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Return (path, content) of each file of music in a package, also of those inside its zip files."""
    with deb.open("rb") as file, tarfile.open(fileobj=seek_data(file), mode="r|*") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if path.suffix.lower() in MUSIC and member.size >= MUSIC_BYTES:
                yield path, content.read()
            elif path.suffix.lower() in ARCHIVES:
                with zipfile.ZipFile(io.BytesIO(content.read())) as archive:
                    for info in archive.infolist():
                        inner = PurePosixPath(info.filename)
                        if inner.suffix.lower() in MUSIC and info.file_size >= MUSIC_BYTES:
                            yield path / inner, archive.read(info)


def seek_data(file: IO[bytes]) -> IO[bytes]:
    """Move to the content of `data.tar` in an `ar` archive (deb(5)), and return the file.

    Raises SystemExit if there is none.
    """
    if file.read(8) != b"!<arch>\n":
        raise SystemExit(f"{file.name}: is not a Debian package. Delete it and fetch it again")
    while len(header := file.read(60)) == 60:
        name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
        if name in ("data.tar", "data.tar.gz", "data.tar.xz", "data.tar.bz2"):
            return file                  # its last member, so the rest of the file is the archive
        file.seek(size + size % 2, 1)
    raise SystemExit(f"{file.name}: has no data.tar.gz or data.tar.xz. Fetch the version that packages.tsv names")
