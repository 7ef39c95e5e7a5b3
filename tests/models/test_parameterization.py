import pytest
import torch

from models.parameterization import Epsilon, FlowMatching, Parameterization, VPrediction

KINDS = [FlowMatching(), Epsilon(), VPrediction()]


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_sigma_zero_is_clean_and_one_is_noise(kind: Parameterization) -> None:
    x0, noise = draw(2, 5, 1, 2, 2), draw(2, 5, 2, 2, 1).view(2, 5, 1, 2, 2)
    assert torch.allclose(kind.noisy(x0, noise, torch.zeros(2)), x0)
    assert torch.allclose(kind.noisy(x0, noise, torch.ones(2)), noise)


def test_each_row_has_its_own_noise_level() -> None:
    x0, noise = torch.zeros(2, 1, 1, 1, 1), torch.ones(2, 1, 1, 1, 1)
    assert FlowMatching().noisy(x0, noise, torch.tensor([0.25, 0.5])).flatten().tolist() == [0.25, 0.5]


def test_published_targets_by_hand() -> None:
    x0, noise, sigma = torch.tensor([[2.0]]), torch.tensor([[5.0]]), torch.tensor([0.6])
    assert FlowMatching().target(x0, noise, sigma).item() == 3.0
    assert FlowMatching().noisy(x0, noise, sigma).item() == pytest.approx(0.4 * 2 + 0.6 * 5)
    assert Epsilon().target(x0, noise, sigma).item() == 5.0
    assert Epsilon().noisy(x0, noise, sigma).item() == pytest.approx(0.8 * 2 + 0.6 * 5)
    assert VPrediction().target(x0, noise, sigma).item() == pytest.approx(0.8 * 5 - 0.6 * 2)


def test_noisy_input_equals_what_the_wan_scheduler_makes() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(8)
    x0, noise = draw(1, 4, 2, 2, 2), draw(1, 4, 2, 2, 2) * 2
    theirs = scheduler.scale_noise(x0, scheduler.timesteps[2:3], noise)
    assert torch.allclose(FlowMatching().noisy(x0, noise, scheduler.sigmas[2:3]), theirs, atol=1e-6)
