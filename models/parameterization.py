"""What a network predicts: the noisy input at a noise level, and the target its error is measured against.

x0 is a clean latent, n ~ N(0, I) of the same shape [B, ...], sigma [B] in [0, 1] (0 clean, 1 pure noise).
Each class states its own path and target; objectives see only the squared error between prediction and
target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Parameterization(Protocol):
    """Path from data to noise, and what the network predicts along it."""

    def noisy(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Network input x_sigma, shape of x0."""
        ...

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """What a perfect network would predict, shape of x0."""
        ...


class FlowMatching:
    """Rectified flow: x = (1 - sigma) x0 + sigma n, target v = n - x0 (Flow Matching, arXiv 2210.02747)."""

    def noisy(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return x0.lerp(noise, _like(sigma, x0))

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise - x0


class Epsilon:
    """Variance preserving: x = alpha x0 + sigma n, alpha^2 + sigma^2 = 1; target n (arXiv 2006.11239)."""

    def noisy(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return _alpha(sigma, x0) * x0 + _like(sigma, x0) * noise

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return noise


class VPrediction(Epsilon):
    """The path of `Epsilon`, target v = alpha n - sigma x0 (arXiv 2202.00512)."""

    def target(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return _alpha(sigma, x0) * noise - _like(sigma, x0) * x0


def _like(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma [B] as [B, 1, 1, ...] in the dtype of x."""
    return sigma.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def _alpha(sigma: Tensor, x: Tensor) -> Tensor:
    return (1 - _like(sigma, x) ** 2).sqrt()
