# SPDX-License-Identifier: Apache-2.0
"""Which of many descriptors are most similar to some."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

Nearest: TypeAlias = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
"""Compares descriptors, int8 (C, n), with others, int8 (C, m): for each of the n the largest K products, float32
(n, K), in any order, and which of the m they are with, int64 (n, K); K is the given number or m, the smaller one."""


def nearest(queries: Tensor, keys: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``Nearest`` in torch."""
    best, where = (queries.float().T @ keys.float()).topk(min(count, keys.shape[1]), dim=1)
    return best, where
