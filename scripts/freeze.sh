#!/bin/sh
# Prints what a virtual environment holds as exact pins: no local build labels, none of torch's CUDA packages
# (which version of torch fits a machine is the machine's business), not prosect itself.
"$1/bin/python" -m pip --disable-pip-version-check freeze --all --exclude prosect --exclude pip \
  | sed -E 's/\+[A-Za-z0-9.]+$//' \
  | grep -viE '^(nvidia-|cuda-|triton|pytorch-triton)|@ file' \
  | LC_ALL=C sort -f
