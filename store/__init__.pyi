from .blobs import Blobs, is_local
from .cache import cache_folder
from .clips import Added, Clips, source_exists
from .columns import (
    DTYPES,
    FIXED_COLUMNS,
    FIXED_GROUP_COLUMNS,
    MISSING,
    SEPARATED_FROM,
    SETTABLE_COLUMNS,
    SUPERSEDED,
    TAG_COLUMNS,
    ColumnKind,
    can_group,
    descriptive_columns,
    element_kind,
    group_columns,
    is_list,
    is_number,
    joined_lists,
    kind_of,
    label_columns,
    value_rows,
)
from .compaction import MANY_FRAGMENTS, SHORT_MINUTES, optimize, release_versions_quietly, temporary_files, tidy, trim_quietly
from .errors import ClipNotFound, FilterError, InputError, LakeError, SpaceMismatch, SpaceNotFound, TonelakeError
from .extras import MissingExtra, import_extra, install_command, require_extra
from .failures import Failure, Failures, failure_id
from .files import FILE_TAGS, STAMP, Files, file_rows
from .forgetting import ForgetReport, forget
from .format import format_of, newest_format, write_format
from .fragments import Fragment, append_fragments, write_fragment
from .frames import Frames, FrameStates, layer_with_frames
from .key_rows import KeyRows
from .lake import Lake
from .locks import exclusive_lock, lock_of_module
from .machine import cores, memory_bytes, processor_name, share_cores
from .names import Names
from .numba_cache import compiler_lock, explain_unwritable_cache
from .process import prepare_process
from .progress import Progress, silent_progress
from .projection import Projection, extend_projected, is_projection, make_projected, read_projection
from .runs import CONFIG_FILE, METRICS_FILE, REPORT_FILE, FinishedRun, check_same_run, choose_run, lock_run
from .settings import (
    Count,
    NonNegative,
    Positive,
    SettingField,
    Settings,
    Share,
    Texts,
    frozen_settings,
    parse_settings,
    setting_fields,
    settings_to_yaml,
)
from .space import Space, Spaces, check_name
from .states import states_of
from .sync import Synced, sync_clips
from .table import Snapshot, Table, chunks, in_list, release_memory
from .text import printable, to_nfc
from .tokens import Tokens, TokenSequence
from .tracks import DUPLICATE_COLUMN, Songs, read_songs, rows_of, song_columns, track_numbers
from .type_checks import check_types
from .upgrade import pending_upgrades, upgrade_lake
from .vectors import LayerVectors, Vectors, fits

__all__ = [
    "CONFIG_FILE",
    "DTYPES",
    "DUPLICATE_COLUMN",
    "FILE_TAGS",
    "FIXED_COLUMNS",
    "FIXED_GROUP_COLUMNS",
    "MANY_FRAGMENTS",
    "METRICS_FILE",
    "MISSING",
    "REPORT_FILE",
    "SEPARATED_FROM",
    "SETTABLE_COLUMNS",
    "SHORT_MINUTES",
    "STAMP",
    "SUPERSEDED",
    "TAG_COLUMNS",
    "Added",
    "Blobs",
    "ClipNotFound",
    "Clips",
    "ColumnKind",
    "Count",
    "Failure",
    "Failures",
    "Files",
    "FilterError",
    "FinishedRun",
    "ForgetReport",
    "Fragment",
    "FrameStates",
    "Frames",
    "InputError",
    "KeyRows",
    "Lake",
    "LakeError",
    "LayerVectors",
    "MissingExtra",
    "Names",
    "NonNegative",
    "Positive",
    "Progress",
    "Projection",
    "SettingField",
    "Settings",
    "Share",
    "Snapshot",
    "Songs",
    "Space",
    "SpaceMismatch",
    "SpaceNotFound",
    "Spaces",
    "Synced",
    "Table",
    "Texts",
    "TokenSequence",
    "Tokens",
    "TonelakeError",
    "Vectors",
    "append_fragments",
    "cache_folder",
    "can_group",
    "check_name",
    "check_same_run",
    "check_types",
    "choose_run",
    "chunks",
    "compiler_lock",
    "cores",
    "descriptive_columns",
    "element_kind",
    "exclusive_lock",
    "explain_unwritable_cache",
    "extend_projected",
    "failure_id",
    "file_rows",
    "fits",
    "forget",
    "format_of",
    "frozen_settings",
    "group_columns",
    "import_extra",
    "in_list",
    "install_command",
    "is_list",
    "is_local",
    "is_number",
    "is_projection",
    "joined_lists",
    "kind_of",
    "label_columns",
    "layer_with_frames",
    "lock_of_module",
    "lock_run",
    "make_projected",
    "memory_bytes",
    "newest_format",
    "optimize",
    "parse_settings",
    "pending_upgrades",
    "prepare_process",
    "printable",
    "processor_name",
    "read_projection",
    "read_songs",
    "release_memory",
    "release_versions_quietly",
    "require_extra",
    "rows_of",
    "setting_fields",
    "settings_to_yaml",
    "share_cores",
    "silent_progress",
    "song_columns",
    "source_exists",
    "states_of",
    "sync_clips",
    "temporary_files",
    "tidy",
    "to_nfc",
    "track_numbers",
    "trim_quietly",
    "upgrade_lake",
    "value_rows",
    "write_format",
    "write_fragment",
]
