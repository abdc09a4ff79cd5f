"""Tests of claims on unseen data, against controls and baselines; the only room that appends evidence."""
