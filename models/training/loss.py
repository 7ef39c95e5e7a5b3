"""The loss of a micro-batch: the objective's own term, the terms it may carry, and what is logged of each.

    loss = objective(e, e_ref, ...) + anchor * [name ends in "-anchor"] + kl * |v_th - v_ref|^2

Between settings and the equations of `models.training.objectives`; tensors in, tensors out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from models.settings import FinetuneSettings
from models.training import objectives
from models.training.batches import Units

Logs = dict[str, Tensor]

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
        reference: prediction of the reference, if the settings compare predictions.
        behind: error of the reference [b] over the rows' frames, if the settings compare errors.
    """

    prediction: Tensor
    target: Tensor
    reference: Tensor | None = None
    behind: Tensor | None = None


def loss_of(
    settings: FinetuneSettings, rows: Units, seen: Passes, accepted_share: float, point: Tensor | None
) -> tuple[Tensor, Logs]:
    """Loss of a micro-batch, a scalar with gradient, and its logs.

    Args:
        rows: one row a clip (`Units.halves`).
        accepted_share: of the data's clips, see `objectives.unpaired_anchor`.
        point: z of kto, measured over the whole batch; None measures it over this micro-batch.
    """
    errors = objectives.error(seen.prediction, seen.target, rows.frames)
    if settings.pairwise:
        assert seen.behind is not None
        loss, logs = _pairs(settings, errors.view(2, -1).T, seen.behind.view(2, -1).T)
    else:
        loss, logs = _clips(settings, rows, errors, seen, point)
    logs = {settings.algorithm: loss.detach(), **logs}
    if settings.anchored:
        if settings.pairwise:
            # Over the whole chosen clip, also where the pair is compared in segments of it.
            whole = errors if rows.frames is None else objectives.error(seen.prediction, seen.target)
            tie = objectives.anchor(whole.view(2, -1).T)
        else:
            tie = objectives.unpaired_anchor(errors, rows.desirable, accepted_share)
        loss = loss + settings.anchor * tie
        logs["anchor"] = tie.detach()
    if settings.compares_predictions:
        assert seen.reference is not None
        distance = objectives.kl(seen.prediction, seen.reference)
        if settings.kl > 0:
            loss = loss + settings.kl * distance
        logs["kl"] = distance.detach()
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


def _pairs(settings: FinetuneSettings, policy: Tensor, reference: Tensor) -> tuple[Tensor, Logs]:
    """DPO on errors [pairs, 2]."""
    fixed = policy.detach()
    return objectives.dpo(policy, reference, settings.beta), {
        **objectives.dpo_logs(fixed, reference, settings.beta),
        "gap/max": (fixed - reference).abs().max(),
        "logit/max": objectives.margins(fixed, reference, settings.beta).abs().max(),
    }


def _clips(
    settings: FinetuneSettings, rows: Units, errors: Tensor, seen: Passes, point: Tensor | None
) -> tuple[Tensor, Logs]:
    """An objective of single clips on errors [b]."""
    fixed, desirable, behind = errors.detach(), rows.desirable, seen.behind
    logs = {"error": fixed.mean()}
    match settings.algorithm:
        case "sft":
            return objectives.sft(errors), logs
        case "unfiltered":
            return objectives.sft(errors), logs | objectives.unpaired_logs(fixed, desirable)
        case "kto":
            assert behind is not None
            if point is None:
                point = objectives.reference_point(fixed, behind, settings.beta)
            loss = objectives.kto(errors, behind, desirable, rows.weights, settings.beta, point)
            logits = objectives.utility_logits(fixed, behind, desirable, settings.beta, point)
            return loss, {
                **logs,
                **objectives.unpaired_logs(fixed, desirable, behind, settings.beta),
                **objectives.logit_logs(logits),
                "rewards/accuracies": (logits > 0).float().mean(),
                "reference_point": point,
                "gap/max": (fixed - behind).abs().max(),
                "logit/max": logits.abs().max(),
            }
        case "nft":
            assert seen.reference is not None
            behind = objectives.error(seen.reference, seen.target)
            loss = objectives.nft(
                seen.prediction, seen.reference, seen.target, rows.weights, settings.nft_beta
            )
            return loss, {
                **logs,
                **objectives.unpaired_logs(fixed, desirable, behind),
                "gap/max": (fixed - behind).abs().max(),
            }
        case _:
            loss = objectives.rwr(errors, rows.weights)
            logs["weights/mean"] = rows.weights.mean()
            return loss, logs | objectives.unpaired_logs(fixed, desirable)
