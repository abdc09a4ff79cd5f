"""Small convolutional networks whose first layer is a known bank of detectors."""
