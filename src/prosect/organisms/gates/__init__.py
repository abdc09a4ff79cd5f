"""Networks of boolean gates, small enough that every subcircuit can be tried."""
