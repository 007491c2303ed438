"""The encoder that the app's tests run on: musicnn, or `spectral` where musicnn's weights are not on this machine."""

from __future__ import annotations

from tonelake.embed import have_weights

TAGGED = have_weights("musicnn")         # whether hits have tags
ENCODER, LAYER, OTHER = ("musicnn", "mtt.timbral", "joined") if TAGGED else ("spectral", "chroma", "mfcc")
