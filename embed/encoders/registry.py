"""Encoders by name: an entry of `embed.encoders.table`, a checkpoint folder, or a class of another package.

A class is named `module:Class`, or by an entry point of the group `tonelake.encoders`:

    [project.entry-points."tonelake.encoders"]
    loudness = "my_package.loudness:Loudness"

A space records `module:Class` as the location of its encoder, and a lake may come from another person.  So a location is never
a path: the module has to be importable already, nothing is added to the import path, modules of the standard library are
refused, and the object has to be a subclass of `Encoder`.  Importing a module runs it, as importing any
installed package does.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tonelake.embed.encoders.base import PRECISIONS, Encoder, check_encoder
from tonelake.embed.encoders.checkpoint import read_json
from tonelake.embed.encoders.default import default_encoder
from tonelake.embed.encoders.table import ALIASES, BY_NAME, CHECKPOINTS, ENTRIES, Entry, checkpoint_kind
from tonelake.embed.errors import CheckpointError, EncoderError
from tonelake.embed.precision import checked_at
from tonelake.store import InputError

ENTRY_POINTS = "tonelake.encoders"
CLASS_LOCATION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def encoder_names() -> list[str]:
    """Names that `load_encoder` accepts, apart from checkpoint folders and `module:Class`."""
    built_in = [name for entry in ENTRIES for name in (entry.name, *entry.aliases)]
    return [*built_in, *sorted(entry_points(group=ENTRY_POINTS).names)]


def full_name(name: str) -> str:
    """Resolve aliases and entry points, so that each encoder has one name; a folder is named by its absolute path.

    >>> full_name("mert-95m"), full_name("my_package.loudness:Loudness")
    ('m-a-p/MERT-v1-95M', 'my_package.loudness:Loudness')
    """
    name = ALIASES.get(name.lower(), name)
    if name in BY_NAME or is_class_location(name):
        return name
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return f"{entry.module}:{entry.attr}"
    return str(Path(name).expanduser().absolute())


def is_class_location(name: str) -> bool:
    """Whether a name has the form `module:Class`."""
    return CLASS_LOCATION.fullmatch(name) is not None


def needs_torch(location: str) -> bool:
    """Whether the encoder at a location computes with torch; its weights are not loaded."""
    if location in BY_NAME:
        return BY_NAME[location].needs_torch
    return find_class(location).needs_torch if is_class_location(location) else True


def has_tags(location: str) -> bool:
    """Whether the encoder at a location names tags; its weights are not loaded."""
    return bool(tags_of(location))


def tags_of(location: str) -> tuple[str, ...]:
    """The tags that the encoder at a location names; its weights are not loaded."""
    name = BY_NAME[location].encoder if location in BY_NAME else location if is_class_location(location) else ""
    return tuple(find_class(name).tags) if name else ()


def lora_targets_of(location: str) -> tuple[str, ...]:
    """Linear layers that LoRA changes by default in the encoder at a location; its weights are not loaded.

    Empty if it takes no adapter, or if there is no such class or folder.
    """
    entry = BY_NAME.get(location)
    name = entry.encoder if entry else location if is_class_location(location) else ""
    try:
        if not name:
            kind = entry.checkpoint if entry else checkpoint_kind(read_json(Path(location), "config.json"))
            name = CHECKPOINTS.get(kind, "")
        return tuple(find_class(name).lora_targets) if name else ()
    except EncoderError:
        return ()


def has_words(location: str) -> bool:
    """Whether the encoder at a location understands words; its weights are not loaded.  False for a folder that is not there.

    Raises CheckpointError if it is a folder without a configuration, EncoderError if its class cannot be imported.
    """
    if location in BY_NAME:
        return BY_NAME[location].words
    if is_class_location(location):
        return find_class(location).text_layer is not None
    folder = Path(location)
    kind = checkpoint_kind(read_json(folder, "config.json")) if folder.is_dir() else None
    return kind in CHECKPOINTS and find_class(CHECKPOINTS[kind]).text_layer is not None


def runs_on_cpu_only(name: str) -> bool:
    """Whether a built-in encoder computes without torch, and so on no accelerator."""
    entry = BY_NAME.get(full_name(name))
    return entry is not None and not entry.needs_torch


def load_encoder(name: str | None = None, *, precision: str = "float32", device: str = "cpu",
                 download: bool = True, adapter: str = "", home: str = "") -> Encoder:
    """Load an encoder by name, by checkpoint folder or by `module:Class`, and apply an adapter if one is given.

    Without a name, load the default one of this machine (`default_encoder`).  `download=False` uses only weights that are
    already on this machine.  `adapter`: its location; `home`: the lake that may contain it; see `embed.encoders.adapter`.
    Raises InputError for an unknown encoder or precision, EncoderError (with instructions) if the weights or the class cannot
    be loaded or this device computes the precision wrongly, CheckpointError if a checkpoint is not what it claims to be.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: unknown. Choose one of {', '.join(PRECISIONS)}")
    name = default_encoder()[0] if name is None else name
    location = full_name(name)
    if location in BY_NAME:
        encoder = load_entry(BY_NAME[location], device, download)
    elif is_class_location(location):
        encoder = make_encoder(find_class(location), location, device=device, precision="float32" if adapter else precision)
    else:
        encoder = load_folder(Path(location), device)
    if adapter:
        if not encoder.lora_targets:
            raise InputError(f"encoder {name!r}: takes no adapter. Leave out adapter {adapter}, or embed with MERT")
        from tonelake.embed.encoders.adapter import read_adapter, resolve_adapter

        encoder = encoder.adapted(read_adapter(resolve_adapter(adapter, home)), adapter)
    return checked_at(encoder, precision)


