import numpy as np
import pytest

from miniature.world import laws

t = np.linspace(0.0, 1.0, 2001)
dt = t[1] - t[0]


def speed(x):
    return np.diff(x) / dt


def test_free_fall_accelerates_by_g():
    y = laws.free_fall(t, 0.1, 3.7, v0=-0.5)
    np.testing.assert_allclose(np.diff(speed(y)) / dt, 3.7, rtol=1e-5)
    assert speed(y)[0] == pytest.approx(-0.5, abs=2e-3)


def test_an_elastic_bounce_keeps_the_energy():
    g, floor = 3.6, 0.8
    y = laws.bounce(t, 0.2, g, floor, 1.0)
    middle = (y[1:] + y[:-1]) / 2
    energy = 0.5 * speed(y) ** 2 + g * (floor - middle)
    away_from_impacts = middle < floor - 0.01
    np.testing.assert_allclose(energy[away_from_impacts], g * 0.6, rtol=1e-3)


@pytest.mark.parametrize("restitution", [0.5, 0.7, 1.2])
def test_a_rebound_rises_to_the_square_of_the_restitution(restitution):
    g, floor, y0 = 12.0, 0.9, 0.5
    y = laws.bounce(t, y0, g, floor, restitution)
    impact = np.sqrt(2 * (floor - y0) / g)
    flight = 2 * restitution * g * impact / g
    first = (t > impact) & (t < impact + flight)
    assert floor - y[first].min() == pytest.approx(restitution**2 * (floor - y0), rel=1e-3)
    assert y.max() <= floor + 1e-12


def test_without_restitution_a_fall_ends_on_the_floor():
    y = laws.bounce(t, 0.2, 4.0, 0.8, 0.0)
    np.testing.assert_allclose(y, laws.land(t, 0.2, 4.0, 0.8))
    assert (y[t > np.sqrt(2 * 0.6 / 4.0)] == 0.8).all()


def test_a_toss_comes_back_after_twice_v_over_g():
    y = laws.toss(t, 0.8, 2.0, 5.0)
    assert 0.8 - y.min() == pytest.approx(2.0**2 / (2 * 5.0), rel=1e-5)
    assert t[y.argmin()] == pytest.approx(0.4, abs=dt)
    assert (y[t >= 0.8] == 0.8).all()
    assert (y[(t > 0) & (t < 0.8 - dt)] < 0.8).all()


def test_an_elastic_collision_keeps_momentum_and_energy():
    rng = np.random.default_rng(0)
    m1, m2, v1, v2 = rng.uniform(0.5, 2.0, (4, 100))
    w1, w2 = laws.elastic(m1, m2, v1, -v2)
    np.testing.assert_allclose(m1 * w1 + m2 * w2, m1 * v1 - m2 * v2)
    np.testing.assert_allclose(m1 * w1**2 + m2 * w2**2, m1 * v1**2 + m2 * v2**2)
    assert laws.elastic(1.0, 1.0, 0.7, -0.2) == pytest.approx((-0.2, 0.7))  # equal masses exchange


def test_an_inelastic_collision_keeps_momentum_and_loses_energy():
    w = laws.inelastic(2.0, 1.0, 0.9, 0.3)
    assert 3.0 * w == pytest.approx(2.0 * 0.9 + 1.0 * 0.3)
    assert 3.0 * w**2 < 2.0 * 0.9**2 + 1.0 * 0.3**2


def test_a_collision_is_continuous_and_has_two_speeds():
    x = laws.collide(t, 0.1, 0.6, -0.2, 0.4)
    np.testing.assert_allclose(speed(x)[t[1:] < 0.4], 0.6)
    np.testing.assert_allclose(speed(x)[t[:-1] > 0.4], -0.2)
    assert np.abs(np.diff(x)).max() < 0.6 * dt + 1e-12


def test_friction_decelerates_steadily_to_rest():
    x = laws.friction(t, 0.2, 0.5, 0.7)
    moving = t[2:] < 0.7
    np.testing.assert_allclose((np.diff(speed(x)) / dt)[moving], -2 * 0.5 / 0.7**2, rtol=1e-4)
    np.testing.assert_allclose(x[t >= 0.7], 0.7)
    assert speed(x)[0] == pytest.approx(2 * 0.5 / 0.7, rel=2e-3)


def test_constant_velocity_and_its_delayed_start():
    np.testing.assert_allclose(speed(laws.uniform(t, 0.1, 0.4)), 0.4)
    x = laws.delayed(t, 0.3, -0.5, 0.25)
    assert (x[t <= 0.25] == 0.3).all()
    np.testing.assert_allclose(speed(x)[t[:-1] > 0.25], -0.5)


@pytest.mark.parametrize("strain", [-0.7, 0.0, 0.55])
def test_a_deformation_keeps_the_area(strain):
    wide, high = laws.deform(0.13, 0.11, strain)
    assert wide * high == pytest.approx(0.13 * 0.11)
    assert np.log(wide / 0.13) == pytest.approx(strain)


def test_an_elastic_pulse_begins_and_ends_at_rest():
    a = laws.pulse(t, 0.5)
    assert a[0] == pytest.approx(0.0)
    assert a[-1] == pytest.approx(0.0)
    assert a.max() == pytest.approx(0.5)


def test_a_wobble_loses_the_same_share_in_each_period():
    a = laws.wobble(t, 0.6, 1.8, 2.0)
    period = len(t) // 2  # 1 / frequency
    np.testing.assert_allclose(a[period:], np.exp(-1.8 * 0.5) * a[: len(a) - period], atol=1e-12)


def test_a_splat_stays_flat_and_a_press_is_as_flat_as_its_plate():
    a = laws.splat(t, 0.4, 0.5, 0.05)
    assert (a[t <= 0.5] == 0).all()
    assert (np.diff(a) >= 0).all()
    assert a[-1] == pytest.approx(0.4, rel=1e-3)
    half = laws.press(t, 0.12, 0.06, 0.3, 0.6)
    assert (half[t <= 0.3] == 0.12).all()
    np.testing.assert_allclose(half[t >= 0.6], 0.06)
    np.testing.assert_allclose(speed(half)[(t[:-1] > 0.3) & (t[1:] < 0.6)], -0.2)


def test_shapes_of_one_radius_have_one_area():
    ball, square, triangle = (laws.HALF_EXTENT[name] for name in ("ball", "square", "triangle"))
    assert np.pi * ball**2 == pytest.approx((2 * square) ** 2)
    assert np.pi * ball**2 == pytest.approx((2 * triangle) * (2 * triangle) / 2)
