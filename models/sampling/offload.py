"""Which parts of a pipeline lie on the GPU, where it does not hold them all: each comes when it is needed.

A text encoder of 11 GB works for milliseconds a prompt, and of two experts of 28 GB one works at a time.
Weights that do not stay are kept in the host's memory, so only the way to the device is ever copied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, nn

from data.errors import ModelError

log = logging.getLogger(__name__)

# Networks that take no more than this of the device stay there: the two experts of Wan2.2 A14B (57 GB in
# bfloat16) on a card of 80 GB, where a clip of 480x832x33 then asks for 7 GB more.
STAYING: Final = 0.75
# Beside others comes only what leaves a little of the free memory, for its own work.
_BESIDE: Final = 1.1


class ModelOffloader:
    """The movable parts of one pipeline, shared by all samplers over its weights. One thread at a time.

    A part that moves keeps its parameters and buffers; what changes is the memory they point to. So nothing
    that was compiled is compiled again, and a part that has left and come back is bit for bit what it was.
    Copies are made on the stream that computes, so none is read before it is whole. Weights must not change
    from now on: what has once left the device comes from the host.

    Args:
        networks: that denoise, by name. They stay on the device if they all take less than three quarters.
        text_encoder: comes for prompts and leaves after them.
        device: where parts compute.
        total: bytes of the device; None asks a GPU, and takes a CPU for boundless.

    Attributes:
        stays: whether the networks stay; nothing but the text encoder is moved then, where there is room.
        present: names of the parts that are on the device now.

    Raises:
        ModelError: a network's weights do not fit the device.
    """

    TEXT: Final = "text_encoder"

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        text_encoder: nn.Module,
        device: torch.device,
        total: int | None = None,
    ) -> None:
        self._device = device
        self._weights = {
            name: [*part.parameters(), *part.buffers()]
            for name, part in {**networks, self.TEXT: text_encoder}.items()
        }
        self._homes: dict[str, list[Tensor]] = {}
        if total is None and device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
        size = sum(self._bytes(name) for name in networks)
        self.stays = total is None or size <= STAYING * total
        self.present = {
            name
            for name, weights in self._weights.items()
            if all(weight.device.type == device.type for weight in weights)
        }
        for name in networks:
            if self.stays:
                self.to_device(name)
            else:
                self.to_host(name)
        log.info(
            "networks of %.1f GB %s", size / 1e9, "stay on the device" if self.stays else "take turns on it"
        )

    def to_device(self, name: str) -> None:
        """Have a part on the device; others leave first where they must.

        Raises:
            ModelError: its weights do not fit there, although it is empty of the other parts.
        """
        if name in self.present:
            return
        # Networks that take turns may not lie beside others, whatever the room.
        if not ((name == self.TEXT or self.stays) and self._fits_beside(name)):
            self._all_to_host()
        while True:
            try:
                self._copy_to_device(name)
                return
            except torch.OutOfMemoryError:
                # By the numbers there was room: in pieces, or another program was faster. What did come is
                # given back outside the handler, whose traceback may hold tensors.
                pass
            self.to_host(name)
            if not self.present:
                raise ModelError(self._too_large(name))
            self._all_to_host()

    def to_host(self, name: str) -> None:
        """Free a part's memory on the device, also where only some of it has come."""
        weights = self._weights[name]
        home = self._homes.get(name)
        if home is None:
            home = self._homes[name] = [weight.data.cpu() for weight in weights]
        for weight, kept in zip(weights, home, strict=True):
            weight.data = kept
        self.present.discard(name)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def on_device(self, name: str) -> Iterator[None]:
        """Within: the part is on the device; afterwards it has left, whatever was raised."""
        try:
            self.to_device(name)
            yield
        finally:
            self.to_host(name)

    @contextmanager
    def in_turn(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        """Within: each of `networks`, over the weights that this was made with, comes before it computes."""
        hooks = [
            network.register_forward_pre_hook(lambda *_, name=name: self.to_device(name))
            for name, network in networks.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _copy_to_device(self, name: str) -> None:
        weights = self._weights[name]
        if not (self.stays and name != self.TEXT):
            # Those that will leave again: their copy in the host's memory is kept, none is ever copied back.
            self._homes.setdefault(name, [weight.data.cpu() for weight in weights])
        for weight in weights:
            weight.data = weight.data.to(self._device, copy=True)
        self.present.add(name)

    def _all_to_host(self) -> None:
        for name in sorted(self.present):
            self.to_host(name)

    def _too_large(self, name: str) -> str:
        free = ""
        if self._device.type == "cuda":
            free = f", and {torch.cuda.mem_get_info(self._device)[0] / 1e9:.1f} GB of it are free"
        return (
            f"the weights of {name} ({self._bytes(name) / 1e9:.1f} GB) do not fit on {self._device}{free}: "
            "set model.dtype to bfloat16 or model.quantise to fp8-storage, end other programs on this GPU, "
            "or take a larger one (docs/cards.md)"
        )

    def _fits_beside(self, name: str) -> bool:
        if self._device.type != "cuda":
            return True
        reserved = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        free = torch.cuda.mem_get_info(self._device)[0] + reserved
        return self._bytes(name) * _BESIDE <= free

    def _bytes(self, name: str) -> int:
        return sum(weight.numel() * weight.element_size() for weight in self._weights[name])
