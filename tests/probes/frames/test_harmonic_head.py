"""The harmonic head treats every pitch alike, sees the right multiples of a pitch, and refuses frames that it cannot read."""

from __future__ import annotations

import pytest
import torch

from tonelake.probes.frames.harmonic_head import HARMONICS, HarmonicHead, coloured, neighbours, with_changes
from tonelake.store import InputError

WIDTH = 309


@pytest.fixture(scope="module")
def head():
    torch.manual_seed(0)
    return HarmonicHead(WIDTH, 264).eval()


def test_a_sound_five_semitones_higher_has_the_outputs_five_pitches_higher():
    """Without biases, so that silence beyond the ends of the range has no features either."""
    torch.manual_seed(0)
    head = HarmonicHead(WIDTH, 264).eval()
    for name, values in head.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.zeros_(values)
    low = torch.zeros(1, 20, WIDTH)
    low[:, 5:15, 120:150] = torch.randn(1, 10, 30, generator=torch.Generator().manual_seed(1))
    high = torch.roll(low, 15, dims=2)
    with torch.inference_mode():
        of_low, of_high = (head(x).view(1, 20, 3, 88) for x in (low, high))
    torch.testing.assert_close(of_high[..., 35:75], of_low[..., 30:70], rtol=1e-4, atol=1e-5)
    assert of_low[..., 30:70].std() > 0.01


def test_a_pitch_sees_its_multiples_and_no_sound_far_from_them(head):
    pitch, wanted = 40, set()            # number of the output; MIDI 61
    x = torch.zeros(1, 1, WIDTH, requires_grad=True)
    semitones = torch.zeros(1, 1, 103, 1)
    for shift in HARMONICS:
        semitones.zero_()
        semitones[0, 0, pitch + shift] = 1
        seen = neighbours(semitones, HARMONICS, 0, 88)[0, 0, pitch]
        assert seen.nonzero().flatten().tolist() == [HARMONICS.index(shift)]
        wanted.add(pitch + shift)
    stacked = neighbours(head.local(with_changes(x)).permute(0, 2, 3, 1), HARMONICS, 0, 88)
    (gradient,) = torch.autograd.grad(stacked[0, 0, pitch].sum(), x)
    bins = {number // 3 for number in gradient[0, 0].nonzero().flatten().tolist()}
    assert wanted <= bins <= {one + step for one in wanted for step in (-1, 0, 1)}


def test_a_smaller_range_of_pitches_has_the_outputs_of_the_whole_range(head):
    part = HarmonicHead(WIDTH, 3 * 30, lowest=50).eval()
    part.load_state_dict(head.state_dict())
    x = torch.randn(2, 40, WIDTH, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        whole, own = head(x).view(2, 40, 3, 88), part(x).view(2, 40, 3, 30)
    inner = slice(26, -26)               # other pitches count up to 24 semitones away, and one beside each
    assert own[..., inner].numel() == 0
    middle = HarmonicHead(WIDTH, 3 * 80, lowest=25).eval()
    middle.load_state_dict(head.state_dict())
    with torch.inference_mode():
        own = middle(x).view(2, 40, 3, 80)
    torch.testing.assert_close(own[..., inner], whole[..., 4:84][..., inner], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 50])
def test_segments_of_any_length_have_logits_for_every_frame(head, frames):
    assert head(torch.randn(2, frames, WIDTH)).shape == (2, frames, 264)


def test_changes_are_increases_over_three_frames_and_differences_of_one():
    x = torch.tensor([0.0, 1, 3, 2, 5, 1])[None, :, None]
    spectrum, increase, change = with_changes(x)[0, :, :, 0]
    assert spectrum.tolist() == [0, 1, 3, 2, 5, 1]
    assert increase.tolist() == [0, 0, 0, 2, 4, 0]
    assert change.tolist() == [0, 1, 2, -1, 3, -4]


def test_training_colours_segments_smoothly_and_evaluation_does_not(head):
    x = torch.zeros(3, 4, WIDTH)
    torch.manual_seed(3)
    added = coloured(x)
    assert (added[:, 0] == added[:, 3]).all() and added.std() > 0.1
    assert added.diff(dim=2).abs().max() < 0.1
    assert not torch.equal(added[0], added[1])
    assert torch.equal(head(x), head(x))


def test_frames_and_tasks_that_cannot_be_read_are_refused():
    with pytest.raises(InputError, match="cannot read frames 229 wide"):
        HarmonicHead(229, 264)
    with pytest.raises(InputError, match="pitches 100 to 187"):
        HarmonicHead(WIDTH, 264, lowest=100)
    with pytest.raises(InputError, match="reads onsets, frames and offsets of notes"):
        HarmonicHead(WIDTH, 25, lowest=None)


def test_it_learns_to_tell_a_note_from_its_overtones():
    """Notes of four partials of random loudness, one at a time, in a range of 12 pitches; another range was not heard."""
    torch.manual_seed(4)
    small = HarmonicHead(WIDTH, 3 * 12, lowest=48, dropout=0.0)
    optimizer = torch.optim.Adam(small.parameters(), 0.01)

    def notes(count: int, lowest: int) -> tuple[torch.Tensor, torch.Tensor]:
        pitch = torch.randint(0, 12, (count,))
        x = torch.full((count, 6, WIDTH), -1.0)
        for partial in (0, 12, 19, 24):
            x[torch.arange(count), 2:, 3 * (lowest - 21 + pitch + partial) + 1] = torch.rand(count, 1) + 0.5
        return x, pitch

    for _ in range(40):
        x, pitch = notes(16, 48)
        loss = torch.nn.functional.cross_entropy(small(x)[:, 4, 12:24], pitch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    other = HarmonicHead(WIDTH, 3 * 12, lowest=60).eval()
    other.load_state_dict(small.state_dict())
    with torch.inference_mode():
        x, pitch = notes(64, 60)
        assert (other(x)[:, 4, 12:24].argmax(dim=1) == pitch).float().mean() > 0.95
