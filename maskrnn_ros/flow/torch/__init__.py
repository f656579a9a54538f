# SPDX-License-Identifier: Apache-2.0
"""Flow networks. Needs torch."""
