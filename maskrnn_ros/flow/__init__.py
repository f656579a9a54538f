# SPDX-License-Identifier: Apache-2.0
"""Optical flow: one Protocol, its backends, and the warp that follows a flow."""

from maskrnn_ros.flow.backends import BACKENDS, build_flow
from maskrnn_ros.flow.dis import DisFlow
from maskrnn_ros.flow.epicflow import EpicFlow
from maskrnn_ros.flow.estimator import FlowEstimator
from maskrnn_ros.flow.flownet import FlowNetFlow
from maskrnn_ros.flow.raft import RaftFlow
from maskrnn_ros.flow.warp import warp

__all__ = ["BACKENDS", "DisFlow", "EpicFlow", "FlowEstimator", "FlowNetFlow", "RaftFlow", "build_flow", "warp"]
