"""The built-in encoders, one entry each, and the classes that read checkpoint folders, by `model_type`.

An entry describes an encoder whose weights may be absent, for `tonelake encoders`; its class is imported when it is loaded.
A new encoder is one entry here; a new kind of checkpoint is one line of `CHECKPOINTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.embed.encoders.musicnn.weights import WheelWeights
from tonelake.embed.encoders.weights import HubWeights, ShippedWeights, Weights

DEFAULT_ENCODER = "m-a-p/MERT-v1-95M"    # where its weights are at hand; see `embed.encoders.default`
SECOND_ENCODER = "musicnn"               # the default where they are not
SMALL_ENCODER = "small"                  # comes with the package
BASELINE_ENCODER = "spectral"            # the descriptors that a learned encoder has to beat
SMALL = Path(__file__).parent / "small"  # a MERT of 3 million parameters; its README states its purpose and limits
WORDS_ENCODER = "laion/larger_clap_general"          # understands words
OURS, NON_COMMERCIAL = "Apache-2.0", "CC-BY-NC-4.0"
CLAP_FILES = ("config.json", "preprocessor_config.json", "pytorch_model.bin", "vocab.json", "merges.txt")
MERT2_FILES = MUQ_FILES = ("config.json", "model.safetensors")
MUQ = "muq"                              # not a model_type: MuQ's configuration has none, but these settings
MUQ_SETTINGS = {"encoder_dim", "conv_dim", "stat", "w2v2_config"}

# `model_type` of a checkpoint's config.json -> the class that reads such a folder.
CHECKPOINTS = {
    "mert_model": "tonelake.embed.encoders.hubert:HubertEncoder",
    "hubert": "tonelake.embed.encoders.hubert:HubertEncoder",
    "wav2vec2": "tonelake.embed.encoders.hubert:HubertEncoder",
    "clap": "tonelake.embed.encoders.clap.encoder:ClapEncoder",
    "mert2": "tonelake.embed.encoders.mert2.encoder:Mert2Encoder",
    MUQ: "tonelake.embed.encoders.muq.encoder:MuqEncoder",
}


def checkpoint_kind(config: dict[str, Any]) -> Any:
    """The key of a configuration in `CHECKPOINTS`, if it is there: its `model_type`, or `muq` by the form of MuQ's.

    >>> checkpoint_kind({"model_type": "hubert"}), checkpoint_kind(dict.fromkeys(MUQ_SETTINGS)), checkpoint_kind({})
    ('hubert', 'muq', None)
    """
    kind = config.get("model_type")
    return MUQ if kind is None and config.keys() >= MUQ_SETTINGS else kind


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One built-in encoder.  A space records its name as the location of the encoder."""

    name: str
    aliases: tuple[str, ...] = ()
    encoder: str = ""                    # module:Class; empty for a checkpoint folder, whose class its config.json decides
    checkpoint: str = ""                 # the kind of that folder in `CHECKPOINTS`, known before the weights are here
    weights: Weights | None = None       # passed to the class as a folder; None if it needs none
    sample_rate: int                     # Hz
    layers: int
    width: str                           # of one layer, or the range
    learned: bool = True
    needs_torch: bool = True
    words: bool = False                  # whether it has a text side
    good_for: str
    source: str = ""                     # of the figures in `good_for`

    def present(self) -> bool:
        """Whether the weights are on this machine; True if it needs none."""
        return self.weights is None or self.weights.present()

    @property
    def size(self) -> str:
        """Size of the weights."""
        return self.weights.size if self.weights else "none"

    @property
    def licence(self) -> str:
        """Licence of the weights, else that of this package."""
        return self.weights.licence if self.weights else OURS


