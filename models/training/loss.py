"""The loss of a micro-batch: what the forward passes gave, put together as the objective and the terms ask.

    loss = objective + sft_weight * anchor + kl * distance to the reference

The objective's own part is one file of `models.training.objectives`; here is only what all have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.training.batches import Units
from models.training.equations import anchor, error, unpaired_anchor
from models.training.objectives import Compared, Logs
from models.training.settings import FinetuneSettings

# Logs that are worst cases over the batch, and logs that are sums over one kind of clip divided by the batch
# size; all others are means over the batch. `finish` makes means and roots of them.
WORST: Final = "/max"
KINDS: Final = ("/chosen", "/rejected")
_SQUARE: Final = "/square"
_SHARE: Final = "share"


@dataclass(frozen=True, slots=True)
class Passes:
    """What the forward passes gave, a row a clip (of pairs: all chosen, then all rejected).

    Attributes:
        prediction: of the policy, [b, C, T, H, W] float32, with gradient; target: what it should have been.
        reference: prediction of the reference, if it was computed; its distance is then logged as `kl`.
        reference_error: error of the reference [b] over the rows' frames, if the settings compare errors.
    """

    prediction: Tensor
    target: Tensor
    reference: Tensor | None = None
    reference_error: Tensor | None = None


def loss_of(
    settings: FinetuneSettings, rows: Units, seen: Passes, accepted_share: float, batch_value: Tensor | None
) -> tuple[Tensor, Logs]:
    """Loss of a micro-batch, a scalar with gradient, and its logs.

    Of each term `pull/NAME` is the norm of its gradient in the network's output, with its weight, as a mean
    over the units: a term that pulls at nothing, or drowns the others, shows at once.

    Args:
        rows: one row a clip (`Units.per_clip`).
        accepted_share: of the data's clips, see `equations.unpaired_anchor`.
        batch_value: `Objective.over_batch` of the whole batch; None measures it over this micro-batch.
    """
    objective = settings.algorithm

    def by_unit(values: Tensor) -> Tensor:
        return values.view(2, -1).T if objective.pairwise else values

    errors = error(seen.prediction, seen.target, rows.frames)
    given: dict[str, Tensor] = {}
    if seen.reference is not None:
        given["reference_prediction"] = seen.reference
    if seen.reference_error is not None:
        given["reference_errors"] = by_unit(seen.reference_error)
        if objective.over_batch is not None and batch_value is None:
            batch_value = objective.over_batch(errors.detach(), seen.reference_error, settings)
    if batch_value is not None:
        given["batch_value"] = batch_value
    compared = Compared(
        by_unit(errors), by_unit(rows.desirable), rows.weights, seen.prediction, seen.target, given
    )
    own, logs = objective.loss(compared, settings)
    logs = {objective.name: own.detach(), **logs}
    terms = {objective.name: own}
    if settings.sft_weight > 0:
        if objective.pairwise:
            # Over the whole chosen clip, also where the pair is compared in segments of it.
            whole = errors if rows.frames is None else error(seen.prediction, seen.target)
            tie = anchor(by_unit(whole))
        else:
            tie = unpaired_anchor(errors, rows.desirable, accepted_share)
        terms["anchor"] = settings.sft_weight * tie
        logs["anchor"] = tie.detach()
    if seen.reference is not None:
        # The KL divergence between two flows or denoisers, up to a weight per noise level.
        distance = error(seen.prediction, seen.reference).mean()
        if settings.kl > 0:
            terms["kl"] = settings.kl * distance
        logs["kl"] = distance.detach()
    loss = errors.new_zeros(())
    for name, term in terms.items():
        loss = loss + term
        if seen.prediction.requires_grad:
            (slope,) = torch.autograd.grad(term, seen.prediction, retain_graph=True)
            squares = by_unit(slope.flatten(1).square().sum(1)).view(len(compared.errors), -1)
            logs[f"pull/{name}"] = len(squares) * squares.sum(1).sqrt().mean()
    return loss, logs


def finish(totals: dict[str, float]) -> dict[str, float]:
    """Logs of a whole batch as they are kept: means over each kind of clip, roots of mean squares.

    What has no value (no clip of that kind in the batch) is left out.
    """
    done: dict[str, float] = {}
    for name, value in totals.items():
        kind = name.rpartition("/")[2]
        share = totals.get(f"{_SHARE}/{kind}")
        if name.startswith(f"{_SHARE}/"):
            continue
        if name.endswith(_SQUARE):
            done[name.removesuffix(_SQUARE) + "/rms"] = value**0.5
        elif share is None or not name.endswith(KINDS):
            done[name] = value
        elif share > 0:
            done[name] = value / share
    if f"{_SHARE}/chosen" in totals and "rewards/chosen" in done and "rewards/rejected" in done:
        done["rewards/margins"] = done["rewards/chosen"] - done["rewards/rejected"]
    return done
