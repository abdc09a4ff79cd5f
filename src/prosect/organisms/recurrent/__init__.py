"""Networks with a state that they carry from step to step."""
