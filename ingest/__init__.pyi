from .audio_files import SUFFIXES
from .beets import ingest_beets
from .chorale_audio import soundfont_differs
from .chorale_sources import is_chorale, soundfont_of
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
from .jellyfin.client import JellyfinError, JellyfinServer
from .jellyfin.sync import ingest_jellyfin
from .manifest import ingest_manifest
from .repeat import can_repeat, listed_files, repeat_ingest
from .report import IngestReport
from .segment import Cut
from .sources import is_available, is_file_source, local_file, read_source, sources_below, to_path, to_source
from .subsonic.client import SubsonicError, SubsonicServer
from .subsonic.login import server_address
from .subsonic.sync import ServerReport, ingest_subsonic
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
    "JellyfinError",
    "JellyfinServer",
    "Listed",
    "ListedFile",
    "Separator",
    "ServerReport",
    "SubsonicError",
    "SubsonicServer",
    "audio_below",
    "can_repeat",
    "decoder_libraries",
    "find",
    "find_datasets",
    "identify_files",
    "ingest_beets",
    "ingest_catalogue",
    "ingest_chorales",
    "ingest_dataset",
    "ingest_events",
    "ingest_folder",
    "ingest_hf",
    "ingest_jellyfin",
    "ingest_manifest",
    "ingest_mirdata",
    "ingest_subsonic",
    "inside",
    "is_available",
    "is_chorale",
    "is_file_source",
    "known_datasets",
    "listed_files",
    "local_file",
    "read_clips",
    "read_source",
    "read_table",
    "repeat_ingest",
    "separate_clips",
    "server_address",
    "soundfont_differs",
    "soundfont_of",
    "sources_below",
    "sub_folders",
    "to_path",
    "to_source",
    "write_demo_music",
]
