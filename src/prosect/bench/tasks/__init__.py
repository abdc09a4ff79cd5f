"""What methods are asked: one file for each task."""
