"""Where the weights of an encoder come from: the package, or the hub at a pinned revision.  Each finds one folder."""

from __future__ import annotations

import os
import socket
import urllib.parse
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.embed.errors import EncoderError
from tonelake.store import InputError

WITHOUT_WEIGHTS = (
    "  Without them: tonelake embed --encoder small (a small model of the same form, to try things out), or\n"
    "  --encoder spectral (hand-crafted descriptors)"
)


class Weights(ABC):
    """The files of one encoder, which lie in one folder."""

    size: str
    licence: str

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where they come from, for a list."""

    @abstractmethod
    def folder(self, download: bool) -> Path:
        """The folder that contains them.  Raises EncoderError, with instructions, if it is not on this machine.

        `download`: fetch them if they are absent and this machine has a network.
        """

    def fetch(self, file: Path | None = None) -> Path:
        """Fetch them, also if files are here that cannot be used, or take them from a file, and return their folder.

        Raises EncoderError if they cannot be had, InputError if they do not come as one file.
        """
        if file is not None:
            raise InputError(f"{file}: these weights are a folder, not one file. Pass the folder to `tonelake embed --encoder`")
        return self.folder(download=True)

    def present(self) -> bool:
        """Whether they are on this machine."""
        try:
            self.folder(download=False)
            return True
        except EncoderError:
            return False


@dataclass(frozen=True, kw_only=True)
class ShippedWeights(Weights):
    """Weights that are part of this package."""

    path: Path
    size: str
    licence: str

    @property
    def origin(self) -> str:
        return "this package"

    def folder(self, download: bool) -> Path:
        return self.path


@dataclass(frozen=True, kw_only=True)
class HubWeights(Weights):
    """Weights on the hub.  The revision is pinned, so a name identifies one set of weights."""

    repository: str
    revision: str
    size: str
    licence: str
    files: tuple[str, ...] = ("config.json", "preprocessor_config.json", "pytorch_model.bin")

    @property
    def origin(self) -> str:
        return f"hub, {self.repository}"

    def folder(self, download: bool) -> Path:
        """The folder in the hub's cache, downloaded if it is absent.  Raises EncoderError."""
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        def found(local: bool) -> Path:
            """The folder that holds all the files."""
            where = {"revision": self.revision, "local_files_only": local}
            paths = [Path(hf_hub_download(self.repository, file, **where)) for file in self.files]
            return paths[0].parent

        try:
            return found(local=True)
        except (LocalEntryNotFoundError, OSError, ValueError):
            pass
        problem: Any = "not on this machine, which has no network"
        if download and hub_is_reachable():
            try:
                return found(local=False)
            except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
                problem = str(error).splitlines()[0]
        name = self.repository.split("/")[1]
        terms = ": not for commercial use" if "-NC" in self.licence else ""
        raise EncoderError(
            f"weights of {self.repository}: {problem}.\n"
            f"  On a machine with network ({self.size}, licence {self.licence}{terms}):\n"
            f"    hf download {self.repository} --revision {self.revision} --local-dir {name}\n"
            f"  then copy that folder here and pass it: tonelake embed --encoder {name}\n"
            f"{WITHOUT_WEIGHTS}"
        )


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
