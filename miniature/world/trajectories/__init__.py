"""How each template moves: parameters are drawn, the law is applied, subjects and props are put on stage.

One file a category, one function a template, of the template's name. A function draws every parameter, asks
the draft for the clock (which a broken scene may stop or turn back) and adds what is seen, back to front. The
violations that need the template's own parameters are applied here; those that only rewrite finished tracks
(another colour, a second blob, ...) are applied in `scene`.
"""

from __future__ import annotations

from collections.abc import Callable

from miniature.world.draft import Draft
from miniature.world.trajectories import collision, deformation, falling, movement, removal

MOTIONS: dict[str, Callable[[Draft], None]] = {
    motion.__name__: motion
    for motion in (
        removal.lift_from_box, removal.pull_away, removal.lift_beside, removal.lower_into_box,
        removal.lift_off,
        collision.hit, collision.hit_small, collision.meet, collision.stick, collision.hit_row,
        deformation.squeeze, deformation.stretch, deformation.press, deformation.splat, deformation.wobble,
        movement.move_left, movement.move_right, movement.move_up, movement.slide, movement.move_diagonal,
        falling.bounce, falling.drop, falling.off_table, falling.fall_together, falling.toss,
    )
}  # fmt: skip
