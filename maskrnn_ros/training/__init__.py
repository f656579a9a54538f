# SPDX-License-Identifier: Apache-2.0
"""Offline training: data, losses, single frames (stage 1), recurrence through time (stage 2)."""
