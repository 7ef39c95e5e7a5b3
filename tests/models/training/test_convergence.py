"""Where the objectives lead when nothing is in the way: policies whose optimum is known in closed form."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.training.diagnosis import diagnose
from models.training.equations import anchor
from models.training.loss import finish
from models.training.objectives.dpo import dpo_loss, pair_logs
from models.training.objectives.nft import nft_loss
from models.training.objectives.rwr import rwr_loss
from models.training.objectives.sdpo import held, safeguard
from models.training.objectives.sft import sft_loss
from models.training.trainer import late_means

REFERENCE = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
REWARD = torch.tensor([1.0, 0.2, 0.5, 0.0], dtype=torch.float64)


def minimise(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The argument at which `loss` is least."""
    at = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [at], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(at)
        value.backward()
        return value

    optimizer.step(closure)
    return at.detach()


# -- a discrete policy with exact log-probabilities: e stands for -log p, times 2 where beta/2 stands before it ----


def clips_of_the_reference() -> Tensor:
    """100 clips in the reference's exact proportions: outcomes [100]."""
    return torch.repeat_interleave(torch.arange(4), (100 * REFERENCE).round().long())


def regress(weights: Tensor, clips: Tensor) -> Tensor:
    logits = minimise(
        lambda logits: rwr_loss(-logits.log_softmax(0)[clips], weights),
        torch.zeros(4, dtype=torch.float64),
    )
    return logits.softmax(0)


@pytest.mark.parametrize("beta", [0.2, 1.0])
def test_rwr_exp_reaches_the_tilted_reference(beta: float) -> None:
    clips = clips_of_the_reference()
    weights = (REWARD[clips] / beta).exp()
    weights /= weights.mean()
    tilted = REFERENCE * (REWARD / beta).exp()
    assert torch.allclose(regress(weights, clips), tilted / tilted.sum(), atol=1e-6)


def test_rwr_reaches_the_reference_times_the_reward() -> None:
    clips = clips_of_the_reference()
    found = regress(REWARD[clips], clips)
    expected = REFERENCE * REWARD / (REFERENCE * REWARD).sum()
    assert torch.allclose(found, expected, atol=1e-6)
    assert found[3] < 1e-6, "what is worth nothing is never made again"


def test_sft_reaches_the_accepted_part_of_the_reference_and_unfiltered_the_reference() -> None:
    clips = clips_of_the_reference()
    accepted = clips[REWARD[clips] >= 0.5]

    def fit(kept: Tensor) -> Tensor:
        logits = minimise(
            lambda logits: sft_loss(-logits.log_softmax(0)[kept]), torch.zeros(4, dtype=torch.float64)
        )
        return logits.softmax(0)

    assert torch.allclose(fit(accepted), torch.tensor([0.25, 0.0, 0.75, 0.0], dtype=torch.float64), atol=1e-5)
    assert torch.allclose(fit(clips), REFERENCE, atol=1e-6)


def pair_errors(logits: Tensor, pairs: Tensor) -> Tensor:
    return -2 * logits.log_softmax(0)[pairs]


def test_dpo_on_preferences_sampled_from_bradley_terry_reaches_the_same_tilted_reference() -> None:
    beta, count = 0.5, 400_000
    draw = torch.Generator().manual_seed(0)
    pairs = torch.multinomial(REFERENCE, 2 * count, replacement=True, generator=draw).view(count, 2)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    first_wins = (
        torch.rand(len(pairs), generator=draw) < (REWARD[pairs[:, 0]] - REWARD[pairs[:, 1]]).sigmoid()
    )
    pairs = torch.where(first_wins[:, None], pairs, pairs.flip(1))
    reference = pair_errors(REFERENCE.log(), pairs)
    logits = minimise(
        lambda logits: dpo_loss(pair_errors(logits, pairs), reference, beta),
        torch.zeros(4, dtype=torch.float64),
    )
    tilted = REFERENCE * (REWARD / beta).exp()
    # 400,000 labels: the standard error of each probability is below 0.002
    assert torch.allclose(logits.softmax(0), tilted / tilted.sum(), atol=0.006)


# -- a Gaussian flow: x0 ~ N(0, 1), exact velocity in closed form --------------------------------------------------

SIGMA = 0.6
A, TAU = 1.0, 0.8  # r(x0) = exp(-(x0 - A)^2 / (2 TAU^2)), a probability of being right


def posterior(x: float, mean: float, variance: float) -> tuple[float, float]:
    """Mean and variance of x0 given x = (1 - sigma) x0 + sigma n, for x0 ~ N(mean, variance)."""
    keep = 1 - SIGMA
    noise = SIGMA**2
    gain = keep * variance / (keep**2 * variance + noise)
    return mean + gain * (x - keep * mean), variance * (1 - gain * keep)


def velocity(x: float, mean: float, variance: float) -> float:
    """E[n - x0 | x], the exact rectified flow."""
    x0, _ = posterior(x, mean, variance)
    return (x - (1 - SIGMA) * x0) / SIGMA - x0


