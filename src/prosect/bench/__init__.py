"""The bench: every method judged on networks whose mechanism is known."""
