"""Linear networks: every effect, and what cannot be told apart, in closed form."""