def targets_at(x: float) -> tuple[Tensor, Tensor]:
    """v = n - x0 and r(x0) at evenly spaced quantiles of x0 given x, [N, 1] and [N]: an exact expectation."""
    quantiles = (torch.arange(40_000, dtype=torch.float64) + 0.5) / 40_000
    mean, variance = posterior(x, 0.0, 1.0)
    x0 = mean + variance**0.5 * torch.special.ndtri(quantiles)
    return ((x - (1 - SIGMA) * x0) / SIGMA - x0)[:, None], (-((x0 - A) ** 2) / (2 * TAU**2)).exp()


def nft_optimum(x: float, v_old: float, beta: float) -> float:
    v, r = targets_at(x)
    old = torch.full_like(v, v_old)
    found = minimise(
        lambda at: nft_loss(at.expand(len(v), 1), old, v, r.float(), beta), torch.tensor([v_old])
    )
    return found.item()


@pytest.mark.parametrize("beta", [0.3, 1.0])
@pytest.mark.parametrize("x", [-1.0, 0.2, 2.0])
def test_nft_reaches_the_old_flow_plus_two_over_beta_improvement_directions(x: float, beta: float) -> None:
    # The positive distribution N(0, 1) r / Z is Gaussian: precision 1 + 1 / tau^2. alpha(x) = E[r | x].
    variance = 1 / (1 + 1 / TAU**2)
    v_old, v_plus = velocity(x, 0.0, 1.0), velocity(x, variance * A / TAU**2, variance)
    mean, spread = posterior(x, 0.0, 1.0)
    alpha = (TAU**2 / (TAU**2 + spread)) ** 0.5 * float(
        torch.exp(torch.tensor(-((mean - A) ** 2) / (2 * (TAU**2 + spread))))
    )
    delta = alpha * (v_plus - v_old)
    assert abs(delta) > 0.02
    assert nft_optimum(x, v_old, beta) == pytest.approx(v_old + 2 / beta * delta, abs=2e-3)


def test_nft_takes_the_old_flows_own_error_for_a_rejection() -> None:
    # where E[v - v_old | x] is not 0 (clips sampled with guidance), it is subtracted: v_old + (2 E[r u] - E[u]) / beta
    x, beta, wrong = 0.2, 0.5, 0.3
    v_old = velocity(x, 0.0, 1.0) + wrong
    v, r = targets_at(x)
    u = v[:, 0] - v_old
    assert u.mean().item() == pytest.approx(-wrong, abs=1e-3)
    expected = v_old + (2 * (r * u).mean().item() - u.mean().item()) / beta
    assert nft_optimum(x, v_old, beta) == pytest.approx(expected, abs=2e-3)


# -- preferences without doubt -------------------------------------------------------------------------------------

CHOSEN, REJECTED = 0.3, -0.1


def descend(
    weight: float, steps: int = 4000, rate: float = 0.02, mu: float | None = None
) -> list[dict[str, float]]:
    """A policy with one number, its mean, e = (mean - x)^2, that always hears that CHOSEN beats REJECTED; its curve.

    With `mu` its loss is that of sdpo.
    """
    mean = torch.zeros(1, requires_grad=True)
    clips = torch.tensor([[CHOSEN, REJECTED]])
    reference = (0.0 - clips).square()
    curve = []
    for step in range(steps):
        errors = (mean - clips).square()
        if mu is not None:
            slopes = 2 * (mean.detach() - clips)
            errors = held(errors, safeguard(slopes[:, :1], slopes[:, 1:], mu))
        loss = dpo_loss(errors, reference, 20.0) + weight * anchor(errors)
        (slope,) = torch.autograd.grad(loss, mean)
        with torch.no_grad():
            mean -= rate * slope
        logs = {k: v.item() for k, v in pair_logs(errors.detach(), reference, 20.0).items()}
        curve.append({"step": float(step), "mean": mean.item(), **finish(logs)})
    return curve


def test_deterministic_pairs_diverge_without_an_anchor_and_rest_with_one() -> None:
    free, held = descend(weight=0.0), descend(weight=1.0)
    # past the winner and still going: each doubling of the steps goes further
    assert CHOSEN < free[999]["mean"] < free[1999]["mean"] - 0.05 < free[3999]["mean"] - 0.1
    assert free[-1]["error/chosen"] > free[0]["error/chosen"], "the winner is forgotten on the way"
    assert free[-1]["displaced"] == 1.0
    assert held[-1]["mean"] == pytest.approx(held[1999]["mean"], abs=1e-3)
    assert held[-1]["error/chosen"] < held[0]["error/chosen"]
    assert held[-1]["displaced"] == 0.0
    assert {"likelihood displacement", "saturation"} <= names(free)
    assert not names(held)


def test_deterministic_pairs_rest_where_the_rejected_clip_is_held_back() -> None:
    for mu in (0.2, 0.8):
        held_back = descend(weight=0.0, mu=mu)
        assert held_back[-1]["mean"] == pytest.approx(CHOSEN, abs=1e-3), "at the winner, and no further"
        assert not {"likelihood displacement"} & names(held_back)


def names(curve: list[dict[str, float]]) -> set[str]:
    """What the diagnostics say of a curve."""
    return {finding.name for finding in diagnose({"last_quarter": late_means(curve)}) if finding.name}
