"""Commands whose defaults are those of a library function, and whose options include the fields of a settings class.

Both are imported when a command runs or shows its help, not when `tonelake --help` lists the commands.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from tonelake.store import SettingField

FROM_LIBRARY: Any = None                 # default of an option: that of the library function's parameter
GIVEN = "tonelake.settings"              # key of the settings in a context's `meta`
PANEL = "Settings"


def library_command(
    function: str = "", *, settings: str = "", without: tuple[str, ...] = (), switch: tuple[str, str] | None = None,
    **renamed: str,
) -> type[TyperCommand]:
    """A command class for `@app.command(cls=…)`.

    `function`, as "tonelake.index:similar": options declared with FROM_LIBRARY take its defaults, by name, or by
    `renamed` (option="parameter").  `settings`, as "tonelake.probes:ProbeConfig": its fields become options, except those
    in `without`; the command finds what was given by `given_settings`.  `switch`: a flag of the command
    and a second class, whose settings hold where the flag is given; options that only the other class has are refused.
    """

    class LibraryCommand(TyperCommand):
        _declared: list[Any]
        _complete: list[Any] | None = None
        _fields: list[SettingField]

        @property
        def params(self) -> list[Any]:
            if self._complete is None:
                if function:
                    take_defaults(self._declared, find(function), renamed)
                self._fields = fields_of(find(settings), without) if settings else []
                if switch:
                    self._fields = joined_fields(self._fields, fields_of(find(switch[1]), without), switch[0])
                self._complete = [*self._declared, *(setting_params(self._fields) if settings else [])]
            return self._complete

        @params.setter
        def params(self, declared: list[Any]) -> None:
            self._declared, self._complete = declared, None

        def invoke(self, ctx: Any) -> Any:
            given = {field.name: ctx.params.pop(field.name) for field in self._fields}
            ctx.meta[GIVEN] = {
                field.name: split(given[field.name], field) for field in self._fields if given[field.name] is not None
            }
            if switch:
                on = bool(ctx.params[switch[0]])
                chosen, other = (switch[1], settings) if on else (settings, switch[1])
                check_fields(ctx.meta[GIVEN], fields_of(find(chosen), ()), fields_of(find(other), ()), f"--{switch[0]}", on)
            return super().invoke(ctx)

    return LibraryCommand


def given_settings(context: typer.Context) -> dict[str, Any]:
    """The settings that were given as options, by name."""
    return dict(context.meta[GIVEN])


def find(path: str) -> Any:
    """The object that "module:name" or "module:class.name" names."""
    module, _, names = path.partition(":")
    return reduce(getattr, names.split("."), import_module(module))


def take_defaults(params: list[Any], function: Any, renamed: Mapping[str, str]) -> None:
    """Set defaults that are left to the library."""
    parameters = inspect.signature(function).parameters
    for param in params:
        known = parameters.get(renamed.get(param.name, param.name))
        if param.default is None and known is not None and isinstance(known.default, bool | int | float | str):
            param.default = known.default


def fields_of(settings: Any, without: tuple[str, ...]) -> list[SettingField]:
    from tonelake.store import setting_fields

    return [field for field in setting_fields(settings) if field.name not in without]


def joined_fields(first: list[SettingField], second: list[SettingField], flag: str) -> list[SettingField]:
    """The fields of two classes: those that both have once, with the choices and help texts of both."""
    from dataclasses import replace

    own, more = ({field.name: field for field in fields} for fields in (first, second))
    found = []
    for field in [*first, *(field for field in second if field.name not in own)]:
        if field.name in own and field.name in more:
            other = more[field.name]
            texts = [help_text(one).removesuffix(".") for one in (field, other)]
            text = texts[0] if texts[0] == texts[1] else f"{texts[0]}. With --{flag}: {texts[1][0].lower()}{texts[1][1:]}"
            field = replace(
                field, choices=tuple(dict.fromkeys([*field.choices, *other.choices])), description=f"{text}.", default=None,
                limits="",
            )
        elif field.name in more:
            field = replace(field, description=f"With --{flag}: {field.description[0].lower()}{field.description[1:]}")
        found.append(field)
    return found


def check_fields(
    given: Mapping[str, Any], fields: list[SettingField], others: list[SettingField], flag: str, on: bool
) -> None:
    """Raise BadParameter for a setting, or a choice, that only the other class of settings has."""
    own, more = ({field.name: field for field in some} for some in (fields, others))
    goes = f"goes without {flag}" if on else f"goes with {flag}"
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name not in own:
            raise typer.BadParameter(f"{option}: {goes}. {'Leave one of them out' if on else f'Add {flag}'}")
        if own[name].choices and value not in own[name].choices and value in more[name].choices:
            raise typer.BadParameter(f"{option} {value}: {goes}. Choose {', '.join(own[name].choices)}")


def setting_params(fields: list[SettingField]) -> list[Any]:
    """Command-line parameters of settings, made by Typer from the signature of a function."""

    def command(**_: Any) -> None: ...

    command.__signature__ = inspect.Signature([setting_option(field) for field in fields])     # type: ignore[attr-defined]
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return list(typer.main.get_command(app).params)


def setting_option(field: SettingField) -> inspect.Parameter:
    """An option without a default, so that a setting which is not given can come from a file."""
    flag = f"--{field.name.replace('_', '-')}"
    names = (f"{flag}/--no-{flag.removeprefix('--')}",) if field.kind is bool else (flag,)
    kind: Any = str if field.several else Literal[field.choices] if field.choices else field.kind
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None,
        annotation=Annotated[kind | None, typer.Option(*names, help=help_text(field), rich_help_panel=PANEL)],
    )


def help_text(field: SettingField) -> str:
    """The description of a setting with its range and default.

    >>> from tonelake.store import SettingField
    >>> help_text(SettingField(
    ...     name="epochs", kind=int, several=False, optional=False, required=False, default=50, choices=(),
    ...     limits=" of 1 or more", description="Maximum number of epochs.",
    ... ))
    'Maximum number of epochs; 1 or more; default: 50.'
    """
    parts = [field.description.removesuffix(".")]
    if field.limits:
        parts.append(field.limits.strip().removeprefix("of "))
    default = field.default
    if field.kind is not bool and default not in (None, "") and "default:" not in field.description:
        parts.append(f"default: {','.join(map(str, default)) if isinstance(default, tuple) else default}")
    return "; ".join(parts) + "."


def split(value: Any, field: SettingField) -> Any:
    """A list written with commas, `1e-3,1e-2`, as a tuple of values; other values as they are."""
    if not field.several:
        return value
    try:
        return tuple(field.kind(part.strip()) for part in value.split(","))
    except ValueError as error:
        flag = f"--{field.name.replace('_', '-')}"
        raise typer.BadParameter(f"{flag} {value!r}: not a list of numbers. Separate numbers by commas: 1e-3,1e-2") from error
