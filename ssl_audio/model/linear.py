"""The linear layer of every projection: what adapters add to it stands beside its weight, not in its place."""

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ssl_audio.errors import RecipeError

Delta = Callable[[Tensor], Tensor]
"""From what the layer gets, (..., in_features), to what is added to its output, (..., out_features)."""


class Linear(nn.Linear):
    """``weight @ x + bias`` and the sum of the deltas that adapters put here.

    The names of its parameters are those of `torch.nn.Linear`, whatever is added. The deltas are plain references: the
    modules belong to the adapters.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        bias: Whether it has one.
        parts: Names of groups of output channels in their order, and how many channels each has: a fused projection
            can be adapted in a part of it.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True, parts: Mapping[str, int] | None = None) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.parts = dict(parts or {})
        self.deltas: list[Delta] = []

    def forward(self, input: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        return self.with_deltas(input, F.linear(input, self.weight, self.bias))

    def without_bias(self, input: Float[Tensor, "*batch inputs"]) -> Float[Tensor, "*batch outputs"]:
        """The same without the bias, where the caller adds it later."""
        return self.with_deltas(input, F.linear(input, self.weight))

    def with_deltas(
        self, input: Float[Tensor, "*batch inputs"], output: Float[Tensor, "*batch outputs"]
    ) -> Float[Tensor, "*batch outputs"]:
        """An output with what the deltas make of the input."""
        for delta in self.deltas:
            output = output + delta(input)
        return output

    def rows(self, part: str) -> slice:
        """Which output channels a named part is.

        Raises:
            RecipeError: if there is no such part; the message lists those there are.
        """
        if part not in self.parts:
            known = ", ".join(self.parts) or "none"
            raise RecipeError(f"a projection has no part {part!r}; its parts: {known}")
        start = 0
        for name, count in self.parts.items():
            if name == part:
                break
            start += count
        return slice(start, start + self.parts[part])
