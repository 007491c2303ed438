"""Encoders by name: built in, from the hub at a pinned revision, a checkpoint folder, or a class of another package.

A class is named `module:Class`, or by an entry point of the group `tonelake.encoders`:

    [project.entry-points."tonelake.encoders"]
    loudness = "my_package.loudness:Loudness"

A space records `module:Class` as the location of its encoder, and a lake may come from another person.  So a location is never
a path: the module has to be importable already, nothing is added to the import path, modules of the standard library are
refused, and the object has to be a class with the attributes of `Encoder`.  Importing a module runs it, as importing any
installed package does.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import socket
import sys
import urllib.parse
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tonelake.embed.encoders.base import PRECISIONS, Encoder
from tonelake.embed.errors import EncoderError
from tonelake.embed.precision import checked_at
from tonelake.store import InputError

DEFAULT_ENCODER = "m-a-p/MERT-v1-95M"
FILES = ("config.json", "preprocessor_config.json", "pytorch_model.bin")
ENTRY_POINTS = "tonelake.encoders"
CLASS_LOCATION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
ATTRIBUTES = {*Encoder.__annotations__, "prepare", "encode"} - {"location"}        # the loader sets the location


@dataclass(frozen=True)
class HubModel:
    """A model on the hub.  The revision is pinned, so a name stands for one set of weights."""

    repository: str
    revision: str
    size: str
    licence: str


HUB = {
    "m-a-p/MERT-v1-95M": HubModel("m-a-p/MERT-v1-95M", "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5", "378 MB", "CC-BY-NC-4.0"),
    "m-a-p/MERT-v1-330M": HubModel("m-a-p/MERT-v1-330M", "0e06c986db0527c0fd1b47181c40f006805e3de0", "1.3 GB", "CC-BY-NC-4.0"),
}
BUILT_IN = ("small", "spectral")
SMALL = Path(__file__).parent / "small"  # a MERT of 3 million parameters; its README states its purpose and limits
ALIASES = {"mert-95m": "m-a-p/MERT-v1-95M", "mert-330m": "m-a-p/MERT-v1-330M"}


def encoder_names() -> list[str]:
    """Names that `load_encoder` accepts, apart from checkpoint folders and `module:Class`."""
    return [*HUB, *ALIASES, *BUILT_IN, *sorted(entry_points(group=ENTRY_POINTS).names)]


def full_name(name: str) -> str:
    """Resolve aliases and entry points, so that each encoder has one name; a folder is named by its absolute path.

    >>> full_name("mert-95m"), full_name("my_package.loudness:Loudness")
    ('m-a-p/MERT-v1-95M', 'my_package.loudness:Loudness')
    """
    name = ALIASES.get(name.lower(), name)
    if name in HUB or name in BUILT_IN or is_class_location(name):
        return name
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return f"{entry.module}:{entry.attr}"
    return str(Path(name).expanduser().absolute())


def is_class_location(name: str) -> bool:
    """Whether a name has the form `module:Class`."""
    return CLASS_LOCATION.fullmatch(name) is not None


def needs_torch(location: str) -> bool:
    """Whether an encoder is one of ours that runs on torch; an encoder of another package imports what it needs."""
    return location != "spectral" and not is_class_location(location)


def load_encoder(name: str = DEFAULT_ENCODER, *, precision: str = "float32", device: str = "cpu",
                 download: bool = True, adapter: str = "", home: str = "") -> Encoder:
    """Load an encoder by name, by checkpoint folder or by `module:Class`, and apply an adapter if one is given.

    `download=False` uses only weights that are already on this machine.  `adapter`: its location; `home`: the lake that may
    contain it; see `embed.encoders.adapter`.  Raises InputError for an unknown encoder or precision, EncoderError (with
    instructions) if the weights or the class cannot be loaded or this device computes the precision wrongly, CheckpointError
    if a checkpoint is not what it claims to be.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r}: unknown. Choose one of {', '.join(PRECISIONS)}")
    name = full_name(name)
    if name == "spectral":
        from tonelake.embed.encoders.spectral import SpectralEncoder

        if precision != "float32":
            raise InputError("encoder 'spectral': computes in float32 only. Leave --precision out")
        if adapter:
            raise InputError(f"encoder 'spectral': computed, not learned, so no adapter fits. Leave out adapter {adapter}")
        return SpectralEncoder()
    if is_class_location(name):
        if adapter:
            raise InputError(f"encoder {name!r}: adapters fit MERT, HuBERT and wav2vec 2.0 only. Leave out adapter {adapter}")
        return load_class(name, precision, device)
    from tonelake.embed.encoders.adapter import read_adapter, resolve_adapter
    from tonelake.embed.encoders.hubert import HubertEncoder

    def finish(encoder: HubertEncoder) -> HubertEncoder:
        if adapter:
            encoder = encoder.adapted(read_adapter(resolve_adapter(adapter, home)), adapter)
        return checked_at(encoder, precision)

    if name in HUB:
        return finish(HubertEncoder(fetch(HUB[name], download), name=name, location=name, device=device))
    if name == "small":
        return finish(HubertEncoder(SMALL, name=name, location=name, device=device))
    folder = Path(name)
    if not folder.is_dir():
        shown = folder.name if folder.parent == Path.cwd() else str(folder)
        raise InputError(
            f"encoder {shown!r}: neither a checkpoint folder nor a known name. Choose a folder, a class as module:Class, "
            f"or one of {', '.join(encoder_names())}"
        )
    return finish(HubertEncoder(folder, device=device))


