"""The laws of the world, as equations on numpy arrays.

Lengths are in stage sides, y points down, time runs over the clip from 0 to 1. Every function broadcasts, so
the same equation moves a sampled scene (scalars and times of shape [T]) and is fitted to a seen track (trial
parameters of shape [P, 1]).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Value = float | Array

# Half extents of a shape with the area of a unit ball: square (2a)^2 = pi, triangle (2b)^2 / 2 = pi.
HALF_EXTENT = {"ball": 1.0, "square": float(np.sqrt(np.pi) / 2), "triangle": float(np.sqrt(np.pi / 2))}
# The centroid lies this share of the half height below the middle of the bounding box (a triangle stands).
CENTROID = {"ball": 0.0, "square": 0.0, "triangle": 1.0 / 3.0}


def uniform(t: Array, x0: Value, v: Value) -> Array:
    """Constant velocity: x(t) = x0 + v t."""
    return np.asarray(x0 + v * t)


def delayed(t: Array, x0: Value, v: Value, start: Value) -> Array:
    """At rest, then constant velocity: x(t) = x0 + v max(0, t - start)."""
    return np.asarray(x0 + v * np.maximum(t - start, 0.0))


def friction(t: Array, x0: Value, distance: Value, stop: Value) -> Array:
    """Sliding friction brings a body to rest at time `stop`: x(t) = x0 + d (1 - (1 - min(t, stop)/stop)^2).

    The deceleration is constant, a = 2 d / stop^2, and the initial speed 2 d / stop.
    """
    return np.asarray(x0 + distance * (1.0 - (1.0 - np.minimum(t, stop) / stop) ** 2))


def free_fall(t: Array, y0: Value, g: Value, v0: Value = 0.0) -> Array:
    """Gravity alone: y(t) = y0 + v0 t + g t^2 / 2 (y and v0 point down)."""
    return np.asarray(y0 + v0 * t + 0.5 * g * t * t)


def fall_time(height: Value, g: Value) -> Value:
    """Time to fall a height from rest: sqrt(2 h / g)."""
    return np.sqrt(2.0 * np.maximum(height, 0.0) / g)


def bounce(t: Array, y0: Value, g: Value, floor: Value, restitution: Value, bounces: int = 3) -> Array:
    """Fall from rest at y0 onto `floor`, rebounding with v' = -e v at each impact.

    First impact at t1 = sqrt(2 (floor - y0) / g) with speed g t1; after impact n the body rises with
    v_n = e^n g t1 for a flight of 2 v_n / g: y = floor - v_n s + g s^2 / 2. At rest after the last counted
    flight, and at once with e = 0.
    """
    impact = fall_time(floor - y0, g)
    speed = g * impact
    y = np.where(t < impact, y0 + 0.5 * g * t * t, floor)
    for _ in range(bounces):
        speed = restitution * speed
        s = t - impact
        flight = 2.0 * speed / g
        y = np.where((s > 0.0) & (s < flight), floor - speed * s + 0.5 * g * s * s, y)
        impact = impact + flight
    return np.asarray(y)


def land(t: Array, y0: Value, g: Value, floor: Value) -> Array:
    """Fall from rest at y0 and stay on `floor` (restitution 0): y(t) = min(y0 + g t^2 / 2, floor)."""
    return np.asarray(np.minimum(y0 + 0.5 * g * t * t, floor))


def toss(t: Array, floor: Value, v: Value, g: Value) -> Array:
    """Thrown up from `floor` with speed v: y(t) = min(floor - v t + g t^2 / 2, floor), back after 2 v / g."""
    return np.asarray(np.minimum(floor - v * t + 0.5 * g * t * t, floor))


def elastic(m1: Value, m2: Value, v1: Value, v2: Value) -> tuple[Value, Value]:
    """Velocities after a central elastic collision; momentum and kinetic energy are kept.

    v1' = ((m1 - m2) v1 + 2 m2 v2) / (m1 + m2), v2' = ((m2 - m1) v2 + 2 m1 v1) / (m1 + m2).
    """
    total = m1 + m2
    return ((m1 - m2) * v1 + 2.0 * m2 * v2) / total, ((m2 - m1) * v2 + 2.0 * m1 * v1) / total


def inelastic(m1: Value, m2: Value, v1: Value, v2: Value) -> Value:
    """Common velocity after a perfectly inelastic collision: (m1 v1 + m2 v2) / (m1 + m2)."""
    return (m1 * v1 + m2 * v2) / (m1 + m2)


def collide(t: Array, x0: Value, before: Value, after: Value, contact: Value) -> Array:
    """One velocity before the contact, another after it: x = x0 + u min(t, tc) + u' max(0, t - tc)."""
    return np.asarray(x0 + before * np.minimum(t, contact) + after * np.maximum(t - contact, 0.0))


def deform(half_x: Value, half_y: Value, strain: Value) -> tuple[Value, Value]:
    """Half extents under a strain a, area kept: (rx e^a, ry e^-a). a > 0 is flat and wide, a < 0 is tall."""
    return half_x * np.exp(strain), half_y * np.exp(-strain)


def pulse(t: Array, amplitude: Value) -> Array:
    """Strain of an elastic body that is squeezed (or pulled) once and springs back: a(t) = A sin^2(pi t)."""
    return np.asarray(amplitude * np.sin(np.pi * t) ** 2)


def wobble(t: Array, amplitude: Value, damping: Value, frequency: Value) -> Array:
    """Strain of a damped oscillation: a(t) = A e^(-k t) sin(2 pi f t)."""
    return np.asarray(amplitude * np.exp(-damping * t) * np.sin(2.0 * np.pi * frequency * t))


def splat(t: Array, amplitude: Value, impact: Value, tau: Value) -> Array:
    """Strain of a soft body that gives way after its impact: a(t) = A (1 - e^(-(t - t1)/tau)) for t > t1."""
    return np.asarray(amplitude * (1.0 - np.exp(-np.maximum(t - impact, 0.0) / tau)))


def press(t: Array, half_y: Value, flat: Value, contact: Value, release: Value) -> Array:
    """Half height under a plate that comes down at constant speed and leaves: plastic, nothing springs back.

    ry falls linearly from ry(contact) = half_y to ry(release) = flat, and stays.
    """
    share = np.clip((t - contact) / (release - contact), 0.0, 1.0)
    return np.asarray(half_y + (flat - half_y) * share)
