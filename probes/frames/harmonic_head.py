"""A head for constant-Q and variable-Q frames whose weights are shared by all pitches: it learns what a note is, once.

(batch, frame, bin) states of `vqt` or `cqt` to (batch, frame, output) logits: onset, frame and offset of every pitch.  At each
pitch it sees features of the bins at its multiples and fractions (a quarter to eight times its frequency), so that a harmonic
spectrum looks alike at every pitch, and timbres that were not heard are read better than by a head with weights of its own for
each bin.  Bittner et al. (ISMIR 2017, ICASSP 2022) stack harmonics likewise.

    local     a convolution over 7 frames and 5 bins of the spectrum, of its increase over 3 frames, and of its change from one
              frame to the next, which shows a note that is repeated while it sounds
    stack     the features at 11 multiples of the pitch, side by side; a linear layer mixes them
    near      a convolution over 5 frames and 3 pitches
    others    features of pitches an octave and other simple intervals away, so that an overtone of a note that sounds is not
              taken for another note
    time      convolutions over time alone

In training every segment is coloured: its spectrum is raised and lowered smoothly over frequency, as by another instrument or
room.  States must be standardised by one mean and deviation for all bins, or the pitches would not look alike.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tonelake.embed import BINS_PER_SEMITONE, LOWEST_PITCH
from tonelake.store import InputError

HARMONICS = (-24, -19, -12, 0, 12, 19, 24, 28, 31, 34, 36)           # semitones: 1/4, 1/3, 1/2, 1, … 8 times the frequency
INTERVALS = (-24, -19, -12, -7, -5, 5, 7, 12, 19, 24)                # semitones to other pitches
GROUPS = 3                               # onset, frame, offset
LOCAL, MIXED, HIDDEN, SHARED = 16, 32, 24, 8
RARE = (-5.0, -2.5, -5.0)                # start of the bias: onsets and offsets are rare
GAIN, COLOUR, POINTS = 0.3, 0.7, 8       # deviations of the colouring, in deviations of the states: about 4 and 10 dB


class HarmonicHead(nn.Module):
    """(batch, frame, width) to (batch, frame, output)."""

    def __init__(self, width: int, outputs: int, *, lowest: int | None = LOWEST_PITCH, dropout: float = 0.1) -> None:
        """`outputs`: three for each pitch from `lowest`, a MIDI number.  Raises InputError unless the bins reach them."""
        super().__init__()
        semitones, rest = divmod(width, BINS_PER_SEMITONE)
        if lowest is None or outputs % GROUPS:
            raise InputError("head harmonic: reads onsets, frames and offsets of notes. Choose --head conv for other tasks")
        self.pitches, self.first = outputs // GROUPS, lowest - LOWEST_PITCH
        if rest or self.first < 0 or self.first + self.pitches > semitones:
            raise InputError(
                f"head harmonic: cannot read frames {width} wide at pitches {lowest} to {lowest + self.pitches - 1}. Choose a "
                "space of encoder vqt or cqt, or --head conv"
            )
        self.local = nn.Conv2d(3, LOCAL, (7, 5), stride=(1, BINS_PER_SEMITONE), padding=(3, 1))
        self.stack = nn.Linear(LOCAL * len(HARMONICS), MIXED)
        self.near = nn.Conv2d(MIXED, HIDDEN, (5, 3), padding=(2, 1))
        self.shared = nn.Linear(HIDDEN, SHARED)
        self.others = nn.Linear(SHARED * len(INTERVALS), HIDDEN)
        self.time = nn.Conv2d(HIDDEN, HIDDEN, (5, 1), padding=(4, 0), dilation=(2, 1))
        self.output = nn.Conv2d(HIDDEN, GROUPS, (7, 1), padding=(3, 0))
        self.dropout = nn.Dropout2d(dropout)
        assert self.output.bias is not None
        with torch.no_grad():
            self.output.bias.copy_(torch.tensor(RARE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = coloured(x)
        features = functional.relu(self.local(with_changes(x)))                          # (batch, channel, frame, semitone)
        stacked = neighbours(channels_last(features), HARMONICS, self.first, self.pitches)
        mixed = functional.relu(self.stack(stacked))                                     # (batch, frame, pitch, channel)
        near = functional.relu(self.near(self.dropout(channels_first(mixed))))
        shared = functional.relu(self.shared(channels_last(near)))
        others = functional.relu(self.others(neighbours(shared, INTERVALS, 0, self.pitches)))
        hidden = self.dropout(near + channels_first(others))
        hidden = hidden + functional.relu(self.time(hidden))
        return self.output(hidden).transpose(1, 2).flatten(2)                            # (batch, frame, group · pitch)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


def with_changes(x: torch.Tensor) -> torch.Tensor:
    """(batch, frame, bin) to (batch, 3, frame, bin): the spectrum, its increase over 3 frames, and over one frame with sign."""
    increase = functional.pad(x[:, 3:] - x[:, :-3], (0, 0, 3, 0)).clamp_min(0)[:, : x.shape[1]]
    change = functional.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))
    return torch.stack([x, increase, change], dim=1).contiguous(memory_format=torch.channels_last)


def neighbours(x: torch.Tensor, semitones: tuple[int, ...], first: int, count: int) -> torch.Tensor:
    """(batch, frame, semitone, channel) to (batch, frame, count, shift · channel): features at each shift from each pitch.

    `first`: semitone of the first of `count` pitches.  Beyond the ends are zeros.
    """
    before = max(0, -(first + min(semitones)))
    after = max(0, first + count + max(semitones) - x.shape[2])
    padded = functional.pad(x, (0, 0, before, after))
    starts = [before + first + shift for shift in semitones]
    return torch.cat([padded[:, :, start : start + count] for start in starts], dim=3)


def coloured(x: torch.Tensor) -> torch.Tensor:
    """Add a random gain and a random smooth curve over frequency to each segment of (batch, frame, bin)."""
    gain = torch.randn(len(x), 1, 1, device=x.device) * GAIN
    curve = torch.randn(len(x), 1, POINTS, device=x.device) * COLOUR
    return x + (gain + functional.interpolate(curve, size=x.shape[2], mode="linear", align_corners=True)).to(x.dtype)
