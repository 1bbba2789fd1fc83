"""What of a clip an edit changes, and that what cannot be is said before a long video is encoded."""

from __future__ import annotations

import numpy as np
import pytest

from videodit.edit import _latent_mask
from videodit.shapes import Size


@pytest.mark.parametrize(("frames", "lead", "time"), [(17, 3, 4), (15, 3, 4), (16, 0, 4), (5, 0, 1), (1, 3, 4)])
def test_the_group_of_a_frame_that_changes_is_made_anew_and_no_other(frames: int, lead: int, time: int) -> None:
    grid = Size(-(-(frames + lead) // time), 2, 2)
    for frame in range(frames):
        change = np.zeros((frames, 16, 16), bool)
        change[frame, 3, 12] = True
        marks = _latent_mask(change, grid, lead, time)[0, 0]
        assert marks.nonzero().tolist() == [[(frame + lead) // time, 0, 1]]
