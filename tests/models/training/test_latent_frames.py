import pytest

from data.errors import UserError
from models.training.train_data import latent_frames


@pytest.mark.parametrize(
    ("spans", "kept"),
    [
        # 17 frames at 8 a second in 5 latent frames: 0 | 1-4 | 5-8 | 9-12 | 13-16
        ([(0.0, 1.0)], [1, 1, 1, 0, 0]),  # frames 0-7
        ([(1.0, 2.125)], [0, 0, 1, 1, 1]),  # frames 8-16: latent frame 2 is in both
        ([(0.0, 0.125)], [1, 0, 0, 0, 0]),  # frame 0
        ([(0.125, 0.625)], [0, 1, 0, 0, 0]),  # frames 1-4
        ([(0.5, 0.75)], [0, 1, 1, 0, 0]),  # frames 4 and 5
        ([(0.0, 0.125), (2.0, 2.125)], [1, 0, 0, 0, 1]),  # frames 0 and 16
        ([(0.0, 2.125)], [1, 1, 1, 1, 1]),
    ],
)
def test_a_latent_frame_is_in_a_segment_if_one_of_its_frames_is(
    spans: list[tuple[float, float]], kept: list[int]
) -> None:
    assert latent_frames(spans, 17, 8.0, 5).int().tolist() == kept


def test_other_strides_and_frame_rates() -> None:
    # 17 frames in 3 latent frames, stride 8: 0 | 1-8 | 9-16
    assert latent_frames([(1.0, 2.125)], 17, 8.0, 3).tolist() == [False, True, True]
    assert latent_frames([(9 / 8, 17 / 8)], 17, 8.0, 3).tolist() == [False, False, True]
    # spans as they come out of a division that is not exact
    assert latent_frames([(7 / 30, 9 / 30)], 9, 30.0, 3).tolist() == [False, False, True]
    assert latent_frames([(0.0, 1.0)], 1, 8.0, 1).tolist() == [True]


def test_no_mask_is_empty_and_no_stride_a_guess() -> None:
    with pytest.raises(UserError, match="none of the 17 frames"):
        latent_frames([(3.0, 4.0)], 17, 8.0, 5)
    for frames, latents in ((16, 5), (3, 5)):
        with pytest.raises(UserError, match=r"curate\.segments: ignore"):
            latent_frames([(0.0, 1.0)], frames, 8.0, latents)
