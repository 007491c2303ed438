"""Continue from a checkpoint file of another project: its number of epochs, and the moments of its AdamW where they fit.

An optimizer's state names no parameters, only their numbers.  They are matched to the file's tensors in order, LoRA first or
the head first, and taken if every shape agrees and every parameter of the model was loaded unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tonelake.finetune.checkpoint_file import CheckpointWeights
from tonelake.finetune.continuation import MARKER, STATE, WEIGHTS, steps_per_epoch
from tonelake.finetune.initial_weights import LoadReport
from tonelake.store import InputError

MOMENTS = ("exp_avg", "exp_avg_sq")


def begin_at_epoch(
    trainer: Any, weights: CheckpointWeights, report: LoadReport, folder: Path, is_main: bool
) -> str:
    """Make a trainer, whose model has the file's weights, begin after the file's epochs.

    Returns what is continued, in words.  Raises InputError if no epoch is left to train.
    """
    from safetensors.torch import save_file
    from transformers.trainer_callback import ExportableState, TrainerState

    epoch, config = weights.epoch or 0, trainer.config
    if epoch >= config.epochs:
        raise InputError(f"--resume {config.resume}: has trained {epoch} epochs. Give --epochs above {epoch}")
    model = trainer.accelerator.unwrap_model(trainer.model)
    state, problem = match_optimizer(weights, report, model, trainer.create_optimizer())
    trainer.optimizer = None                     # made again, with this state, when the training begins
    trainer.optimizer_state = state
    if is_main and epoch and not (folder / MARKER).is_file():
        step = epoch * steps_per_epoch(len(trainer.train_dataset), config, trainer.args.world_size)
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True, exist_ok=True)
        save_file(model.trained(), checkpoint / WEIGHTS)
        stateful = [one for one in [*trainer.callback_handler.callbacks, trainer.control] if isinstance(one, ExportableState)]
        state_of_trainer = TrainerState(
            epoch=float(epoch), global_step=step, train_batch_size=int(config.batch or 1), stateful_callbacks=stateful
        )
        state_of_trainer.save_to_json(str(checkpoint / STATE))
        (folder / MARKER).touch()
    trainer.accelerator.wait_for_everyone()
    begun = f"training continues after {epoch} epochs" if epoch else "the file names no epoch, so training begins at the first"
    return f"{begun}, {'with' if state else 'without'} the state of its optimizer{f' ({problem})' if problem else ''}"


def match_optimizer(
    weights: CheckpointWeights, report: LoadReport, model: Any, optimizer: Any
) -> tuple[dict[str, Any] | None, str]:
    """Return the file's optimizer state for our optimizer, or None and the reason."""
    import torch

    found = flat_state(weights.optimizer)
    if found is None:
        return None, "it has none" if not weights.optimizer else "it is not that of AdamW"
    states, rates = found
    names = [name for lora in (True, False) for name, _ in model.parameters_of(lora=lora)]
    if not report.unchanged or any(name not in report.sources for name in names):
        return None, "not all parameters are as in the file"
    loaded = set(report.sources.values())        # the encoder's own weights have no state: they were frozen there as well
    lora = [name for name in weights.shapes if ".lora_" in name]
    head = [name for name in weights.shapes if ".lora_" not in name and name in loaded]
    for order in (lora + head, head + lora):
        shapes = [weights.shapes[name] for name in order]
        if [tuple(state["exp_avg"].shape) for state in states] == shapes:
            break
    else:
        return None, "its parameters are not those of the file"
    number = {name: position for position, name in enumerate(order)}
    ours = {}
    for position, name in enumerate(names):
        theirs, shape = states[number[report.sources[name]]], dict(model.named_parameters())[name].shape
        ours[position] = {key: theirs[key].float().reshape(shape) for key in MOMENTS}
        ours[position]["step"] = torch.as_tensor(float(theirs["step"]))
    groups = optimizer.state_dict()["param_groups"]
    for group in groups:
        group["lr"] = rates[number[report.sources[names[group["params"][0]]]]]
    return {"state": ours, "param_groups": groups}, ""


def flat_state(optimizer: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[float]] | None:
    """Return the state and the learning rate of each parameter in the order of their groups; None for anything but AdamW's."""
    import torch

    states, groups = optimizer.get("state"), optimizer.get("param_groups")
    if not isinstance(states, dict) or not isinstance(groups, list):
        return None
    found: list[dict[str, Any]] = []
    rates: list[float] = []
    for group in groups:
        if not isinstance(group, dict) or not isinstance(group.get("params"), list) or not isinstance(group.get("lr"), float):
            return None
        for number in group["params"]:
            state = states.get(number) if isinstance(number, int) else None
            if state is None:            # of a parameter without gradients
                continue
            if not isinstance(state, dict) or not all(isinstance(state.get(key), torch.Tensor) for key in MOMENTS):
                return None
            if not isinstance(state.get("step"), int | float | torch.Tensor):
                return None
            found.append(state)
            rates.append(group["lr"])
    return found, rates
