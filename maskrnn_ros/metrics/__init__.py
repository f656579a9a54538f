# SPDX-License-Identifier: Apache-2.0
"""Measures of masks: arrays in, numbers out."""
