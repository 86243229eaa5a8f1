"""The reference's own tensors, reproduced from the published checkpoint layout."""

import torch
from safetensors.torch import load_file

from pipo.model import load_model


def test_golden_tensors_and_losses_to_1e4(shared_folder):
    golden = shared_folder / "golden" / "published_linear"
    expected = load_file(golden / "expected.safetensors")
    model = load_model(golden)
    with torch.no_grad():
        out = model(expected["ids"], expected["labels"])
        got = {
            "z": model.compress(expected["ids"]),
            "h": out.hidden,
            "logits": out.logits,
            "mtp_hidden": out.mtp_hidden,
            "mtp_logits": out.mtp_logits,
            "conf_logit": out.confidence_logits,
            "losses": torch.stack([out.loss, out.backbone_loss, out.mtp_loss, out.confidence_loss]),
        }
    assert set(got) == set(expected) - {"ids", "labels"}
    for name, tensor in got.items():
        gap = (tensor - expected[name]).abs().max().item()
        assert tensor.shape == expected[name].shape and gap < 1e-4, f"{name}: largest gap {gap:.2e}"
