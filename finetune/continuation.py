"""Continue a training with more epochs: of a finished run, of a checkpoint folder, or of a checkpoint file.

    run                 its last checkpoint, kept below `checkpoints/`: weights, optimizer, schedule, early stopping, random
                        state and epoch, of the fine-tuning and of its frozen baseline, for each seed
    checkpoint folder   the same, of an interrupted run: `adapters/RUN/work/checkpoint-120`, or a file in it
    checkpoint file     of another project: weights; the number of epochs and the state of AdamW where the file has them.  The
                        schedule and early stopping have no history, and the frozen baseline is trained from the first epoch

The first two end like one training of that many epochs, as long as clips and other settings are equal.  Checkpoints are copied
into the work folder of the new run, which then resumes from them as after an interruption.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.finetune.checkpoint_file import WEIGHT_SUFFIXES, load_plain
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.runs import FinetuneRun, digest_of_start
from tonelake.store import Blobs, InputError, Lake

WEIGHTS, STATE = "model.safetensors", "trainer_state.json"           # transformers' names
STATE_FILES = ("optimizer.pt", "scheduler.pt")
KEPT, INDEX = "checkpoints", "index.json"
MARKER = "continued"                     # in a work folder: its checkpoints are complete
TRAININGS = {"tuned": "", "frozen": "frozen"}                        # and their folders in a seed's work folder


def checkpoint_folder(resume: str) -> Path | None:
    """Return the checkpoint folder that `--resume` names, itself or by a file in it; None for anything else."""
    path = Path(resume).expanduser()
    folder = path if path.is_dir() else path.parent
    return folder if path.exists() and (folder / STATE).is_file() else None


def is_checkpoint_file(resume: str) -> bool:
    """Return whether `--resume` names a checkpoint file by itself."""
    path = Path(resume).expanduser()
    return checkpoint_folder(resume) is None and (path.is_file() or path.suffix in WEIGHT_SUFFIXES)


def resumed_run(lake: Lake, resume: str) -> FinetuneRun | None:
    """Return the run that `--resume` names; None for a file or folder.  Raises InputError if there is no such run."""
    if checkpoint_folder(resume) is not None or is_checkpoint_file(resume):
        return None
    return FinetuneRun.named(lake, resume)


def check_resume(lake: Lake, config: FinetuneConfig, split: Any, ids: Any) -> None:
    """Raise InputError if the settings do not allow to continue, or if a test clip was trained on before."""
    if not config.resume:
        return
    if config.start:
        raise InputError("--resume and --start: both name initial weights. Give --resume to continue, or --start alone")
    run = resumed_run(lake, config.resume)
    if run is None:
        if config.seeds > 1:
            raise InputError(f"--resume {config.resume}: holds one seed, not {config.seeds}. Leave --seeds out")
        if is_checkpoint_file(config.resume) and config.schedule != "plateau":
            raise InputError(
                f"--resume {config.resume}: holds no state of the {config.schedule} schedule. Use --schedule plateau, or "
                "begin with --start"
            )
        return
    absent = set(config.all_seeds) - set(run.config.all_seeds)
    if absent:
        raise InputError(f"--resume {run.name}: has no seed {min(absent)}. Give --seed and --seeds of this run")
    before = run.table("split")
    trained = set(before.filter(before["side"] != "test")["clip_id"])
    leaked = len(trained & set(ids.gather(split.test)))
    if leaked:
        raise InputError(
            f"--resume {run.name}: was trained on {leaked:,} of the test clips. Keep its sides with --split run:{run.name}"
        )


def fill_work(lake: Lake, config: FinetuneConfig, work: Path) -> str | None:
    """Copy the checkpoints that `--resume` names into the work folder, unless they are there; return a note for the report.

    Raises InputError if they cannot be continued with these settings.
    """
    if not config.resume or is_checkpoint_file(config.resume):
        return None
    run = resumed_run(lake, config.resume)
    epoch = 0
    for seed in config.all_seeds:
        folder = seed_folder(work, config, seed)
        if not (folder / MARKER).is_file():
            for old in folder.glob("**/checkpoint-*"):
                shutil.rmtree(old, ignore_errors=True)
            if run is not None:
                fetch_checkpoints(run, seed, folder)
            else:
                copy_checkpoints(Path(checkpoint_folder(config.resume) or ""), folder)
            adapt_states(folder, config)
            (folder / MARKER).write_text(str(continued_epochs(folder)), encoding="utf-8")
        epoch = max(epoch, int((folder / MARKER).read_text(encoding="utf-8") or 0))
    name = run.name if run is not None else config.resume
    return f"training continues that of {name} after {epoch} epochs, with its optimizer, schedule and early stopping"


def seed_folder(work: Path, config: FinetuneConfig, seed: int) -> Path:
    """Return the work folder of a seed."""
    return work if seed == config.seed else work / f"seed-{seed}"


def continued_epochs(folder: Path) -> int:
    """Return the number of epochs that the checkpoints in a folder have trained; 0 without one."""
    return max((round(float(read_state(path)["epoch"])) for path in folder.glob("checkpoint-*")), default=0)


def digest_of_resume(lake: Lake, resume: str) -> str:
    """Return a digest of the weights that `--resume` names.  Raises InputError if it is a run that does not exist."""
    folder = checkpoint_folder(resume)
    return digest_of_start(lake, resume if folder is None else str(folder / WEIGHTS))


# -- checkpoints of a finished run


def keep_checkpoints(files: Blobs, work: Path, config: FinetuneConfig) -> None:
    """Keep the last and the best checkpoint of each seed and of its frozen baseline in the run's folder."""
    for seed in config.all_seeds:
        index: dict[str, list[list[Any]]] = {}
        inside = f"{files.uri}/{KEPT}/seed-{seed}"
        for training, part in TRAININGS.items():
            index[training] = []
            for checkpoint in last_and_best(seed_folder(work, config, seed) / part):
                names = [path.name for path in checkpoint_files(checkpoint)]
                for name in names:
                    def write(target: Path, source: Path = checkpoint / name) -> None:
                        shutil.copyfile(source, target)

                    Blobs(f"{inside}/{training}/{checkpoint.name}").put(name, write)
                index[training].append([checkpoint.name, names])
        Blobs(inside).put_text(INDEX, json.dumps(index))


