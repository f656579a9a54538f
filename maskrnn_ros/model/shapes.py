# SPDX-License-Identifier: Apache-2.0
"""Sizes and rates that networks, graphs, training and tracker share. No torch here."""

STRIDES = (4, 8, 16)
"""Pixels of the working image per cell, of each of the trunk's feature maps."""

CHANNELS = (24, 40, 112)
"""Channels of each of them."""

STRIDE = STRIDES[0]
"""Pixels per cell of the columns, of target channels and of warped masks."""

COLUMNS = 48
"""Features of a cell of stride 4 that the target model of an object is linear in, beside the constant 1."""

FINE = 128
"""Cells of an object's crop in each direction at which its mask is given and carried."""

CROP = FINE // 2
"""Cells of a crop at which target channels and masks enter."""

CONTEXT = 1.8
"""Width and height of a crop over those of the box of the warped mask."""

SMALLEST = 48.0
"""Shortest side of a crop, pixels of the working image."""

TARGET = 8
"""Channels of a target model; the first is the object's score."""

HIDDEN = 16
"""Channels of the hidden state."""

CODES = 32
"""Length of the descriptor of a cell of stride 8."""

KEYS = (CROP // 2) ** 2 // 2
"""Cells of a crop that others are compared with: every second one, as on a chessboard."""

MATCHED = 3
"""Planes that a matching gives, see ``step.Matcher.match``."""

LOG_ODDS = 8.0
"""Log-odds beyond this are cut: no answer may be surer than 0.9997."""

SEED_SHARE = 0.3
"""Weight that the seed keeps beside the recent frames."""

RATE = 0.1
"""Weight of a new frame among the recent ones."""

TRUSTED = 0.8, 0.6, 1.6
"""Mean probability in the mask, least and most of the usual area, with which a frame enters the memory."""
