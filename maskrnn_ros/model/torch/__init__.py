# SPDX-License-Identifier: Apache-2.0
"""The networks themselves, as modules of torch, and what makes graphs of them. Needs torch."""
