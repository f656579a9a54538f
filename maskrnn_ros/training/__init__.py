# SPDX-License-Identifier: Apache-2.0
"""Training of the networks: what they are trained on, the loop over the steps, one module for each that is trained."""
