"""Audio in, clips out: folders, manifests and chorales; decoding in processes that may die alone."""

from ingest.catalogue import ingest_catalogue
from ingest.chorales import ingest_chorales
from ingest.datasets import SETS, ingest_dataset
from ingest.errors import AudioError
from ingest.folder import SUFFIXES, ingest_folder
from ingest.manifest import ingest_manifest
from ingest.recordings import IngestReport, Progress, silent_progress
from ingest.segment import Cut
from ingest.separate import DEFAULT_MODEL, Demucs, Separator, separate_clips
from ingest.sources import read_source, to_path, to_source
from ingest.tables import read_table
from ingest.waves import read_clips
from ingest.workers import Workers

__all__ = [
    "DEFAULT_MODEL", "SETS", "SUFFIXES", "AudioError", "Cut", "Demucs", "IngestReport", "Progress", "Separator", "Workers",
    "ingest_catalogue",
    "ingest_chorales", "ingest_dataset",
    "ingest_folder", "ingest_manifest", "read_clips", "read_source", "read_table", "separate_clips",
    "silent_progress", "to_path", "to_source",
]
