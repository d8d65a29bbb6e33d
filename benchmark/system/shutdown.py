"""Shutdown request of this process, shared by the signal handler and the scheduler."""

REQUESTED_EXIT_CODES: list[int] = []  # exit codes of the signals that requested a shutdown; empty: none
