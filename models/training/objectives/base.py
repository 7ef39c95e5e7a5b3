"""What an objective is, one record that carries everything the loop asks of it; and what losses are told.

No torch here before a loss is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from data.settings import Settings, setting

if TYPE_CHECKING:
    from torch import Tensor

    from data.records import Example, Pair
    from models.training.train_data import TrainData

Logs = dict[str, "Tensor"]
Reference = Literal["error", "prediction", "none"]
CurationWeight = Literal["uniform", "reward", "exp"]


class LossSettings(Settings):
    """What losses are told: the part of the recipe's `finetune` that objectives read."""

    beta: float = setting(
        500.0,
        "Beta",
        "How closely dpo and kto hold on to the reference, over mean-reduced errors; 500 is the best of "
        "100-8000 in VideoAlign (arXiv 2501.13918). rwr-exp has curate.beta instead.",
        ge=0.0,
    )
    desirable_share: float = setting(
        0.5,
        "Desirable",
        "Share of the accepted clips in kto's loss: gamma of arXiv 2404.04465, section 4.2; the default of "
        "its published code.",
        formerly="desirable",
        gt=0.0,
        lt=1.0,
    )
    nft_beta: float = setting(
        1.0,
        "Beta of nft",
        "The optimum lies 2 / this many improvement directions from the reference (arXiv 2509.16117, "
        "equation 6); 1 makes the positive branch plain finetuning.",
        gt=0.0,
        le=1.0,
    )
    sdpo_mu: float = setting(
        0.5,
        "Mu of sdpo",
        "Share of the chosen clip's own descent that its rejected one may not undo (arXiv 2511.03317, whose "
        "code runs with 0.6 and 0.9); 0: the chosen clip's error does not rise.",
        ge=0.0,
        le=1.0,
    )
    optimality: Literal["group", "label"] = setting(
        "group",
        "Optimality",
        "r of nft. group: the label centred within its prompt (arXiv 2509.16117, section 3.3), so that a "
        "prompt without contrast teaches nothing; label: the label itself.",
    )


@dataclass(frozen=True)
class DataNeed:
    """What an objective learns from.

    Attributes:
        learns_from: in words, as in "dpo learns from pairs".
        keep: which examples of the training data it takes, bool [n]; none where it takes pairs.
        missing: what the curation did not give, in words; "" if there is something to learn from.
        both: it needs accepted and rejected clips alike.
    """

    learns_from: str
    keep: Callable[[TrainData], Tensor]
    missing: Callable[[Sequence[Example], Sequence[Pair]], str]
    both: bool = False


def _missing_label(examples: Sequence[Example], _: Sequence[Pair]) -> str:
    from data.curation import labels

    found = set(labels(examples))
    if True not in found:
        return "the curation accepted none"
    return "" if False in found else "the curation rejected none"


PAIRS: Final = DataNeed(
    "pairs",
    lambda data: data.accepted & False,
    lambda _, pairs: "" if pairs else "the curation formed none",
)
LABELS: Final = DataNeed(
    "accepted and rejected clips", lambda data: data.accepted | data.undesirable, _missing_label, both=True
)
ACCEPTED: Final = DataNeed(
    "accepted clips",
    lambda data: data.accepted,
    lambda examples, _: "" if any(one.accepted for one in examples) else "the curation accepted none",
)
WEIGHTED: Final = DataNeed(
    "weighted clips",
    lambda data: data.weights > 0,
    lambda examples, _: (
        "" if any(one.weight > 0 for one in examples) else "the curation gave no weight above 0"
    ),
)
ALL: Final = DataNeed(
    "every scored clip",
    lambda data: data.accepted | True,
    lambda examples, _: "" if examples else "there is none",
)


