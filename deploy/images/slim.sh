#!/bin/sh
# Removes unused files from the image's environment: a third of a stream worker's.
set -eu
packages=$(python -c 'import site; print(site.getsitepackages()[0])')
cd "$packages"
# SQLAlchemy's extra brings mypy along, which Feast requires and never imports.
uv pip uninstall --quiet mypy ast-serialize librt 2>/dev/null || true
rm -rf feast/ui feast/templates pandas/tests pyarrow/tests pyarrow/include dask/tests \
  torch/include torch/test torch/share
find . -type d -name tests -path './numpy/*' -prune -exec rm -rf {} +
find . -type d -name tests -path './ibis/*' -prune -exec rm -rf {} +
