# SPDX-License-Identifier: Apache-2.0
"""Subcommands of ``maskrnn`` that have no folder of their own."""
