"""What an encoder is."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from torch import Tensor, nn

from ssl_audio.errors import LayoutError
from ssl_audio.model.branch import Branch, Context
from ssl_audio.tokens import Tokens

Merge = Callable[..., Tokens]
"""From tokens and the keys of `Mixed` to fewer tokens."""


class Encoder(nn.Module, ABC):
    """Mixes the tokens of each clip and of no two clips.

    Contract, tested over all subclasses: a clip's states are the same alone, with padding, and packed between
    other clips; no gradient passes between clips.

    Attributes:
        width: Channels of every token, in and out.
        blocks: The blocks in their order, each from tokens and context to tokens; those nearer the input learn slower
            under layer decay, and `layers` has one entry for each. A block's `merge`, where there is one, replaces its
            tokens by fewer.
        ordered: Whether the blocks mix tokens in their order, so that merging keeps it.
        merge_every: The last of so many blocks merges tokens, unless a recipe says otherwise.
        merges_behind: Merging is the last thing that a block does, so that the last one has no need of it.
        proportional: Attention counts a merged token as often as it has patches, where there is attention.
        free: Options of the constructor that may differ from those that the weights were trained with.
        before_block: What changes the tokens before each block, from the block's number and the tokens to tokens:
            deep prompts. Called once more behind the last block, with the number of blocks.
    """

    width: int
    blocks: nn.ModuleList
    free: ClassVar[frozenset[str]] = frozenset()
    ordered: ClassVar[bool] = False
    merge_every: ClassVar[int] = 1
    merges_behind: ClassVar[bool] = False
    proportional: bool = True

    def __init__(self) -> None:
        super().__init__()
        self.before_block: list[Callable[[int, Tokens], Tokens]] = []

    @abstractmethod
    def context(self, tokens: Tokens, past: Any = None) -> Context:
        """What the blocks need to know of where the tokens lie; made again when the tokens change.

        Args:
            tokens: What the blocks get.
            past: Of a stream, what the tokens before left behind.
        """

    @abstractmethod
    def normalise(self, tokens: Tokens) -> Tokens:
        """The tokens behind the last block in their final states."""

    @abstractmethod
    def branches(self) -> dict[str, list[Branch]]:
        """The slots for adapters: branches by name, each a list with one branch a block."""

    def check_merging(self) -> None:
        """Find out whether blocks may merge tokens.

        Raises:
            RecipeError: if they may not.
        """

    def forward(self, tokens: Tokens) -> Tokens:
        """The same tokens in mixed states, normalised; fewer if blocks merge them."""
        for tokens in self.stream(tokens):  # noqa: B007, B020
            pass
        return self.normalise(self._changed(len(self.blocks), tokens))

    def layers(self, tokens: Tokens) -> list[Tokens]:
        """The tokens in the states that each block leaves behind, before the final norm: one entry a block."""
        return [self._changed(len(self.blocks), layer) for layer in self.stream(tokens)]

    def stream(self, tokens: Tokens) -> Iterator[Tokens]:
        """One walk through the blocks: the tokens behind each."""
        made: list[tuple[Tensor, Context]] = []

        def context_of(tokens: Tokens) -> Context:
            # Made once for tokens that lie where others did, by whoever asks first: a block that merges, or the next.
            if not made or made[0][0] is not tokens.clip:
                made[:] = [(tokens.clip, dataclasses.replace(self.context(tokens), renew=context_of))]
            return made[0][1]

        for number, block in enumerate(self.blocks):
            tokens = self._changed(number, tokens)
            tokens = block(tokens, context_of(tokens))
            yield tokens

    @property
    def looks_back(self) -> bool:
        """Whether a token sees those before it alone, so that nothing reaches what stands in front of a clip."""
        return False

    @property
    def stream_columns(self) -> int | None:
        """Patch columns that a stream must bring together, in whole multiples but for its end; None if its tokens
        depend on what is still to come.
        """
        return None

    def begin(self) -> list[Any]:
        """What a stream carries through each block, before its first token: `Context.past`.

        Raises:
            LayoutError: if the encoder cannot be given a stream.
        """
        raise LayoutError(f"{type(self).__name__}: carries nothing from tokens to those after them")

    def proceed(self, tokens: Tokens, past: list[Any]) -> Iterator[Tokens]:
        """`stream` of the next tokens of a stream: the tokens behind each block.

        Args:
            tokens: Of whole chunks of `stream_columns`, in the order of time; each row is the same clip as before.
            past: As `begin` gave it; what it holds is replaced.
        """
        for block, carried in zip(self.blocks, past, strict=True):
            tokens = block(tokens, self.context(tokens, carried))
            yield tokens

    def _changed(self, number: int, tokens: Tokens) -> Tokens:
        for change in self.before_block:
            tokens = change(number, tokens)
        return tokens
