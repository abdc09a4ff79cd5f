"""Ways of examining a model: one kind of component each."""
