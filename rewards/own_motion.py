"""Own motion, a guard: what moves by itself. A camera that slides over a still picture moves nothing."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from rewards.base import CannotJudge, Judgement, LoadedClip, known_fps
from rewards.kind import per_clip
from rewards.motion import Grey, MotionSettings, farneback, grey_pairs, speed

# Corners that are followed; fewer say nothing of a camera.
_MOST: Final = 300
_FEWEST: Final = 12
# Pixels by which a corner may miss its own trace back, or the transform.
_NEAR: Final = 1.0
# Share of the corners that follow the transform, and of the frame that these span: a camera moves the whole
# picture, while all corners of a lone thing before a plain wall move as one, too.
_AGREE: Final = 0.5
_SPAN: Final = 0.25


class OwnMotionSettings(MotionSettings):
    """The guard of own motion: mean length of the flow that no camera explains, in short sides a second."""


def own_motion(frames: NDArray[np.uint8], fps: float, settings: MotionSettings) -> float:
    """Mean length of the dense flow that is left once the camera is taken out, in short sides a second.

    For each pair of frames: corners (Shi and Tomasi, 1994) are followed (Lucas and Kanade, 1981, forth and
    back), one affine transform is fitted to them (RANSAC, Fischler and Bolles, 1981), the second frame is
    brought back by it, and the flow (Farneback, 2003) is measured between the two where both show the scene.
    A pan, zoom, roll or shake of a still leaves nearly nothing. Where most corners, all over the frame, agree
    on no camera, the flow is that of `motion`.

    Args:
        frames: uint8 [T, H, W, 3], T >= 2.
        fps: frames per second.
        settings: which pairs of frames.

    Raises:
        CannotJudge: fewer than two frames.
    """
    pairs = grey_pairs(frames, settings)
    if not pairs:
        raise CannotJudge(f"own motion needs two frames or more, the clip has {len(frames)}")
    return speed([_left(*pair) for pair in pairs], frames, fps, settings)


def camera(first: Grey, second: Grey) -> NDArray[np.float64] | None:
    """The affine transform [2, 3] of the whole picture from one grey frame to another, in (x, y) pixels.

    None where there is none that most corners all over the frame follow.
    """
    import cv2

    corners = cv2.goodFeaturesToTrack(first, _MOST, 0.01, 3)
    if np.size(corners) < 2 * _FEWEST:  # none found: None
        return None
    there, found, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, np.empty(0))
    back, again, _ = cv2.calcOpticalFlowPyrLK(second, first, there, np.empty(0))
    near = np.linalg.norm((back - corners)[:, 0], axis=1) < _NEAR
    kept = near & (found[:, 0] == 1) & (again[:, 0] == 1)
    if kept.sum() < _FEWEST:
        return None
    transform, inside = cv2.estimateAffine2D(
        corners[kept], there[kept], method=cv2.RANSAC, ransacReprojThreshold=_NEAR
    )
    if transform is None or inside.mean() < _AGREE:
        return None
    hull = cv2.convexHull(corners[kept][inside[:, 0] == 1])
    return transform if cv2.contourArea(hull) >= _SPAN * first.size else None


def _left(first: Grey, second: Grey) -> float:
    """Mean length in pixels of the flow between two frames once the camera is taken out."""
    import cv2

    transform = camera(first, second)
    if transform is None:
        return float(np.linalg.norm(farneback(first, second), axis=-1).mean())
    size = (first.shape[1], first.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    shown = cv2.warpAffine(np.ones_like(second), transform, size, flags=flags) == 1
    brought = cv2.warpAffine(second, transform, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    left = farneback(first, np.asarray(brought, np.uint8))[shown]
    return float(np.linalg.norm(left, axis=-1).mean())


def _judge(clip: LoadedClip, settings: OwnMotionSettings) -> Judgement:
    return Judgement(own_motion(clip.frames, known_fps(clip), settings), {"fps": clip.fps})


REWARD: Final = per_clip(
    "own_motion",
    OwnMotionSettings,
    _judge,
    code=1,
    range=(0.0, float("inf")),
    reads="frames in order and their rate",
    within=(0.7, 1.5),
)
