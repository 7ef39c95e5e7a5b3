"""What a template's caption promises, asked of the tracks: did it happen, and as the law says?

One file a category, one function a template, of the template's name. A finding of "motion" asks whether what
the caption tells took place, one of "law" whether the equation of `laws` fits with some values of its free
parameters. Grades lie in [0, 1] and pass from 1/2 on; a reason is only told of a finding that fails.
"""

from __future__ import annotations

from collections.abc import Callable

from miniature.world.checks import collision, deformation, falling, movement, removal
from miniature.world.checks.finding import Finding
from miniature.world.tracking import Sight

CRITERIA: dict[str, Callable[[Sight], list[Finding]]] = {
    criterion.__name__: criterion
    for criterion in (
        removal.lift_from_box, removal.pull_away, removal.lift_beside, removal.lower_into_box,
        removal.lift_off,
        collision.hit, collision.hit_small, collision.meet, collision.stick, collision.hit_row,
        deformation.squeeze, deformation.stretch, deformation.press, deformation.splat, deformation.wobble,
        movement.move_left, movement.move_right, movement.move_up, movement.slide, movement.move_diagonal,
        falling.bounce, falling.drop, falling.off_table, falling.fall_together, falling.toss,
    )
}  # fmt: skip
