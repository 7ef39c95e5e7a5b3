"""Fits of an equation to a seen track, and how far from it a track may lie.

A law is linear in some of its parameters (start, speed) and not in others (time of contact, friction): the
latter are tried on a grid, the former solved by least squares for every trial at once.
"""

from __future__ import annotations

import numpy as np

from miniature.world.tracking import Bools, Floats


def solve(basis: Floats, seen: Floats) -> tuple[Floats, Floats]:
    """Least squares for each trial. basis [P, N, M], seen [N] -> coefficients [P, M], residuals [P, N]."""
    gram = np.einsum("pnm,pnk->pmk", basis, basis)
    gram += 1e-9 * np.eye(basis.shape[2])  # a trial may not see one of its parameters
    coefficients = np.linalg.solve(gram, np.einsum("pnm,n->pm", basis, seen)[..., None])
    return coefficients[..., 0], (basis @ coefficients)[..., 0] - seen


def best_trial(residuals: Floats) -> tuple[int, float]:
    """The trial [P, N] with the least square error, and its largest residual."""
    best = int((residuals**2).sum(axis=1).argmin())
    return best, float(np.abs(residuals[best]).max())


def trials(*axes: Floats) -> list[Floats]:
    """Every combination of the values [N1], [N2], ... of some parameters: [P, 1] of each."""
    return [values.reshape(-1, 1) for values in np.meshgrid(*axes)]


def line(t: Floats, values: Floats, where: Bools) -> tuple[float, float]:
    """Constant velocity through the values at `where`: speed, and the largest distance from the line."""
    basis = np.stack([np.ones_like(t[where]), t[where]], axis=1)
    coefficients, residuals = solve(basis[None], values[where])
    return float(coefficients[0, 1]), float(np.abs(residuals).max())


def spread(values: Floats, where: Bools) -> float:
    """Largest distance from the median: 0 for what stays where it is."""
    return float(np.abs(values[where] - np.median(values[where])).max()) if where.any() else 1.0


def within(value: float, tolerance: float) -> float:
    """Grade of an error: 1 at 0, 1/2 at the tolerance, 2^-(value/tolerance)^2 between and beyond."""
    return float(2.0 ** -((value / tolerance) ** 2)) if np.isfinite(value) else 0.0


def reaches(value: float, least: float) -> float:
    """Grade of an achievement: 1/2 at the least that counts, 1 from twice that on, 0 from nothing down."""
    return float(np.clip(0.5 * value / least, 0.0, 1.0)) if np.isfinite(value) else 0.0
