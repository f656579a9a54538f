# SPDX-License-Identifier: Apache-2.0
"""Training of the network: clips with all that it is given, synthesis of more of them, the two stages."""