def fetch_checkpoints(run: FinetuneRun, seed: int, folder: Path) -> None:
    """Copy a run's kept checkpoints of a seed into a work folder.  Raises InputError if it has none."""
    inside = f"{run.files.uri}/{KEPT}/seed-{seed}"
    index = json.loads(Blobs(inside).read(INDEX) or "{}")
    if not index.get("tuned"):
        raise InputError(
            f"--resume {run.name}: has no checkpoint of seed {seed}, because an earlier release trained it. Begin from its "
            f"weights with --start {run.name}"
        )
    for training, checkpoints in index.items():
        for name, names in checkpoints:
            target = folder / TRAININGS[training] / Path(name).name
            target.mkdir(parents=True, exist_ok=True)
            for file in names:
                with Blobs(f"{inside}/{training}/{name}").fetched(file) as path:
                    if path is None:
                        raise InputError(f"--resume {run.name}: its checkpoint lacks {file}. Begin with --start {run.name}")
                    shutil.copyfile(path, target / Path(file).name)


# -- checkpoint folders


def copy_checkpoints(checkpoint: Path, folder: Path) -> None:
    """Copy a checkpoint, the best one beside it, and those of the frozen baseline beside both."""
    for source, part in ((checkpoint, ""), (checkpoint.parent / "frozen", "frozen")):
        for one in last_and_best(source, whole=not part):
            target = folder / part / f"checkpoint-{int(read_state(one)['global_step'])}"     # its own name may be another
            target.mkdir(parents=True, exist_ok=True)
            for path in checkpoint_files(one):
                check_plain(path)
                shutil.copyfile(path, target / path.name)


