"""Inputs made to activate a unit: by gradient over numbers, by guided search over tokens."""
