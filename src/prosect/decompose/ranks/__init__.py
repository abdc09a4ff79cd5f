"""One dictionary trained by several processes, with the result that one process would have."""
