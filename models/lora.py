"""LoRA adapters: attach to a frozen network, switch off for the reference, save for plain diffusers, play.

The file is diffusers' own layout (`pytorch_lora_weights.safetensors`): tensors named
`transformer.<layer>.lora_A.weight`, and the adapter's rank, alpha and targets in the header under
`lora_adapter_metadata`, without which `load_lora_weights` would silently take alpha = rank. Our own facts
(base model, ...) lie beside it under `vidloop`. The bytes are a function of the content: the header is
written in sorted order.
"""

from __future__ import annotations

import copy
import json
import math
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from data.errors import ModelError
from models.adapted_linear import AdaptedLinear, Effect, share
from models.lora_spec import PREFIX, header_of, read_header
from models.lora_spec import LoraSpec as LoraSpec

FILE_NAME: Final = "pytorch_lora_weights.safetensors"
POLICY: Final = "policy"
REFERENCE: Final = "reference"
# Of an adapter that is played, so many layers are probed.
_PROBED: Final = 32


@dataclass(frozen=True, slots=True)
class LoraFile:
    """A parsed adapter file; `tensors` are named as in the network: `blocks.0.attn1.to_q.lora_A.weight`."""

    spec: LoraSpec
    tensors: dict[str, Tensor]
    base_id: str | None
    facts: dict[str, Any] = field(default_factory=dict)


class Adapter:
    """A trainable adapter inside a network."""

    def __init__(self, transformer: nn.Module, spec: LoraSpec) -> None:
        self.spec = spec
        self._parameters = _named(transformer, POLICY)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable float32 parameters, by name, sorted."""
        return self._parameters

    def to_bytes(self, base_id: str, facts: Mapping[str, Any] | None = None) -> bytes:
        """The adapter as a file that plain diffusers loads."""
        tensors = {name: parameter.detach().float().cpu() for name, parameter in self._parameters.items()}
        return write(LoraFile(self.spec, tensors, base_id, dict(facts or {})))


def attach(transformer: nn.Module, spec: LoraSpec, seed: int) -> Adapter:
    """Add a new adapter: A Kaiming-uniform from `seed`, B zero, so that the network computes what it did
    before.

    Raises:
        ModelError: no layer's name ends with a target.
    """
    _inject(transformer, spec, POLICY)
    adapter = Adapter(transformer, spec)
    generator = torch.Generator("cpu").manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter.parameters().items():
            if ".lora_A." in name:
                # peft's own start values, drawn from a generator of ours: the global one belongs to every
                # thread
                bound = 1 / math.sqrt(parameter.shape[1])
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 2 * bound - bound)
            else:
                parameter.zero_()
    return adapter


def resume(
    transformer: nn.Module,
    data: bytes,
    base_id: str | None = None,
    *,
    keep_reference: bool = True,
    expert: str | None = None,
) -> Adapter:
    """Add a trainable adapter that starts from a saved one.

    Args:
        base_id: identity of the network; an adapter of another base is refused.
        keep_reference: also keep the saved one, frozen, for `reference_of`.
        expert: which network of its model this is; an adapter of another one is refused.

    Raises:
        ModelError: the bytes are no adapter, of another base, or do not fit the network.
    """
    file = read(data, base_id, expert)
    for name in (REFERENCE, POLICY) if keep_reference else (POLICY,):
        _inject(transformer, file.spec, name)
        _fill(transformer, file, name)
    for layer in layers_of(transformer):
        layer.set_adapter(POLICY)
    return Adapter(transformer, file.spec)


def reference_of(transformer: nn.Module) -> Any:
    """A network over the same weights that stays what training started from, whatever the adapter learns.

    That is the frozen adapter which `resume` kept, else the base model. A copy with its own switches, so no
    exception can leave the policy's adapter off, and threads may run both at once.
    """
    still = clone_sharing_weights(transformer)
    for layer in layers_of(still):
        if REFERENCE in layer.lora_A:
            layer.set_adapter(REFERENCE, inference_mode=True)
        else:
            layer.enable_adapters(False)
    # peft's switches also freeze the adapter itself, which the two networks share
    for name, parameter in transformer.named_parameters():
        parameter.requires_grad_(f".{POLICY}." in name)
    return still


def clone_sharing_weights(network: nn.Module) -> Any:
    """A copy for another thread: every weight shared; switches, caches and hooks are its own."""
    tensors = chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def layers_of(transformer: nn.Module) -> list[Any]:
    """The layers that have an adapter (peft's own objects)."""
    # imported late: reading and merging an adapter need none of peft's seconds
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in transformer.modules() if isinstance(layer, BaseTunerLayer)]


