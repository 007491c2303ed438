from .clip_audio import read_clips
from .datasets import SETS, ingest_dataset
from .datasets.chorales import ingest_chorales
from .datasets.wikimeter import ingest_catalogue
from .decoder_pool import DecoderPool
from .demucs_stems import DEFAULT_MODEL, Demucs, Separator, separate_clips
from .errors import AudioError
from .file_stamps import FileStamps
from .folder import SUFFIXES, ingest_folder
from .manifest import ingest_manifest
from .recordings import IngestReport
from .segment import Cut
from .sources import read_source, to_path, to_source
from .tables import read_table

__all__ = [
    "AudioError",
    "Cut",
    "DEFAULT_MODEL",
    "DecoderPool",
    "Demucs",
    "FileStamps",
    "IngestReport",
    "SETS",
    "SUFFIXES",
    "Separator",
    "ingest_catalogue",
    "ingest_chorales",
    "ingest_dataset",
    "ingest_folder",
    "ingest_manifest",
    "read_clips",
    "read_source",
    "read_table",
    "separate_clips",
    "to_path",
    "to_source",
]
