# SPDX-License-Identifier: Apache-2.0
"""The node ``tracker``: camera images and seeds in, instance masks out."""
