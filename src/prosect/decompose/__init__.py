"""Ways to write activations as parts: neurons, heads, linear methods, sparse dictionaries, random directions."""
