"""What is left of an adapter's effect where it is played in bfloat16, and what playing it costs.

    python -m benchmarks.one_policy                                       results/one-policy.json

Plain is the adapter merged into bfloat16 weights, which costs nothing and rounds most of a young adapter
away. Beside it: peft's layers, as bare diffusers plays a loaded adapter, and ours (`models.lora.play`). The
effect is the change of a prediction; the truth is the same adapter over the same weights in float32. B is
drawn: an rms of 6e-5 is what some tens of steps at a learning rate of 5e-6 leave.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.full_size import build_transformer
from benchmarks.harness import Clock, Result, clip_options, elapsed, in_turn, options, write
from models import lora
from models.compile import compile_blocks, fastest_attention
from models.families import get_family
from models.families.base import Family
from models.lora import LoraFile, LoraSpec

SIZES: Final = (6e-5, 5e-4, 2e-3)
_REPEATS: Final = 6
_PASSES: Final = 4


def main() -> None:
    """See the module's docstring."""
    parser = options(__doc__)
    clip_options(parser)
    parser.add_argument("--family", default="wan")
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--draws", type=int, default=4, help="predictions of one clip, for the effect")
    asked = parser.parse_args()
    clock, device = Clock(), torch.device(asked.device)
    family = get_family(asked.family)
    base = build_transformer(asked.family, asked.size, asked.device)
    files = {size: random_adapter(family, base, asked.rank, size) for size in SIZES}
    with torch.no_grad(), fastest_attention(device):
        seconds = timed(asked, family, base, files[SIZES[1]], device)
        clock.say(f"timed: {seconds}")
        found = {f"B of rms {size:g}": effects(asked, family, base, files[size], device) for size in SIZES}
    cost = {name: value / seconds["merged"] for name, value in seconds.items()}
    write(
        Result(
            "one-policy", seconds["merged"], seconds["ours"],
            "seconds a clip and pass, batch of " + str(asked.batch_size),
            more_is_better=False, libraries=("torch", "diffusers", "peft"),
            shape={
                "model": f"{asked.family}-{asked.size}, random weights, bfloat16", "rank": asked.rank,
                "clip": f"{asked.height}x{asked.width}x{asked.frames}", "targets": list(family.lora_targets),
            },
            equality={"share of the adapter's effect on the prediction (with scatter)": found},
            details={"time, merged = 1": cost},
        ),
        asked.out,
    )  # fmt: skip


def random_adapter(family: Family, network: nn.Module, rank: int, size: float) -> bytes:
    """A of peft's own start, B normal of this rms, alpha the rank."""
    draw = torch.Generator().manual_seed(1)
    tensors = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Linear) and any(name.endswith(f".{end}") for end in family.lora_targets):
            bound = layer.in_features**-0.5
            down = torch.rand(rank, layer.in_features, generator=draw) * 2 * bound - bound
            tensors[f"{name}.lora_A.weight"] = down
            tensors[f"{name}.lora_B.weight"] = size * torch.randn(layer.out_features, rank, generator=draw)
    return lora.write(LoraFile(LoraSpec(rank, float(rank), family.lora_targets), tensors, None))


def merged(network: nn.Module, data: bytes) -> None:
    """The adapter added to the weights, whatever their dtype."""
    file = lora.read(data)
    for name, down in file.tensors.items():
        if ".lora_A." in name:
            weight = network.get_parameter(name.replace("lora_A.", ""))
            up = file.tensors[name.replace("lora_A", "lora_B")].to(weight.device)
            weight.copy_((weight.float() + up @ down.to(weight.device)).to(weight.dtype))


def by_peft(network: nn.Module, data: bytes) -> None:
    """The adapter in layers of peft's, as diffusers loads it."""
    lora.resume(network, data, keep_reference=False).parameters()
    network.requires_grad_(False)


WAYS: Final[dict[str, Callable[[nn.Module, bytes], object]]] = {
    "merged": merged, "peft": by_peft, "ours": lora.play
}  # fmt: skip


def timed(asked: Any, family: Family, base: nn.Module, data: bytes, device: torch.device) -> dict[str, float]:
    """Seconds a clip of one compiled pass, each way in turn; the least of the repeats."""
    given = inputs(asked, base, asked.batch_size, 0)
    networks = {name: played(base, way, data) for name, way in WAYS.items()}
    for network in networks.values():
        compile_blocks(network)
        family.predict(network, *given)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _, name in in_turn(list(networks), _REPEATS):
        once = elapsed(partial(_passes, family, networks[name], given), device)
        seconds[name].append(once / _PASSES / asked.batch_size)
    torch._dynamo.reset()
    return {name: min(values) for name, values in seconds.items()}


def _passes(family: Family, network: nn.Module, given: tuple[Tensor, Tensor, Tensor]) -> None:
    for _ in range(_PASSES):
        family.predict(network, *given)


def effects(asked: Any, family: Family, base: nn.Module, data: bytes, device: torch.device) -> dict[str, Any]:
    """Of each way, the coefficient of its change of predictions on the true one, and what scatters it."""
    given = [inputs(asked, base, 1, seed) for seed in range(asked.draws)]
    exact = copy.deepcopy(base).float()
    without = [family.predict(exact, *one) for one in given]
    merged(exact, data)
    wanted = [family.predict(exact, *one) - start for one, start in zip(given, without, strict=True)]
    del exact
    plain = [family.predict(base, *one).float() for one in given]
    found: dict[str, Any] = {}
    for name, way in WAYS.items():
        network = played(base, way, data)
        got = [family.predict(network, *one).float() - start for one, start in zip(given, plain, strict=True)]
        found[name] = coefficient(got, wanted)
        del network
    ours = played(base, lora.play, data)
    compile_blocks(ours)
    compiled = copy.deepcopy(base)
    compile_blocks(compiled)
    got = [family.predict(ours, *one).float() - family.predict(compiled, *one).float() for one in given]
    return {**found, "ours, compiled": coefficient(got, wanted)}


def coefficient(got: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """Of regression through zero, and its standard error by the scatter among draws."""
    total = sum(float(w.square().sum()) for w in wanted)
    share = sum(float((g * w).sum()) for g, w in zip(got, wanted, strict=True)) / total
    apart = [float(((g - share * w) * w).sum()) / total for g, w in zip(got, wanted, strict=True)]
    return [round(share, 4), round(sum(a * a for a in apart) ** 0.5, 4)]


def played(base: nn.Module, way: Callable[[nn.Module, bytes], object], data: bytes) -> nn.Module:
    """A copy of `base` with the adapter played one way."""
    network = copy.deepcopy(base)
    way(network, data)
    return network


def inputs(asked: Any, network: Any, clips: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, noise levels and embeddings."""
    draw = torch.Generator().manual_seed(seed)
    config = network.config
    shape = (clips, config.in_channels, (asked.frames - 1) // 4 + 1, asked.height // 8, asked.width // 8)
    noise, texts = (
        torch.randn(shape, generator=draw),
        torch.randn(clips, 512, config.text_dim, generator=draw),
    )
    device = next(network.parameters()).device
    # As bfloat16 holds them, so that the network in float32 is asked the same.
    noise, texts = (part.bfloat16().float().to(device) for part in (noise, texts))
    return noise, torch.full((clips,), 0.6, device=device), texts


if __name__ == "__main__":
    main()
