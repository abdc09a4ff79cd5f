"""Dictionaries as other projects keep them: read, proved against what those projects compute, and written."""
