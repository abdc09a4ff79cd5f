"""How good a decomposition is: against known features, inside its model, across seeds, and in its geometry."""
