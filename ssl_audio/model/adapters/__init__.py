"""Adapters: small parts on a frozen backbone. One file each; import a new one here so that recipes know its name."""

from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.bottleneck import Bottleneck
from ssl_audio.model.adapters.low_rank import LowRank

__all__ = ["Adapter", "Bottleneck", "LowRank"]
