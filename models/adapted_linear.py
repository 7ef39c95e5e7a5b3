"""A linear layer and its adapter as one product, wherever the policy is played: x (W + s B A)^T.

Adapters are small, and what plays them must not round them away. In bfloat16 a merged weight loses every
update below half a unit of W's last place, and a sum x W^T + s (x A^T) B^T of two rounded terms loses what
is below half a unit of the first: at full size nine tenths of a young adapter (docs/speed.md). So there is
one product over both, rounded once at its end:

    [x, x A^T] [W, s B]^T        in bfloat16 and float16, also over weights held in float8
    x (W + s B A)^T              in float32, whose own rounding is far below any update

Training and the reference it compares with (`fused`, over peft's layers) and sampling (`AdaptedLinear`) all
compute it so. The backward pass needs only rank-sized products beside dy W, since W gets no gradient:
with u = x A^T and v = s dy B,

    dx = dy W + v A      dA = v^T x      dB = s dy^T u
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# An adapter adds columns in whole tiles of a GPU's matrix kernels, which cost no more than parts of them.
_TILE: Final = 64
# Of a layer's answers, by which its share of an adapter is measured: scatter of rounding averages out.
_ANSWERS: Final = 1 << 20


@torch.library.custom_op("vidloop::fill_adapter_columns", mutates_args=("wide",))
def _fill(wide: Tensor, down: Tensor) -> None:
    """Into the last R columns of `wide` [M, K + R]: its first K times `down` [R, K] transposed."""
    width = down.shape[1]
    torch.mm(wide[:, :width], down.t(), out=wide[:, width:])


@_fill.register_fake
def _(wide: Tensor, down: Tensor) -> None:
    return None


def _widened(x: Tensor, down: Tensor) -> Tensor:
    """[M, K + R] of x [..., K]: itself, and beside it x A^T.

    Whatever makes x, a normalisation too, writes into the wide tensor at once where it is compiled: a copy to
    an `as_strided` view is the one that torch.compile always turns into writes in place. Of padding or
    concatenation it makes a pass of its own over x.
    """
    rows = x.flatten(0, -2)
    wide = x.new_empty(len(rows), rows.shape[1] + len(down))
    wide.as_strided(rows.shape, wide.stride()).copy_(rows)
    _fill(wide, down)
    return wide


def _bias(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A frozen layer's bias; held in float8 like its weights it is brought to where it is added."""
    return None if bias is None else bias.detach().to(dtype)


