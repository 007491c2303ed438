"""Encoders by name: built in, from the hub at a pinned revision, or a checkpoint folder."""

from __future__ import annotations

import os
import socket
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.embed.encoders.base import PRECISIONS, Encoder
from tonelake.embed.errors import EncoderError
from tonelake.store import InputError

DEFAULT_ENCODER = "m-a-p/MERT-v1-95M"
FILES = ("config.json", "preprocessor_config.json", "pytorch_model.bin")


@dataclass(frozen=True)
class HubModel:
    """A model of the hub.  The revision is pinned, so that a name means the same weights tomorrow."""

    repository: str
    revision: str
    size: str
    licence: str


HUB = {
    "m-a-p/MERT-v1-95M": HubModel("m-a-p/MERT-v1-95M", "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5", "378 MB", "CC-BY-NC-4.0"),
    "m-a-p/MERT-v1-330M": HubModel("m-a-p/MERT-v1-330M", "0e06c986db0527c0fd1b47181c40f006805e3de0", "1.3 GB", "CC-BY-NC-4.0"),
}
OURS = ("small", "spectral")             # that come with tonelake
SMALL = Path(__file__).parent / "small"  # a MERT of 3 million parameters; its README says what it is, and is not
SHORT = {"mert-95m": "m-a-p/MERT-v1-95M", "mert-330m": "m-a-p/MERT-v1-330M"}


def encoder_names() -> list[str]:
    """What `load_encoder` knows by name."""
    return [*HUB, *SHORT, "small", "spectral"]


def full_name(name: str) -> str:
    """`mert-95m` and `m-a-p/MERT-v1-95M` are one encoder; a folder is named by its absolute path.

    >>> full_name("mert-95m")
    'm-a-p/MERT-v1-95M'
    """
    name = SHORT.get(name.lower(), name)
    return name if name in HUB or name in OURS else str(Path(name).expanduser().absolute())


def load_encoder(name: str = DEFAULT_ENCODER, *, precision: str = "float32", device: str = "cpu",
                 download: bool = True, adapter: str = "", home: str = "") -> Encoder:
    """The encoder of that name, or of that checkpoint folder, with an adapter where one is named.

    Raises InputError for what is no encoder or precision, EncoderError where the weights cannot be had, saying how to get
    them, and CheckpointError where they are not what they should be.  `download` False: only what is on this machine
    already.  `adapter`: its location, `home` the lake that it may lie in; see `embed.encoders.adapter`.
    """
    if precision not in PRECISIONS:
        raise InputError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    name = full_name(name)
    if name == "spectral":
        from tonelake.embed.encoders.spectral import SpectralEncoder

        if precision != "float32":
            raise InputError("spectral descriptors are computed in float32 only: leave --precision out")
        if adapter:
            raise InputError(f"spectral descriptors are computed, not learned: no adapter fits them, and {adapter} does not")
        return SpectralEncoder()
    from tonelake.embed.encoders.adapter import read_adapter, resolve_adapter
    from tonelake.embed.encoders.hubert import HubertEncoder

    def ready(encoder: HubertEncoder) -> HubertEncoder:
        if adapter:
            encoder = encoder.adapted(read_adapter(resolve_adapter(adapter, home)), adapter)
        return encoder.at(precision)

    if name in HUB:
        return ready(HubertEncoder(fetch(HUB[name], download), name=name, location=name, device=device))
    if name == "small":
        return ready(HubertEncoder(SMALL, name=name, location=name, device=device))
    folder = Path(name)
    if not folder.is_dir():
        asked = folder.name if folder.parent == Path.cwd() else str(folder)
        raise InputError(
            f"{asked!r} is neither a checkpoint folder nor an encoder known by name ({', '.join(encoder_names())})"
        )
    return ready(HubertEncoder(folder, device=device))


def have_weights(name: str = DEFAULT_ENCODER) -> bool:
    """Whether an encoder of the hub is on this machine already."""
    try:
        fetch(HUB[full_name(name)], download=False)
        return True
    except EncoderError:
        return False


def hub_is_reachable() -> bool:
    """Whether a download is worth trying.  The hub's client retries for half a minute where a look-up fails at once."""
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
    """The folder of a hub model, downloaded where it is not in the hub's cache.  Raises EncoderError."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def folder(local: bool) -> Path:
        """Where all the files are, once they are."""
        where = {"revision": model.revision, "local_files_only": local}
        files = [Path(hf_hub_download(model.repository, file, **where)) for file in FILES]
        return files[0].parent

    try:
        return folder(local=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass
    problem: Any = "they are not on this machine, and it has no network"
    if download and hub_is_reachable():
        try:
            return folder(local=False)
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
            problem = str(error).splitlines()[0]
    raise EncoderError(
        f"the weights of {model.repository} cannot be had: {problem}.\n"
        f"  On a machine with network ({model.size}, licence {model.licence}: not for commercial use):\n"
        f"    hf download {model.repository} --revision {model.revision} --local-dir {model.repository.split('/')[1]}\n"
        f"  then copy that folder here and pass it: tonelake embed --encoder {model.repository.split('/')[1]}\n"
        f"  Without them: tonelake embed --encoder small (a little model of the same form, to try things out), or\n"
        f"  --encoder spectral (hand-crafted descriptors)"
    )
