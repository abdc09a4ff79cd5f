"""Sparse products on a GPU, by kernels of their own."""
