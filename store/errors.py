"""The exceptions of tonelake.  Every error that a user can cause is a TonelakeError and names the remedy.

TonelakeError
├── InputError            the request cannot be met as given (exit code 2)
│   ├── FilterError       an SQL filter that does not parse or names an unknown column
│   ├── ClipNotFound
│   └── SpaceNotFound
└── LakeError             the lake is damaged or contradicts itself (exit code 1)
    └── SpaceMismatch     vectors of two spaces would be mixed

`embed` and `ingest` add EncoderError and AudioError to this tree.
"""


class TonelakeError(Exception):
    """Base of every error that tonelake raises on purpose."""


class InputError(TonelakeError, ValueError):
    """The request itself is wrong: a value, a name, a filter."""


class FilterError(InputError):
    """An SQL filter over clip columns is invalid."""


class ClipNotFound(InputError):
    """The lake has no clip with that id."""


class SpaceNotFound(InputError):
    """The lake has no space of that name, or none at all."""


class LakeError(TonelakeError):
    """The lake cannot be opened, or its contents contradict each other."""


class SpaceMismatch(LakeError):
    """Vectors or settings of two different spaces would be mixed."""