def last_and_best(folder: Path, whole: bool = False) -> Iterator[Path]:
    """Yield the last checkpoint of a folder (`whole`: the folder itself) and the best one beside it."""
    from tonelake.finetune.trainer import last_checkpoint

    last = folder if whole else last_checkpoint(folder, remove=False)
    if last is None:
        return
    yield last
    best = read_state(last).get("best_model_checkpoint")
    beside = last.parent / Path(str(best)).name if best else last
    if beside != last and (beside / WEIGHTS).is_file():
        yield beside


def checkpoint_files(checkpoint: Path) -> list[Path]:
    """Return the files of a checkpoint that continuing needs; the state comes last, since it marks a checkpoint as complete."""
    names = [WEIGHTS, *STATE_FILES, *sorted(path.name for path in checkpoint.glob("rng_state*.pth")), STATE]
    return [checkpoint / name for name in names if (checkpoint / name).is_file()]


def check_plain(path: Path) -> None:
    """Raise InputError if a file of a checkpoint cannot be read without running code."""
    import torch
    from transformers.trainer_pt_utils import safe_globals

    if path.suffix == ".pth":            # the states of random generators, as NumPy arrays
        try:
            with safe_globals():
                torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(f"{path}: refused, because it is damaged or holds pickled code. Delete it") from error
    elif path.name != STATE:
        load_plain(path)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read the state of a checkpoint.  Raises InputError if it cannot be read."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        float(state["epoch"]), int(state["global_step"])
        return dict(state)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{checkpoint / STATE}: cannot be read ({error}). Choose another checkpoint") from error


def check_steps(config: FinetuneConfig, work: Path, steps: int) -> None:
    """Raise InputError if the copied checkpoints made another number of optimizer steps in an epoch than `steps`."""
    if not config.resume:
        return
    for seed in config.all_seeds:
        for checkpoint in last_and_best(seed_folder(work, config, seed)):
            state = read_state(checkpoint)
            epoch = round(float(state["epoch"]))
            if int(state["global_step"]) != epoch * steps:
                raise InputError(
                    f"--resume {config.resume}: made {int(state['global_step']) / max(epoch, 1):g} steps an epoch, here there "
                    f"are {steps}. Use its clips and batches, or begin from its weights with --start"
                )


def adapt_states(folder: Path, config: FinetuneConfig) -> None:
    """Adapt the states of copied checkpoints: where the best one is, and the new patience.

    Raises InputError if no epoch or no patience is left.
    """
    for training, part in TRAININGS.items():
        for checkpoint in (folder / part).glob("checkpoint-*"):
            state = read_state(checkpoint)
            epoch, stopping = round(float(state["epoch"])), early_stopping(state)
            if training == "tuned" and epoch >= config.epochs:
                raise InputError(f"--resume {config.resume}: has trained {epoch} epochs. Give --epochs above {epoch}")
            if training == "tuned" and stopping.get("early_stopping_patience_counter", 0) >= config.patience:
                raise InputError(
                    f"--resume {config.resume}: stopped early, after {stopping['early_stopping_patience_counter']} epochs "
                    "without improvement. Give a higher --patience"
                )
            best = state.get("best_model_checkpoint")
            state["best_model_checkpoint"] = str(folder / part / Path(str(best)).name) if best else None
            callback = (state.get("stateful_callbacks") or {}).get("EarlyStoppingCallback")
            if isinstance(callback, dict) and isinstance(callback.get("args"), dict):
                callback["args"]["early_stopping_patience"] = config.patience
            partial = checkpoint / f"{STATE}.partial"
            partial.write_text(json.dumps(state), encoding="utf-8")
            partial.replace(checkpoint / STATE)


def early_stopping(state: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of the early stopping in a checkpoint's state."""
    callback = (state.get("stateful_callbacks") or {}).get("EarlyStoppingCallback")
    return dict(callback.get("attributes") or {}) if isinstance(callback, dict) else {}


def steps_per_epoch(clips: int, config: FinetuneConfig, processes: int) -> int:
    """Return the optimizer steps in an epoch."""
    return int(np.ceil(np.ceil(clips / (int(config.batch or 1) * processes)) / config.accumulated))
