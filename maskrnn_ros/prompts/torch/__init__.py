# SPDX-License-Identifier: Apache-2.0
"""The prompt network, as a module of torch. Needs torch."""