ENTRIES = (
    Entry(
        name="m-a-p/MERT-v1-95M", aliases=("mert-95m",), checkpoint="mert_model", sample_rate=24_000, layers=13, width="768",
        weights=HubWeights(
            repository="m-a-p/MERT-v1-95M", revision="12af15fef9d0ac838c3f475bfbbf26d2060dd4f5", size="378 MB",
            licence=NON_COMMERCIAL,
        ),
        good_for="music in general; genre (GTZAN) 78.6 %, at layer 7; key: 8, emotion: 5, singer: 2, pitch: 1",
        source="arXiv 2306.00107, 2306.10548",
    ),
    Entry(
        name="m-a-p/MERT-v1-330M", aliases=("mert-330m",), checkpoint="mert_model", sample_rate=24_000, layers=25, width="1024",
        weights=HubWeights(
            repository="m-a-p/MERT-v1-330M", revision="0e06c986db0527c0fd1b47181c40f006805e3de0", size="1.3 GB",
            licence=NON_COMMERCIAL,
        ),
        good_for="music in general; genre (GTZAN) 79.3 %, at layer 10; key: 8, emotion: 10, pitch: 1",
        source="arXiv 2306.00107, 2306.10548",
    ),
    Entry(
        name=SECOND_ENCODER, encoder="tonelake.embed.encoders.musicnn.encoder:MusicnnEncoder", weights=WheelWeights(),
        sample_rate=16_000, layers=17, width="64–753",
        good_for="artists, albums and styles of recorded music, at layer joined; scores of 92 tags",
        source="arXiv 1909.06654",
    ),
    Entry(
        name="m-a-p/MERT-v2-30s", aliases=("mert2-30s",), checkpoint="mert2", sample_rate=24_000, layers=25, width="1024",
        weights=HubWeights(
            repository="m-a-p/MERT-v2-30s", revision="12130d22fd947c24b0299c9368900fb06a608512", size="2.5 GB",
            licence=NON_COMMERCIAL, files=MERT2_FILES,
        ),
        good_for="genre (GTZAN) 91.7 %, at layer 23; tags (MagnaTagATune) AP 41.3: 22, key 67.0 %: 4, mood: 16, instrument: 14",
        source="its model card",
    ),
    Entry(
        name="m-a-p/MERT-v2-FullSong", aliases=("mert2-fullsong",), checkpoint="mert2",
        sample_rate=24_000, layers=25, width="1024",
        weights=HubWeights(
            repository="m-a-p/MERT-v2-FullSong", revision="d8ba1c745e733b3908ce6ad16ebeb17ac7600a42", size="2.5 GB",
            licence=NON_COMMERCIAL, files=MERT2_FILES,
        ),
        good_for="windows of 30 to 360 s; genre (GTZAN) 90.7 %, at layer 24; tags (MagnaTagATune) AP 41.2: 23, key 67.1 %: 23",
        source="its model card",
    ),
    Entry(
        name="OpenMuQ/MuQ-large-msd-iter", aliases=("muq",), checkpoint=MUQ, sample_rate=24_000, layers=13, width="1024",
        weights=HubWeights(
            repository="OpenMuQ/MuQ-large-msd-iter", revision="0562a57814f6f8bbd9fdea0a25921a2fce1a841a", size="1.3 GB",
            licence=NON_COMMERCIAL, files=MUQ_FILES,
        ),
        good_for="music in general; trained on the Million Song Dataset, and half the size of MERT-v2",
        source="arXiv 2501.01108",
    ),
    Entry(
        name=WORDS_ENCODER, aliases=("clap",), checkpoint="clap", sample_rate=48_000, layers=5, width="128–1024", words=True,
        weights=HubWeights(
            repository=WORDS_ENCODER, revision="ada0c23a36c4e8582805bb38fec3905903f18b41", size="776 MB",
            licence="Apache-2.0", files=CLAP_FILES,
        ),
        good_for="search by words, at layer joint; trained on general audio, music and speech",
        source="arXiv 2211.06687",
    ),
    Entry(
        name="laion/clap-htsat-unfused", aliases=("clap-htsat",), checkpoint="clap",
        sample_rate=48_000, layers=5, width="96–768", words=True,
        weights=HubWeights(
            repository="laion/clap-htsat-unfused", revision="8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a", size="615 MB",
            licence="Apache-2.0", files=CLAP_FILES,
        ),
        good_for="search by words, at layer joint; smaller, trained on general audio",
        source="arXiv 2211.06687",
    ),
    Entry(
        name="laion/larger_clap_music", aliases=("clap-music",), checkpoint="clap",
        sample_rate=48_000, layers=5, width="128–1024", words=True,
        weights=HubWeights(
            repository="laion/larger_clap_music", revision="a0b4534a14f58e20944452dff00a22a06ce629d1", size="776 MB",
            licence="Apache-2.0", files=CLAP_FILES,
        ),
        good_for="sounds of music; its text side is reported to answer every prompt alike, and is refused where it does",
        source="arXiv 2211.06687; mteb issue 5069",
    ),
    Entry(
        name=SMALL_ENCODER, checkpoint="mert_model", sample_rate=24_000, layers=7, width="192",
        weights=ShippedWeights(path=SMALL, size="6 MB", licence=OURS),
        good_for="trying out what needs a transformer; no better than spectral on recorded music",
        source="embed/encoders/small/README.md",
    ),
    Entry(
        name=BASELINE_ENCODER, encoder="tonelake.embed.encoders.spectral:SpectralEncoder", sample_rate=24_000, layers=8,
        width="5–262", learned=False, needs_torch=False,
        good_for="the baseline that a learned encoder has to beat; timbre, pitch classes, rhythm, and all joined",
    ),
    Entry(
        name="vqt", encoder="tonelake.embed.encoders.spectral_frames.encoder:VqtEncoder", sample_rate=22_050, layers=1,
        width="309", learned=False, needs_torch=False,
        good_for="frames that show notes: 3 bins a semitone, filters short enough for onsets; the input of head harmonic",
    ),
    Entry(
        name="cqt", encoder="tonelake.embed.encoders.spectral_frames.encoder:CqtEncoder", sample_rate=22_050, layers=1,
        width="309", learned=False, needs_torch=False,
        good_for="frames that show pitches: 3 bins a semitone, sharp at low pitches, where onsets are blurred",
    ),
    Entry(
        name="logmel", encoder="tonelake.embed.encoders.spectral_frames.encoder:LogMelEncoder", sample_rate=22_050, layers=1,
        width="229", learned=False, needs_torch=False,
        good_for="frames that every learned encoder's frames have to beat: the mel bands of Onsets and Frames",
    ),
)
BY_NAME = {entry.name: entry for entry in ENTRIES}
ALIASES = {alias: entry.name for entry in ENTRIES for alias in entry.aliases}
