"""Records, statistics, errors, seeds and digests: what every other room stands on."""
