"""Where heads look, what they move, and what depends on it."""