def load_class(location: str, precision: str = "float32", device: str = "cpu") -> Encoder:
    """Make an encoder of `module:Class`, with `device` and `precision` if its constructor takes them.

    Raises EncoderError if the module cannot be imported or the object is not an encoder, InputError if the encoder does not
    compute in this precision.
    """
    module_name, _, attribute = location.partition(":")
    encoder_class: Any = import_encoder_module(module_name)
    for part in attribute.split("."):
        encoder_class = getattr(encoder_class, part, None)
    if not inspect.isclass(encoder_class):
        raise EncoderError(f"encoder {location!r}: {module_name} has no class {attribute}. Check the name after the colon")
    if not callable(getattr(encoder_class, "encode", None)):
        raise EncoderError(f"encoder {location!r}: the class has no method encode. Derive it from tonelake.embed.Encoder")
    arguments = {"device": device, "precision": precision}
    parameters = inspect.signature(encoder_class).parameters
    encoder: Any = encoder_class(**{name: value for name, value in arguments.items() if name in parameters})
    if not hasattr(encoder, "clips_in_parallel"):                    # later than the first classes of other packages
        encoder.clips_in_parallel = 1
    missing = sorted(name for name in ATTRIBUTES if not hasattr(encoder, name))
    if missing:
        raise EncoderError(
            f"encoder {location!r}: lacks {', '.join(missing)}. Derive it from tonelake.embed.Encoder and declare these"
        )
    if encoder.precision != precision:
        if not hasattr(encoder, "at"):
            raise InputError(
                f"encoder {location!r}: computes in {encoder.precision}, not {precision}. Pass --precision {encoder.precision}"
            )
        encoder = checked_at(encoder, precision)
    encoder.location = location
    return encoder


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


def have_weights(name: str = DEFAULT_ENCODER) -> bool:
    """Whether the weights of a hub encoder are already on this machine."""
    try:
        fetch(HUB[full_name(name)], download=False)
        return True
    except EncoderError:
        return False


def hub_is_reachable() -> bool:
    """Whether a download is worth trying.  The hub's client retries for half a minute, while a look-up fails at once."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(name in os.environ for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True                      # the proxy resolves names
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(constants.ENDPOINT).hostname, 443)
        return True
    except OSError:
        return False


def fetch(model: HubModel, download: bool) -> Path:
    """The folder of a hub model, downloaded if it is not in the hub's cache.  Raises EncoderError."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def folder(local: bool) -> Path:
        """The folder that holds all the files."""
        where = {"revision": model.revision, "local_files_only": local}
        files = [Path(hf_hub_download(model.repository, file, **where)) for file in FILES]
        return files[0].parent

    try:
        return folder(local=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    problem: Any = "not on this machine, which has no network"
    if download and hub_is_reachable():
        try:
            return folder(local=False)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            problem = str(error).splitlines()[0]
    raise EncoderError(
        f"weights of {model.repository}: {problem}.\n"
        f"  On a machine with network ({model.size}, licence {model.licence}: not for commercial use):\n"
        f"    hf download {model.repository} --revision {model.revision} --local-dir {model.repository.split('/')[1]}\n"
        f"  then copy that folder here and pass it: tonelake embed --encoder {model.repository.split('/')[1]}\n"
        f"  Without them: tonelake embed --encoder small (a small model of the same form, to try things out), or\n"
        f"  --encoder spectral (hand-crafted descriptors)"
    )