def _in_tiles(down: Tensor, up: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A [R, K] and s B [N, R] in `dtype`, filled up with zeros to whole tiles of R."""
    more = -len(down) % _TILE
    return F.pad(down, (0, 0, 0, more)).to(dtype), F.pad(up, (0, more)).to(dtype)


class _Merged(torch.autograd.Function):
    """Linear layer of weight W + s B A, with gradients for x, A and B."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        merged = torch.addmm(weight.to(x.dtype), b, a, alpha=scale)
        ctx.save_for_backward(x, merged, a, b)
        ctx.scale = scale
        return F.linear(x, merged, _bias(bias, x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, merged, a, b = ctx.saved_tensors
        dx = dy @ merged if ctx.needs_input_grad[0] else None
        x, dy = x.flatten(0, -2), dy.flatten(0, -2)
        da = (dy @ b).T @ x
        db = dy.T @ (x @ a.T)
        return dx, None, None, da.mul_(ctx.scale), db.mul_(ctx.scale), None


class _Joined(torch.autograd.Function):
    """The same in the dtype of x, as one product over [x, x A^T]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        down, up = _in_tiles(a, scale * b, x.dtype)
        wide = _widened(x, down)
        y = F.linear(wide, torch.cat((weight.to(x.dtype), up), 1), _bias(bias, x.dtype))
        rank = len(a)
        u = wide[:, x.shape[-1] : x.shape[-1] + rank].contiguous()
        ctx.save_for_backward(x, weight, down[:rank], up[:, :rank], u)
        ctx.scale = scale
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, u = ctx.saved_tensors
        shape, x, dy = x.shape, x.flatten(0, -2), dy.flatten(0, -2)
        v = dy @ up
        dx = None
        if ctx.needs_input_grad[0]:
            # One rounding here too: the small term is the sum's start.
            dx = torch.addmm(v @ down, dy, weight.to(dy.dtype)).view(shape)
        da, db = v.T @ x, dy.T @ u
        return dx, None, None, da.float(), db.float().mul_(ctx.scale), None


@contextmanager
def fused(layers: Sequence[Any]) -> Iterator[None]:
    """Within: those of `layers`, peft's LoRA layers, that are over linear ones compute as this module says.

    Switching adapters on, off and over works as before. The class of the layers is changed, and not each
    layer's own `forward`: torch.compile would hold that to be another function in every block, and compile
    each block anew.
    """
    linear = [layer for layer in layers if isinstance(layer.get_base_layer(), nn.Linear)]
    changed: list[tuple[Any, Any]] = [(layer, type(layer)) for layer in linear]
    for layer, kind in changed:
        layer.__class__ = _fused_kind(kind)
    try:
        yield
    finally:
        for layer, kind in changed:
            layer.__class__ = kind


@functools.cache
def _fused_kind(kind: type) -> type:
    """That class of peft's layers with our `forward`."""
    return type(f"Fused{kind.__name__}", (kind,), {"forward": _forward})


def _forward(layer: Any, x: Tensor) -> Tensor:
    base = layer.get_base_layer()
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    elif base.weight.dtype.itemsize > 1:
        x = x.to(base.weight.dtype)
    names = [] if layer.disable_adapters else layer.active_adapters
    if x.dtype == torch.float32 and not names:
        return F.linear(x, base.weight.to(x.dtype), _bias(base.bias, x.dtype))
    # Switched off it is the same product with a scale of zero: kernels choose the order of sums by shape, and
    # a policy that has learned nothing yet must equal its reference to the last bit.
    (name,) = names or [next(iter(layer.lora_A))]
    scale = layer.scaling[name] if names else 0.0
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    apply: Any = (_Merged if x.dtype == torch.float32 else _Joined).apply  # torch leaves it untyped
    y: Tensor = apply(x, base.weight, base.bias, a, b, scale)
    return y


class AdaptedLinear(nn.Module):
    """A frozen linear layer with a frozen adapter beside it, for sampling.

    Args:
        linear: the layer; its weights are held as they are, float8 ones too.
        down, up: A [R, K] and s B [N, R] of the adapter, float32.
        dtype: in which it computes.
    """

    weight: Tensor
    down: Tensor
    up: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, down: Tensor, up: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        weight = linear.weight.detach()
        down, up = (part.to(weight.device) for part in _in_tiles(down, up, dtype))
        held = weight.dtype.itemsize == 1
        self.register_buffer("weight", weight if held else torch.cat((weight, up), 1))
        self.register_buffer("up", up if held else None)
        self.register_buffer("down", down)
        self.register_buffer("bias", _bias(linear.bias, dtype))

    def forward(self, x: Tensor) -> Tensor:
        """[..., N] of x [..., K]."""
        dtype = self.down.dtype
        both = self.weight if self.up is None else torch.cat((self.weight.to(dtype), self.up), 1)
        y = F.linear(_widened(x.to(dtype), self.down), both, self.bias)
        return y.view(*x.shape[:-1], -1)


@dataclass(frozen=True, slots=True)
class Effect:
    """Of an adapter as it is played, measured layer by layer.

    Attributes:
        layers: that have it.
        shares: of those that were probed, how much of what the adapter's float32 numbers add to the layer's
            answer is there (see `share`). Empty: it adds nothing.
    """

    layers: int
    shares: tuple[float, ...]

    @property
    def error(self) -> float:
        """How far the mean share is from 1."""
        return abs(fmean(self.shares) - 1) if self.shares else 0.0

    @property
    def uncertainty(self) -> float:
        """Standard error of the mean share, by the scatter among layers."""
        return stdev(self.shares) / math.sqrt(len(self.shares)) if len(self.shares) > 1 else 0.0


@torch.no_grad()
def share(played: nn.Module, linear: nn.Linear, down: Tensor, up: Tensor, dtype: torch.dtype) -> float:
    """How much of an adapter's effect a layer has: 1 if all of it.

    The coefficient of regression of what the layer answers beyond `linear`, the one without the adapter and
    in float32, on what A [R, K] and s B [N, R] add in float32, over random rows in `dtype`. The rounding of
    the answer, which has nothing to do with the adapter, scatters the coefficient but does not move it.
    """
    rows = torch.randn(-(-_ANSWERS // len(up)), down.shape[1], generator=torch.Generator().manual_seed(0))
    x = rows.to(down.device, dtype)
    bias = _bias(linear.bias, torch.float32)
    beyond = played(x).float() - F.linear(x.float(), linear.weight.float(), bias)
    exact = x.float() @ down.T @ up.T
    return float((beyond * exact).sum() / exact.square().sum())
