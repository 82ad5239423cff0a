"""Adapters: small parts on a frozen backbone. One file each; import a new one here so that recipes know its name."""

from ssl_audio.model.adapters.adapter import Adapter
from ssl_audio.model.adapters.bottleneck import Bottleneck
from ssl_audio.model.adapters.conformer import Conformer
from ssl_audio.model.adapters.conv_pass import ConvPass
from ssl_audio.model.adapters.low_rank import LowRank
from ssl_audio.model.adapters.mixture import DenseMixture, SoftMixture
from ssl_audio.model.adapters.prefix import Prefix
from ssl_audio.model.adapters.prompts import Prompts
from ssl_audio.model.adapters.state_offset import StateOffset

__all__ = [
    "Adapter",
    "Bottleneck",
    "Conformer",
    "ConvPass",
    "DenseMixture",
    "LowRank",
    "Prefix",
    "Prompts",
    "SoftMixture",
    "StateOffset",
]
