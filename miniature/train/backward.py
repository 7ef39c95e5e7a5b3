"""Forward and backward pass of one training step; on a GPU recorded once as a CUDA graph and replayed.

The miniature is so small that launching its kernels takes longer than running them. A recorded step is one
launch. `loss` therefore takes no arguments and must draw its own batch from tensors that stay where they are.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# PyTorch asks for a few plain runs on a side stream before a step is recorded.
_PLAIN_RUNS = 3


class Backward:
    """Call it for the gradient of one fresh batch; the gradients of all parameters lie in `gradient` [n]."""

    def __init__(self, loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], record: bool) -> None:
        self._loss = loss
        first = parameters[0]
        self.gradient = torch.zeros(sum(p.numel() for p in parameters), device=first.device)
        position = 0
        for parameter in parameters:
            # Views of one tensor: it is cleared, averaged over GPUs and clipped in one operation each.
            parameter.grad = self.gradient[position : position + parameter.numel()].view_as(parameter)
            position += parameter.numel()
        self._graph: torch.cuda.CUDAGraph | None = None
        if record:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_PLAIN_RUNS):
                    self._run()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._recorded = self._run()
            self._graph = graph

    def __call__(self) -> Tensor:
        """The loss, a scalar that the next call may overwrite."""
        if self._graph is None:
            return self._run()
        self._graph.replay()
        return self._recorded

    def clip(self, norm: float) -> None:
        """Scales the gradient down to a length of at most `norm`, without waiting for the device."""
        self.gradient.mul_((norm / (self.gradient.norm() + 1e-6)).clamp(max=1.0))

    def _run(self) -> Tensor:
        self.gradient.zero_()
        loss = self._loss()
        loss.backward()
        return loss.detach()
