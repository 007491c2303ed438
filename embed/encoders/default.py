"""The encoder that is used where none is named: the first of `PREFERRED` whose weights are on this machine.

Nothing is downloaded for a default: a download is asked for by name, with `tonelake weights NAME` or `--encoder NAME`.
"""

from __future__ import annotations

from tonelake.embed.encoders.table import BASELINE_ENCODER, BY_NAME, DEFAULT_ENCODER, SECOND_ENCODER, SMALL_ENCODER
from tonelake.embed.errors import EncoderError

PREFERRED = (DEFAULT_ENCODER, SECOND_ENCODER)


def default_encoder() -> tuple[str, str]:
    """The name of the encoder to use where none is named, and a sentence that gives the reason.

    Raises EncoderError, with the commands that help, if none of `PREFERRED` has its weights on this machine.
    """
    for rank, name in enumerate(PREFERRED):
        if BY_NAME[name].present():
            absent = f", which has no weights of {' or '.join(PREFERRED[:rank])}" if rank else ", which has its weights"
            return name, f"encoder {name}: the default on this machine{absent}"
    second, first = BY_NAME[SECOND_ENCODER], BY_NAME[DEFAULT_ENCODER]
    raise EncoderError(
        f"no encoder named: this machine has no weights of {' or '.join(PREFERRED)}.\n"
        f"  Fetch some: tonelake weights {second.name} ({second.size}; licence {second.licence}), or\n"
        f"    tonelake weights {first.aliases[0]} ({first.size}; licence {first.licence})\n"
        f"  Without a network: tonelake embed --encoder {SMALL_ENCODER} (a small transformer, to try things out), or\n"
        f"    --encoder {BASELINE_ENCODER} (hand-crafted descriptors)"
    )
