"""Ways to open what a spec names: language models on text or pairs, and organisms with their truth."""
