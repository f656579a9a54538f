# SPDX-License-Identifier: Apache-2.0
"""The real node evaluated on a bag that is played to it in real time."""