def play(
    transformer: nn.Module,
    data: bytes,
    base_id: str | None = None,
    expert: str | None = None,
    *,
    device: torch.device | None = None,
) -> Effect:
    """Have the network compute with a saved adapter, frozen, for sampling in bulk.

    In float32 alpha / rank * B A is added to the weights; elsewhere it would be rounded away, and the layers
    become `AdaptedLinear`.

    Args:
        transformer: a diffusers model.
        base_id, expert: see `resume`.
        device: that computes the sums; None: where the weights lie. They stay where they are.

    Returns:
        How much of the adapter's effect the layers now have.

    Raises:
        ModelError: the bytes are no adapter, of another base or expert, or do not fit the network.
    """
    file = read(data, base_id, expert)
    names = sorted(name.removesuffix(".lora_A.weight") for name in file.tensors if ".lora_A." in name)
    probed = set(names[:: max(1, -(-len(names) // _PROBED))])
    model: Any = transformer  # nn.Module does not declare its dtype
    shares = []
    for name in names:
        down, up = file.tensors[f"{name}.lora_A.weight"], file.tensors[f"{name}.lora_B.weight"]
        try:
            linear = transformer.get_submodule(name)
        except AttributeError as missing:
            raise ModelError(f"the adapter has a layer {name} that this model lacks") from missing
        if not isinstance(linear, nn.Linear) or linear.weight.shape != (len(up), down.shape[1]):
            raise ModelError(f"the adapter's layer {name} is for another size of this model")
        where = device or linear.weight.device
        down, up = down.float().to(where), file.spec.alpha / file.spec.rank * up.float().to(where)
        # Some layers of a model in bfloat16 are kept in float32.
        held = linear.weight.dtype
        dtype = model.dtype if held.itemsize == 1 else held
        base = copy.deepcopy(linear).to(where) if name in probed and bool(up.any()) else None
        played: nn.Module = linear
        if held == torch.float32:
            with torch.no_grad():
                linear.weight.copy_(linear.weight.to(where) + up @ down)
        else:
            played = AdaptedLinear(linear, down, up, dtype)
            transformer.set_submodule(name, played)
        if base is not None:
            shares.append(share(copy.deepcopy(played).to(where), base, down, up, dtype))
    return Effect(len(names), tuple(shares))


def write(file: LoraFile) -> bytes:
    """Bytes of an adapter file; equal content gives equal bytes, in every process."""
    config = {"r": file.spec.rank, "lora_alpha": file.spec.alpha, "target_modules": sorted(file.spec.targets)}
    ours = {"base_id": file.base_id, **file.facts}
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps({PREFIX + k: v for k, v in config.items()}, sort_keys=True),
        "vidloop": json.dumps(ours, sort_keys=True),
    }
    plain = safetensors.torch.save({PREFIX + name: t.contiguous() for name, t in file.tensors.items()})
    # safetensors itself writes the metadata in an order that differs by process
    tensors, body = header_of(plain)
    text = json.dumps({"__metadata__": metadata, **tensors}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def read(data: bytes, base_id: str | None = None, expert: str | None = None) -> LoraFile:
    """Parse an adapter file made by `write` (or by diffusers with its metadata).

    Raises:
        ModelError: the bytes are not such a file, or it was made for another base model than `base_id`, or
            for another of its experts than `expert`.
    """
    spec, facts = read_header(data)
    try:
        tensors = {k.removeprefix(PREFIX): v for k, v in safetensors.torch.load(data).items()}
    except (SafetensorError, KeyError, ValueError) as failure:  # KeyError: a type that PyTorch lacks
        raise ModelError(f"the adapter's tensors cannot be read: {failure!r}") from failure
    _check_pairs(tensors, spec.rank)
    made_for = facts.pop("base_id", None)
    if base_id is not None and made_for is not None and made_for != base_id:
        raise ModelError(
            f"the adapter was made for base model {made_for}, this is {base_id}: choose its own base"
        )
    trained = facts.get("expert", expert)
    if expert is not None and trained != expert:
        raise ModelError(
            f"the adapter was made for the expert for {trained} noise, this is the one for {expert}"
        )
    return LoraFile(spec, tensors, made_for, facts)


def _check_pairs(tensors: Mapping[str, Tensor], rank: int) -> None:
    """Raise ModelError unless each layer has an A [rank, inputs], a B [outputs, rank], and no more."""
    for name, tensor in tensors.items():
        layer, _, side = name.removesuffix(".weight").rpartition(".lora_")
        paired = side in ("A", "B") and all(f"{layer}.lora_{one}.weight" in tensors for one in "AB")
        fits = tensor.dim() == 2 and tensor.shape[side == "B"] == rank and tensor.is_floating_point()
        if not (paired and fits):
            raise ModelError(
                f"the adapter's {name} ({tensor.dtype}, {list(tensor.shape)}) is none of a pair lora_A, "
                f"lora_B of rank {rank}: an adapter has two of one rank for each of its layers, and no more"
            )


def _inject(transformer: Any, spec: LoraSpec, name: str) -> None:
    from peft import LoraConfig

    config = LoraConfig(
        r=spec.rank, lora_alpha=spec.alpha, target_modules=sorted(spec.targets), init_lora_weights=False
    )
    try:
        # peft draws start values that we replace: the global generator is not ours to move.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            # It doubts that two adapters are meant; policy and reference are.
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            transformer.add_adapter(config, adapter_name=name)
    except ValueError as failure:
        raise ModelError(
            f"finetune.targets {list(spec.targets)} do not fit this model: {failure}"
        ) from failure
    for parameter in _named(transformer, name).values():
        parameter.data = parameter.data.float()


def _named(transformer: nn.Module, adapter: str) -> dict[str, nn.Parameter]:
    """Parameters of the adapter of that name, as they are called in its file, sorted."""
    mark = f".{adapter}."
    named = sorted(transformer.named_parameters())
    return {name.replace(mark, "."): parameter for name, parameter in named if mark in name}


def _fill(transformer: nn.Module, file: LoraFile, name: str) -> None:
    mine = _named(transformer, name)
    if mine.keys() != file.tensors.keys() or any(v.shape != file.tensors[k].shape for k, v in mine.items()):
        raise ModelError(
            "the adapter's layers are not those of this model: it was made for another architecture"
        )
    with torch.no_grad():
        for key, parameter in mine.items():
            parameter.copy_(file.tensors[key])
