"""Networks trained to be interpretable, each beside its dense twin: what it cost, and whether superposition got in."""
