"""Settings of published experiments by name, for results that can be compared with theirs.

    beatmeter   METER2800 with WIKIMETER: which meters does a clip have?  As the defaults, which are WIKIMETER's, with up to 80
                epochs, white noise of 0.01, circular shifts of up to 0.5 s, and a head over the outputs of the blocks only

A recipe is given by `--recipe`; options beside it override it, and the run's config.yaml has the values and the name.
"""

from __future__ import annotations

from typing import Any

from tonelake.store import InputError

RECIPES: dict[str, dict[str, Any]] = {
    "beatmeter": {"epochs": 80, "noise": 0.01, "shift_s": 0.5, "first_layer": 1},
}


def recipe_settings(name: str) -> dict[str, Any]:
    """Return the settings of a recipe, none for an empty name.  Raises InputError for an unknown recipe."""
    if name and name not in RECIPES:
        raise InputError(f"--recipe {name}: unknown. Choose {', '.join(RECIPES)}")
    return dict(RECIPES.get(name, {}))
