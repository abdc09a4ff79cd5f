"""What components do, in words that can be run: rules, head roles, effects, formulas, and examples."""
