# SPDX-License-Identifier: Apache-2.0
"""Bags over real topics, in lockstep if wanted: ``maskrnn bag play``."""
