"""The exceptions of tonelake.  Every error that a user can cause is a TonelakeError and names the remedy.

TonelakeError
├── InputError            what was asked cannot be done as asked (exit code 2)
│   ├── FilterError       an SQL filter that does not parse or names an unknown column
│   ├── ClipNotFound
│   └── SpaceNotFound
└── LakeError             the lake is not what it should be (exit code 1)
    └── SpaceMismatch     vectors of two spaces were about to be mixed

`embed` and `ingest` add EncoderError and AudioError to this tree.
"""


class TonelakeError(Exception):
    """Base of every error that tonelake raises on purpose."""


class InputError(TonelakeError, ValueError):
    """The request itself is wrong: a value, a name, a filter."""


class FilterError(InputError):
    """An SQL filter over clip columns cannot be used."""


class ClipNotFound(InputError):
    """No clip of that id is in the lake."""


class SpaceNotFound(InputError):
    """No space of that name is in the lake, or none was named where several exist."""


class LakeError(TonelakeError):
    """The lake cannot be opened, or what it holds contradicts itself."""


class SpaceMismatch(LakeError):
    """Vectors or settings of two different spaces met."""