def load_entry(entry: Entry, device: str, download: bool = True) -> Encoder:
    """Load a built-in encoder in float32.  Raises EncoderError if its weights are not at hand."""
    if entry.weights is None:
        return make_encoder(find_class(entry.encoder), entry.name, device=device)
    folder = entry.weights.folder(download)
    if not entry.encoder:
        return load_checkpoint(folder, device, entry.name)
    return make_encoder(find_class(entry.encoder), entry.name, folder, device=device)


def load_folder(folder: Path, device: str) -> Encoder:
    """Load a checkpoint folder in float32.  Raises InputError if there is no such folder, CheckpointError if it is refused."""
    if not folder.is_dir():
        shown = folder.name if folder.parent == Path.cwd() else str(folder)
        raise InputError(
            f"encoder {shown!r}: neither a checkpoint folder nor a known name. Choose a folder, a class as module:Class, "
            f"or one of {', '.join(encoder_names())}"
        )
    return load_checkpoint(folder, device)


def load_checkpoint(folder: Path, device: str, name: str | None = None) -> Encoder:
    """Load a checkpoint folder by the class of its `model_type`.  Raises CheckpointError if there is none."""
    kind = checkpoint_kind(read_json(folder, "config.json"))
    if kind not in CHECKPOINTS:
        raise CheckpointError(f"{folder}: model_type is {kind!r}. Choose a checkpoint of {', '.join(CHECKPOINTS)}")
    return find_class(CHECKPOINTS[kind])(folder, name=name, location=name, device=device)


def make_encoder(encoder_class: Any, location: str, *arguments: Any, **settings: str) -> Encoder:
    """Make an encoder, with the settings that its constructor takes (`device`, `precision`), and check what it declares.

    Raises EncoderError if a declaration is missing or inconsistent.
    """
    parameters = inspect.signature(encoder_class).parameters
    encoder = encoder_class(*arguments, **{name: value for name, value in settings.items() if name in parameters})
    check_encoder(encoder, location)
    encoder.location = location
    return encoder


def find_class(location: str) -> Any:
    """The class of `module:Class`.  Raises EncoderError if it cannot be imported or is not an encoder."""
    module_name, _, attribute = location.partition(":")
    encoder_class: Any = import_encoder_module(module_name)
    for part in attribute.split("."):
        encoder_class = getattr(encoder_class, part, None)
    if not inspect.isclass(encoder_class):
        raise EncoderError(f"encoder {location!r}: {module_name} has no class {attribute}. Check the name after the colon")
    if not issubclass(encoder_class, Encoder):
        raise EncoderError(f"encoder {location!r}: not an encoder class. Derive it from tonelake.embed.Encoder")
    if inspect.isabstract(encoder_class):
        raise EncoderError(f"encoder {location!r}: has no method encode. Define it as tonelake.embed.Encoder describes")
    return encoder_class


def import_encoder_module(name: str) -> Any:
    """Import the module of an encoder class; the docstring of this module lists what is refused.  Raises EncoderError."""
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise EncoderError(f"module {name!r}: in the standard library, which has no encoders. Check the name before the colon")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise EncoderError(
                f"module {name!r}: not found. Install its package, or add its folder to the environment variable PYTHONPATH"
            ) from error
        raise EncoderError(f"module {name!r}: needs {error.name}, which is not installed. Install it") from error
    except Exception as error:           # importing a module runs arbitrary code
        raise EncoderError(
            f"module {name!r}: importing it failed with {type(error).__name__}: {error}. Correct the module"
        ) from error


def have_weights(name: str) -> bool:
    """Whether the weights of an encoder are already on this machine; True if it needs none or is not built in."""
    entry = BY_NAME.get(full_name(name))
    return entry is None or entry.present()
