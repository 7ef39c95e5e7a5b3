"""Contact sheets."""

import cv2
import numpy as np
import pytest

from flows.reporting import sheet


def test_sheet_places_first_and_last_frame() -> None:
    clip = np.zeros((9, 32, 32, 3), np.uint8)
    clip[:, :, :, 0] = (np.arange(9) * 30)[:, None, None]
    picture = cv2.imdecode(
        np.frombuffer(sheet([clip, clip[::-1]], columns=3, height=32), np.uint8), cv2.IMREAD_COLOR
    )
    assert picture.shape == (32 * 2 + 2, 32 * 3 + 2 * 2, 3)
    red = picture[:, :, 2]
    assert [int(red[16, x]) for x in (16, 50, 84)] == [0, 120, 240]
    assert [int(red[50, x]) for x in (16, 50, 84)] == [240, 120, 0]


@pytest.mark.parametrize(
    "frames", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8), np.zeros((2, 4, 4, 3))]
)
def test_sheet_refuses_what_is_no_clip(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[T, H, W, 3\]"):
        sheet([frames])
