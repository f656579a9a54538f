# SPDX-License-Identifier: Apache-2.0
"""What all tests need."""

import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so does all that is started from it: tests that send it would hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)
