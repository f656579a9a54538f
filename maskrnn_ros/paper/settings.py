# SPDX-License-Identifier: Apache-2.0
"""What the ``paper`` profile asks of the settings. Needs no torch."""

from __future__ import annotations

from maskrnn_ros.config import Config


def check_paper(config: Config) -> None:
    """Refuse what was meant for the ``fast`` profile.

    Raises:
        ValueError: No weights are named, or method or learning rate are none for VGG-16.
    """
    hint = "begin with config/paper.yaml"
    if config.network.ships:
        raise ValueError(f"profile 'paper' ships no weights: network.weights must be a .safetensors file; {hint}")
    if config.adaptation.method == "recursive":
        raise ValueError(f"profile 'paper' needs adaptation.method finetune or none, got recursive; {hint}")
    if config.adaptation.method != "none" and config.adaptation.rate > 1e-3:
        raise ValueError(
            f"profile 'paper' needs adaptation.rate <= 0.001, the paper's is 1.0e-5, got {config.adaptation.rate:g}; "
            f"{hint}"
        )
