# SPDX-License-Identifier: Apache-2.0
"""The networks of MaskRNN to the letter, their training, and the ``paper`` profile. Needs torch."""
