# SPDX-License-Identifier: Apache-2.0
"""Networks and what works on their features: trunk, matching, refinement, weights."""
