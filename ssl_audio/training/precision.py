"""The default precision of a device."""

import torch


def default_precision(accelerator: str = "auto") -> str:
    """bf16 where the device computes in it (a GPU since Ampere, a CPU with AMX or AVX-512 bf16), else fp32.

    Args:
        accelerator: As Lightning names it.

    Returns:
        `bf16-mixed` or `32-true`, as Lightning names them.
    """
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if on_gpu:
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return "bf16-mixed" if fast else "32-true"