@dataclass(frozen=True)
class Compared:
    """A micro-batch as a loss sees it: b clips, or b pairs (chosen, rejected).

    Attributes:
        errors: e of the policy, [b] or [b, 2] float32, with gradient.
        desirable: bool, of the shape of `errors`: accepted or chosen.
        weights: [b], of `Objective.weights`.
        prediction, target: the network's and what it should have been, a row a clip; of pairs all chosen
            clips, then all rejected.
        given: what else the objective asked for; read it by the properties.
    """

    errors: Tensor
    desirable: Tensor
    weights: Tensor
    prediction: Tensor
    target: Tensor
    given: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def reference_errors(self) -> Tensor:
        """e of the reference, of the shape of `errors`. For `reference="error"`."""
        return self._asked_for("reference_errors", 'reference="error"')

    @property
    def reference_prediction(self) -> Tensor:
        """Prediction of the reference, of the shape of `prediction`. For `reference="prediction"`."""
        return self._asked_for("reference_prediction", 'reference="prediction"')

    @property
    def batch_value(self) -> Tensor:
        """What `Objective.over_batch` made of the whole batch, without gradient."""
        return self._asked_for("batch_value", "over_batch")

    def _asked_for(self, name: str, how: str) -> Tensor:
        if name not in self.given:
            raise TypeError(f"an objective whose loss reads {name} says so in its `Objective`: {how}")
        return self.given[name]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One objective. What is not said is an error when its file is imported.

    Attributes:
        name: in recipes and, of its own term, in the curve.
        title: what it does, in a sentence.
        data: `PAIRS`, `LABELS`, `ACCEPTED`, `WEIGHTED` or `ALL`.
        reference: what the loss compares with: the reference's "error" (a number a clip, which may be
            stored), its "prediction", or "none".
        curation_weight: what the curation weights examples by where the recipe leaves it to the objective.
        loss: scalar with gradient, and logs without.
        logs: what the curve holds beside `loss` and the objective's own name: name and meaning.
        weights: what each clip's term is multiplied with, float32 [rows], from the data and the positions in
            its examples; None: 1.
        counts: whether these weights say how much a clip counts, so that they have an effective sample size.
        over_batch: a number of the whole batch, from errors of policy and reference [B]. Where a batch is
            cut it is measured first, in a pass without gradient.
        check: what is wrong with the settings, in words; "" if nothing is.
    """

    name: str
    title: str
    data: DataNeed
    reference: Reference
    curation_weight: CurationWeight
    loss: Callable[[Compared, LossSettings], tuple[Tensor, Logs]]
    logs: Mapping[str, str]
    weights: Callable[[TrainData, Tensor, LossSettings], Tensor] | None = None
    counts: bool = True
    over_batch: Callable[[Tensor, Tensor, LossSettings], Tensor] | None = None
    check: Callable[[LossSettings], str] = lambda _: ""

    @property
    def pairwise(self) -> bool:
        """Whether a unit is a pair; else it is a clip."""
        return self.data is PAIRS

    def rows(self, data: TrainData) -> Tensor:
        """Positions in the data's examples that it trains on; none of one that learns from pairs."""
        return self.data.keep(data).nonzero()[:, 0]

    def units(self, data: TrainData) -> Tensor:
        """Rows of the clips of each unit, int64 [units, clips of a unit]."""
        return data.pairs if self.pairwise else data.examples[self.rows(data), None]

    def usable(self, data: TrainData) -> int:
        """How many units (pairs, or clips) there are to learn from; none if a kind of them is missing."""
        one_sided = not (bool(data.accepted.any()) and bool(data.undesirable.any()))
        return 0 if self.data.both and one_sided else len(self.units(data))

    def unit_weights(self, data: TrainData, settings: LossSettings) -> Tensor:
        """float32 [units], what each unit's term is multiplied with."""
        if self.weights is not None:
            return self.weights(data, self.rows(data), settings)
        import torch

        return torch.ones(len(self.units(data)))

    def lacking(self, examples: Sequence[Example], pairs: Sequence[Pair], name: str = "") -> str:
        """Why it cannot learn from a curation, in words that call it `name`; "" if it can."""
        missing = self.data.missing(examples, pairs)
        return f"{name or self.name} learns from {self.data.learns_from}, and {missing}" if missing else ""


def positive_beta(settings: LossSettings) -> str:
    """The check of objectives that hold on to the reference with `beta`."""
    return "" if settings.beta > 0 else f"finetune.beta is {settings.beta}; it must be above 0"
