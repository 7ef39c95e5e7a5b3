"""How each template moves: parameters are drawn, the law is applied, subjects and props are put on stage.

One file a category. A motion draws every parameter, asks the draft for the clock (which a broken scene may
stop or turn back) and adds what is seen, back to front. The violations that need the template's own
parameters are applied here; those that only rewrite finished tracks (another colour, a second blob, ...) are
applied in `scene`.
"""

from miniature.world.draft import Motions
from miniature.world.trajectories import collision, deformation, falling, movement, removal

MOTIONS: Motions = {
    **removal.MOTIONS,
    **collision.MOTIONS,
    **deformation.MOTIONS,
    **movement.MOTIONS,
    **falling.MOTIONS,
}
