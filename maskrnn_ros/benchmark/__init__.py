# SPDX-License-Identifier: Apache-2.0
"""How fast the tracker is on this machine, and how much memory it takes; needs no data but what it draws itself."""
