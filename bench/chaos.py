"""Count losses after kill -9 at random moments, a full disk, removed audio, and corrupted derived files.

A ledger outside the lake records the checksum of every committed row.  A child process does one piece of work and is killed at
a random moment.  Then the lake is opened: every row of the ledger must be present once and unchanged, `tonelake verify
--repair` must leave no problem, and the same work, run again to its end, must give the expected result.

    python -m bench.chaos --kills 200
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from bench.chaos_work import (
    HOME,
    WORK,
    add_music,
    child,
    embed_into,
    embed_work,
    index_work,
    ingest_work,
    make_home,
    name_of_probe,
    prepare,
)
from bench.hostile import hostile
from bench.report import circumstances, table, write_results

SHARES = {"ingest": 0.25, "embed": 0.25, "index": 0.15, "two writers": 0.15, "probe": 0.12, "finetune": 0.08}


# -- the ledger


def checksums(home: Path) -> dict[str, str]:
    """Return a digest of every committed row of every table, by lake, table and key."""
    from tonelake.store import Lake
    from tonelake.store.compaction import tables_of
    from tonelake.store.files import STAMP

    found = {}
    for folder in ("lake", "wide", "tune"):
        if not (home / folder).exists():
            continue
        for one in tables_of(Lake(home / folder, create=False)):
            if one.name == "failures":
                continue
            rows = one.read()
            if one.name == "files":      # stamps of files written seconds ago are filled by the next ingest
                rows = rows.drop_columns([*STAMP, "seen"])
            keys = rows.column(one.key).to_pylist()
            for key, row in zip(keys, rows.to_pylist(), strict=True):
                place = f"{folder}/{one.name}/{key}"
                digest = hashlib.blake2b(repr(sorted(row.items())).encode(), digest_size=12).hexdigest()
                if place in found:
                    digest = "twice"
                found[place] = digest
    return found


@dataclass
class Tally:
    """Counts for one kind of work."""

    kills: int = 0
    midway: int = 0                      # kills before the work was done
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    details: list[str] = field(default_factory=list)


# -- kills


def start(kind: str, home: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.chaos", "--child", kind, "--home", str(home)], cwd=HOME, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def kill_once(kind: str, home: Path, turn: int, usual: dict[str, float], tally: Tally, rng: random.Random) -> None:
    """Run one piece of work, kill it, and check the lake."""
    prepare(kind, home, turn)
    before = checksums(home)
    writers = [start(kind, home) for _ in range(2 if kind == "two writers" else 1)]
    for one in writers:
        go(one)
    moment = rng.uniform(0, 1.1 * usual[kind])
    time.sleep(moment)
    done = [one.poll() is not None for one in writers]
    for one in writers:
        one.kill()                       # SIGKILL
        one.wait()
        for pipe in (one.stdin, one.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    tally.kills += 1
    tally.midway += not all(done)
    judge(home, before, tally, f"{kind} {turn}")
    begun = time.monotonic()
    WORK[kind](home)
    usual[kind] = 0.8 * usual[kind] + 0.2 * min(time.monotonic() - begun, 3 * usual[kind])
    judge(home, before, tally, f"{kind} {turn}, run again")
    finished(kind, home, tally, turn)


def judge(home: Path, before: dict[str, str], tally: Tally, where: str) -> None:
    """Compare the lakes with the ledger."""
    after = checksums(home)
    lost = [place for place in before if place not in after]
    twice = [place for place, digest in after.items() if digest == "twice"]
    changed = [place for place in before if place in after and after[place] not in (before[place], "twice")]
    for name, found in (("lost", lost), ("duplicated", twice), ("wrong", changed)):
        setattr(tally, name, getattr(tally, name) + len(found))
        if found:
            tally.details.append(f"{where}: {name} {len(found)}, {found[0]}")


def finished(kind: str, home: Path, tally: Tally, turn: int) -> None:
    """Check the result of the finished work."""
    import tonelake
    from tonelake.store import Lake

    wrong = ""
    if kind == "ingest":
        have = Lake(home / "lake").clips.read(["source"])["source"].n_unique()
        want = len(list((home / "music").rglob("*.wav")))
        wrong = f"{have} of {want} files are clips" if have != want else ""
    elif kind in ("embed", "two writers"):
        lake = Lake(home / "lake")
        left = len(lake.vectors("tones").missing(["clip_id"]))
        wrong = f"{left} clips have no vector" if left else ""
    elif kind == "index":
        from tonelake.index import similar
        from tonelake.index.search.exact import load_layer

        lake = Lake(home / "wide")
        states = tonelake.open(home / "wide").list_indexes()["state"].to_list()
        layer = load_layer(lake, lake.spaces.get("wide"), 0)
        # An approximate index misses a few clips; it must find at least the share that it was built for.
        asked = range(0, len(layer.ids), 20)
        found = sum(similar(lake, layer.vectors[i], layer="0", k=5)["score"][0] > 0.999 for i in asked)
        good = states == ["up to date"] and found >= 0.85 * len(asked)
        wrong = "" if good else f"indexes are {states}, and find {found} of {len(asked)} clips by their own vectors"
    elif kind == "probe":
        wide = tonelake.open(home / "wide")
        wrong = "" if wide.probe_run(name_of_probe(wide)).metrics["clips"] else "no run"
    elif kind == "finetune":
        wrong = "" if tonelake.open(home / "tune").finetune_run("chaos").metrics["judged"] else "no run"
    folder = {"index": "wide", "probe": "wide", "finetune": "tune"}.get(kind, "lake")
    if not wrong:
        left_over = tonelake.open(home / folder).verify(repair=True, sources=False).filter(~pl.col("mended"))
        wrong = f"verify: {left_over['problem'][0]}" if len(left_over) else ""
    if wrong:
        tally.wrong += 1
        tally.details.append(f"{kind} {turn}: {wrong}")


# -- other faults


def fill_the_disk(home: Path) -> str:
    """Embed and ingest into a lake on a full disk: existing data stays, and the work finishes once there is space."""
    import tonelake

    disk = home / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        return "not done: a small file system cannot be mounted here"
    try:
        lake = tonelake.open(disk / "lake", progress=False)
        lake.ingest_folder(home / "music", seconds=1.0)
        clips = lake.clips.read()
        filler = disk / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        said = ""
        try:
            embed_into(disk / "lake")
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:80]}"
        same = tonelake.open(disk / "lake", progress=False).clips.read().equals(clips)
        filler.unlink()
        embed_into(disk / "lake")
        opened = tonelake.open(disk / "lake", progress=False)
        left = len(opened.vectors("tones").missing(["clip_id"]))
        good = same and not left and not len(opened.verify(sources=False))
        return f"{'held' if good else 'FAILED'}: embedding reported {said or 'nothing'}; with space it finished"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def remove_audio(home: Path) -> str:
    """Remove a file while clips are embedded: the others are embedded, it is named, and once restored it is embedded too."""
    import tonelake

    add_music(home, 2, seed=77)
    ingest_work(home)
    path = max((home / "music").rglob("*.wav"), key=lambda file: file.stat().st_mtime_ns)
    kept = path.read_bytes()
    path.unlink()
    embed_work(home)
    lake = tonelake.open(home / "lake", progress=False)
    missing, named = len(lake.vectors("tones").missing(["clip_id"])), lake.failures.read()["source"].to_list()
    path.write_bytes(kept)
    embed_work(home)
    left = len(lake.vectors("tones").missing(["clip_id"]))
    good = missing > 0 and any(path.name in source for source in named) and not left
    return f"{'held' if good else 'FAILED'}: {missing} clips were postponed, the file was named, restored they were embedded"


def corrupt_derived(home: Path) -> str:
    """Truncate every derived file: searches report it or scan, and verify repairs it."""
    import tonelake
    from tonelake.index.search import faiss_files

    lake = tonelake.open(home / "wide", progress=False)
    index_work(home)
    lake.map("0", method="pca")
    files = [path for kind in ("indexes", "maps") for path in (home / "wide" / kind).rglob("*") if path.is_file()]
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    faiss_files.loaded_indexes.clear()
    lake.verify(repair=True)
    clean = not len(lake.verify(sources=False))
    index_work(home)
    good = clean and len(lake.similar(lake.clips.read()["clip_id"][0], k=5)) == 5 and lake.map("0", method="pca").done == "made"
    return f"{'held' if good else 'FAILED'}: {len(files)} files truncated, found, dropped and rebuilt"


def hostile_files(home: Path, count: int) -> dict[str, int]:
    """Ingest hostile files in a process whose crash would be counted."""
    command = [sys.executable, "-m", "bench.chaos", "--child", "hostile", "--home", str(home), "--files", str(count)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2_000:], flush=True)
        return {"hostile_files": count, "crashes": 1, "hangs": 0}
    return json.loads(done.stdout.splitlines()[-1]) | {"crashes": 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", type=int, default=1_000, help="Hostile files.")
    parser.add_argument("--child", choices=[*WORK, "hostile"], help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child == "hostile":
        print(json.dumps(hostile(asked.home, asked.files, asked.seed)))
        return
    if asked.child:
        child(asked.child, asked.home)
        return
    rng = random.Random(asked.seed)
    tallies = {kind: Tally() for kind in SHARES}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_home(home)
        usual = {}
        for kind in SHARES:
            prepare(kind, home, 0)
            begun = time.monotonic()
            WORK[kind](home)
            usual[kind] = time.monotonic() - begun
        turns = [kind for kind, share in SHARES.items() for _ in range(round(share * asked.kills))]
        rng.shuffle(turns)
        for turn, kind in enumerate(turns, start=1):
            kill_once(kind, home, turn, usual, tallies[kind], rng)
            if turn % 10 == 0:
                told = (f"{k} {t.kills}: lost {t.lost}, twice {t.duplicated}, wrong {t.wrong}" for k, t in tallies.items())
                print(f"{turn} of {len(turns)}; " + "; ".join(told), flush=True)
        beside = {
            "disk full": fill_the_disk(home), "audio removed": remove_audio(home),
            "derived files corrupted": corrupt_derived(home),
        }
        files = hostile_files(home, asked.files)
    details = [line for tally in tallies.values() for line in tally.details]
    print("\n".join(details + [f"{name}: {text}" for name, text in beside.items()]), flush=True)
    rows = [
        [kind, *(str(getattr(tally, name)) for name in ("kills", "midway", "lost", "duplicated", "wrong"))]
        for kind, tally in tallies.items()
    ]
    text = table(["work", "kills", "before it was done", "rows lost", "rows twice", "wrong"], rows) + "\n\n" + table(
        ["beside kills", "outcome"], [[name, said] for name, said in beside.items()]
    ) + "\n\n" + table(["hostile files", ""], [[name.replace("_", " "), f"{value:,}"] for name, value in files.items()]) + (
        "\n\n" + "\n".join(f"- {line}" for line in details) if details else "")
    total = {name: sum(getattr(tally, name) for tally in tallies.values()) for name in ("kills", "lost", "duplicated", "wrong")}
    about = circumstances(f"the moments of kills, the sounds and the mutations, seed {asked.seed}")
    write_results("chaos", "Kills, full disks, corrupted and hostile files", text, about, {}, **total, **files)


if __name__ == "__main__":
    main()
