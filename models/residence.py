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

from data.errors import BadInput

log = logging.getLogger(__name__)

# Networks that take no more than this of the device stay there: what computes needs the other half.
_STAYING: Final = 0.5
# Beside others comes only what leaves a little of the free memory, for its own work.
_BESIDE: Final = 1.1


class Residence:
    """The movable parts of one pipeline, shared by all samplers over its weights. One thread at a time.

    Args:
        networks: that denoise, by name. They stay on the device if they all take less than half of it.
        text_encoder: comes for prompts and leaves after them.
        device: where parts compute.
        total: bytes of the device; None asks a GPU, and takes a CPU for boundless.

    Attributes:
        stays: whether the networks stay.
        present: names of the parts that are on the device now.
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
        self._networks = tuple(networks)
        self._weights = {
            name: [*part.parameters(), *part.buffers()]
            for name, part in {**networks, self.TEXT: text_encoder}.items()
        }
        self._homes: dict[str, list[Tensor]] = {}
        if total is None and device.type == "cuda":
            total = torch.cuda.get_device_properties(device).total_memory
        size = sum(self._bytes(name) for name in networks)
        self.stays = total is None or size <= _STAYING * total
        self.present = {name for name in self._weights if self._is_there(name)}
        for name in networks:
            if self.stays:
                self._come(name)
            else:
                self.leave(name)
        log.info(
            "networks of %.1f GB %s", size / 1e9, "stay on the device" if self.stays else "take turns on it"
        )

    def bring(self, name: str) -> None:
        """Have a part on the device; others leave first where they must.

        Raises:
            BadInput: its weights do not fit there.
        """
        if name in self.present:
            return
        beside = self._fits_beside(name) if name == self.TEXT or self.stays else False
        for other in () if beside else sorted(self.present):
            self.leave(other)
        try:
            self._come(name)
        except torch.OutOfMemoryError:
            self.present.add(name)  # some of it is
            self.leave(name)
            raise BadInput(self._too_large(name)) from None

    def leave(self, name: str) -> None:
        """Free a part's memory on the device."""
        if name not in self.present:
            return
        home = self._homes.get(name)
        if home is None:
            home = self._homes[name] = [weight.data.cpu() for weight in self._weights[name]]
        for weight, kept in zip(self._weights[name], home, strict=True):
            weight.data = kept
        self.present.discard(name)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def at_work(self, name: str) -> Iterator[None]:
        """Within: the part is on the device; afterwards it has left."""
        self.bring(name)
        try:
            yield
        finally:
            self.leave(name)

    @contextmanager
    def in_turn(self, networks: Mapping[str, nn.Module]) -> Iterator[None]:
        """Within: each of `networks`, over the weights that this was made with, comes before it computes."""
        hooks = [
            network.register_forward_pre_hook(lambda *_, name=name: self.bring(name))
            for name, network in networks.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _come(self, name: str) -> None:
        weights = self._weights[name]
        if name == self.TEXT or not self.stays:
            self._homes.setdefault(name, [weight.data.cpu() for weight in weights])
        for weight in weights:
            weight.data = weight.data.to(self._device)
        self.present.add(name)

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

    def _is_there(self, name: str) -> bool:
        return all(weight.device.type == self._device.type for weight in self._weights[name])
