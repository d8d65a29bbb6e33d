"""TODO."""

REQUESTED_EXIT_CODES: list[int] = []  # the exit code, once a signal asked for the end
