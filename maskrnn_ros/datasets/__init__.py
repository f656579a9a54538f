# SPDX-License-Identifier: Apache-2.0
"""Data sets on disk: frames, label images, ignore masks, and sequences with ground truth."""
