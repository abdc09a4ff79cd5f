"""The classical ways to write activations as parts, under one roof.

Each is a baseline for every learned dictionary, and what a sceptic asks for first.
"""

from __future__ import annotations

from prosect.decompose.factors import Ica, KMeans, Nmf
from prosect.decompose.moments import Pca, Svd
from prosect.decompose.random import RandomDirections
from prosect.decompose.units import Heads, Neurons

__all__ = ["Heads", "Ica", "KMeans", "Neurons", "Nmf", "Pca", "RandomDirections", "Svd"]
