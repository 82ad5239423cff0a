"""torch's counter of operations, which knows our scan.

Apart from the scan, because torch's counter imports triton, which takes a third of a second and few verbs need.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

from ssl_audio.scan import selective_scan  # noqa: F401 -- registers the operators

__all__ = ["FlopCounterMode"]


@register_flop_formula(torch.ops.ssl_audio.selective_scan)
def _(u_shape, dt_shape, A_shape, *args, out_shape=None, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """Operations of a scan. Source: state-spaces/mamba issue 110 (9 a state)."""
    rows, tokens, channels = u_shape
    return 9 * rows * tokens * channels * A_shape[1]


@register_flop_formula(torch.ops.ssl_audio.selective_scan_backward)
def _(u_shape, dt_shape, A_shape, *args, out_shape=None, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """Twice as many going back; working the states out again is not counted, as in all model FLOPs."""
    rows, tokens, channels = u_shape
    return 18 * rows * tokens * channels * A_shape[1]
