#!/bin/sh
# Writes /opt/srp4ctr/sbom.cdx.json: the environment's packages, with licences.
set -eu
uv venv --quiet --python python3 /tmp/sbom
uv pip install --quiet --python /tmp/sbom/bin/python --require-hashes -r sbom.lock
/tmp/sbom/bin/cyclonedx-py environment \
  --pyproject pyproject.toml --output-reproducible \
  -o "$VIRTUAL_ENV/sbom.cdx.json" "$VIRTUAL_ENV/bin/python"
rm -r /tmp/sbom
