"""What a template's caption promises, asked of the tracks: did it happen, and as the law says?

One file a category. A finding of "motion" asks whether what the caption tells took place, one of "law"
whether the equation of `laws` fits with some values of its free parameters. Grades lie in [0, 1] and pass
from 1/2 on; a reason is only told of a finding that fails.
"""

from miniature.world.checks import collision, deformation, falling, movement, removal
from miniature.world.checks.finding import Criteria

CRITERIA: Criteria = {
    **removal.CRITERIA,
    **collision.CRITERIA,
    **deformation.CRITERIA,
    **movement.CRITERIA,
    **falling.CRITERIA,
}
