"""Writes peft_lora.pt: what `peft` itself makes of two linear layers with LoRA, rank-stabilised LoRA and DoRA.

In an environment of its own, for the project does without peft: pip install torch peft, python peft_lora.py
"""

from pathlib import Path

import peft
import torch
from torch import nn

VARIANTS = {"plain": {}, "root": {"use_rslora": True}, "dora": {"use_dora": True}}


def numbers(**options: bool) -> dict:
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))
    weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["0", "2"], lora_dropout=0.0, **options)
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
        if "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.randn_like(parameter)
    x = torch.randn(4, 6)
    y = model(x)
    y.square().sum().backward()
    layers = {}
    for name in ("0", "2"):
        layer = model.base_model.model.get_submodule(name)
        tuned = {"down": layer.lora_A["default"].weight, "up": layer.lora_B["default"].weight}
        if options.get("use_dora"):
            tuned["length"] = layer.lora_magnitude_vector["default"].weight
        layers[name] = {
            "weight": weights[f"{name}.weight"],
            "bias": weights[f"{name}.bias"],
            "scale": float(layer.scaling["default"]),
            **{part: tensor.detach().clone() for part, tensor in tuned.items()},
            **{f"{part}_gradient": tensor.grad.clone() for part, tensor in tuned.items()},
        }
    merged = model.merge_and_unload()
    for name in ("0", "2"):
        layers[name]["merged"] = merged.get_submodule(name).weight.detach().clone()
    return {"x": x, "y": y.detach(), "layers": layers}


if __name__ == "__main__":
    found = {name: numbers(**options) for name, options in VARIANTS.items()}
    torch.save(found | {"versions": {"peft": peft.__version__, "torch": str(torch.__version__)}},
               Path(__file__).with_suffix(".pt"))  # fmt: skip
