# SPDX-License-Identifier: Apache-2.0
"""Optical flow: one Protocol, its backends, and the warp that follows a flow."""

from maskrnn_ros.flow.backends import BACKENDS, build_flow
from maskrnn_ros.flow.estimator import FlowEstimator
from maskrnn_ros.flow.warp import warp

__all__ = ["BACKENDS", "FlowEstimator", "build_flow", "warp"]
