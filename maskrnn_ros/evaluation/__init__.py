# SPDX-License-Identifier: Apache-2.0
"""How good the masks are: measures, the data sets to measure on, and reports."""
