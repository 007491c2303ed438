from .audio_files import SUFFIXES
from .chorale_audio import soundfont_differs
from .chorale_sources import soundfont_of
from .clip_audio import read_clips
from .datasets.base import DataSet, Listed, ListedFile, audio_below, find, inside, sub_folders
from .datasets.chorales import ingest_chorales
from .datasets.hf import ingest_hf
from .datasets.mirdata import ingest_mirdata
from .datasets.registry import FoundDataSet, find_datasets, ingest_dataset, known_datasets
from .datasets.wikimeter import ingest_catalogue
from .decoder_pool import DecoderPool, decoder_libraries
from .demo_music import write_demo_music
from .demucs_stems import DEFAULT_MODEL, Demucs, Separator, separate_clips
from .errors import AudioError, DecoderStartError
from .events.sync import EventReport, ingest_events
from .folder import ingest_folder
from .identify import identify_files
from .manifest import ingest_manifest
from .report import IngestReport
from .segment import Cut
from .sources import read_source, to_path, to_source
from .tables import read_table

__all__ = [
    "DEFAULT_MODEL",
    "SUFFIXES",
    "AudioError",
    "Cut",
    "DataSet",
    "DecoderPool",
    "DecoderStartError",
    "Demucs",
    "EventReport",
    "FoundDataSet",
    "IngestReport",
    "Listed",
    "ListedFile",
    "Separator",
    "audio_below",
    "decoder_libraries",
    "find",
    "find_datasets",
    "identify_files",
    "ingest_catalogue",
    "ingest_chorales",
    "ingest_dataset",
    "ingest_events",
    "ingest_folder",
    "ingest_hf",
    "ingest_manifest",
    "ingest_mirdata",
    "inside",
    "known_datasets",
    "read_clips",
    "read_source",
    "read_table",
    "separate_clips",
    "soundfont_differs",
    "soundfont_of",
    "sub_folders",
    "to_path",
    "to_source",
    "write_demo_music",
]
