"""rwr-exp: reward-weighted regression with the exact weight of the KL-regularised optimum.

W = exp(r / beta) / Z(c), Z(c) the mean of exp(r / beta) over the clips of prompt c: the weight of
p* = p_ref exp(r / beta) / Z (arXiv 2103.17258), with `curate.beta`. The curation computes it.
"""

from __future__ import annotations

from dataclasses import replace

from models.training.objectives import rwr

OBJECTIVE = replace(
    rwr.OBJECTIVE,
    name="rwr-exp",
    title="Regression weighted by exp(r' / curate.beta) / Z of the prompt.",
    curation_weight="exp",
)
