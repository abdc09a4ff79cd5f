"""What a dictionary's limits are, measured on the user's own model and text."""
