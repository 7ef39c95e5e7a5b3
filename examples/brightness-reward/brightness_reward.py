"""A reward in twenty lines: the mean brightness of a clip, in [0, 1]. It says nothing about physics."""

from collections.abc import Sequence

from vidloop import Judgement, LoadedClip, RewardKind, Settings, guarded, setting, version_of


class BrightnessSettings(Settings):
    """What a recipe may say of it."""

    skip: int = setting(0, "Skipped frames", "Left out at the start.", ge=0)


def version(settings: BrightnessSettings) -> str:
    """Of its scores; raise the number when the same settings come to give other values."""
    return version_of("brightness", 1, settings)


class Brightness:
    """Mean grey value over all pixels of all frames."""

    name, range = "brightness", (0.0, 1.0)

    def __init__(self, settings: BrightnessSettings) -> None:
        self.skip, self.version = settings.skip, version(settings)

    @guarded  # what cannot be judged becomes a reason, never a number
    def score(self, clips: Sequence[LoadedClip]) -> list[Judgement]:
        """One judgement a clip, in order; frames are uint8 [frame, height, width, 3]."""
        return [Judgement(float(clip.frames[self.skip :].mean()) / 255) for clip in clips]


REWARD = RewardKind(
    "brightness", BrightnessSettings, Brightness, version, (0.0, 1.0), reads="every frame alone"
)
