"""The zoo: builders of (model, truth). Nothing here knows the methods that will be tried on it."""
