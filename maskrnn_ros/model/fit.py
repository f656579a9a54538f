# SPDX-License-Identifier: Apache-2.0
"""Whether settings fit the networks that they name: a decoder trains nothing, and weighs its parts itself.

Settings of versions before, whose default was ``adaptation.method: finetune``, come without a word of method or
network: what they say of training is done, or refused or warned of, and never passed over.
"""

from __future__ import annotations

import logging

from maskrnn_ros.config import Config, to_flat

_LOG = logging.getLogger(__name__)

_TRAINING = ("adaptation.steps", "adaptation.rate", "adaptation.decay", "adaptation.batch", "adaptation.views")
"""Settings that only the training of heads knows."""

_NOT_OF_A_DECODER = (*_TRAINING, "matching.", "network.matching", "prior.weight", "prior.floor", "adaptation.weight")
"""Beginnings of the settings that a decoder does not know."""


def check_fit(config: Config, *, has_decoder: bool, is_trained_trunk: bool) -> None:
    """Refuse what cannot learn an instance as it is asked for; warn of what is asked for and has no effect.

    Args:
        config: All settings.
        has_decoder: The network in use is a decoder.
        is_trained_trunk: The trunk knows how heads begin, as that of ImageNet does not.

    Raises:
        RuntimeError: The message names what to set.
    """
    method, weights = config.adaptation.method, config.network.weights
    if has_decoder and method == "finetune":
        raise RuntimeError(
            f"adaptation.method finetune trains a head, of which a decoder (network.weights {weights}) has none: set "
            "network.weights: streams, or adaptation.method: recursive"
        )
    if has_decoder and not is_trained_trunk:
        raise RuntimeError(
            f"network.weights {weights} is a decoder, which needs a trained trunk, got trunk.weights imagenet: set "
            "trunk.weights: shipped, or network.weights: streams and adaptation.method: finetune"
        )
    if method == "recursive" and not is_trained_trunk:
        raise RuntimeError(
            "adaptation.method recursive needs a trained trunk, got trunk.weights imagenet: set "
            "trunk.weights: shipped, or adaptation.method: finetune"
        )
    if has_decoder:
        if idle := _changed(config, _NOT_OF_A_DECODER):
            _LOG.warning(
                "%s: no effect on a decoder (network.weights %s); network.weights: streams with "
                "adaptation.method: finetune knows them",
                idle,
                weights,
            )
    elif method == "recursive":
        idle = _changed(config, _TRAINING)
        _LOG.warning(
            "%sadaptation.method recursive: without a decoder heads are fitted to the seeds and not trained; "
            "adaptation.method: finetune, the default of versions before, trains them",
            f"{idle}: no effect, " if idle else "",
        )


def _changed(config: Config, beginnings: tuple[str, ...]) -> str:
    """Those settings that are not as they come, in a line."""
    usual = to_flat(Config())
    changed = [name for name, value in to_flat(config).items() if value != usual[name]]
    return ", ".join(name for name in changed if name.startswith(beginnings))
