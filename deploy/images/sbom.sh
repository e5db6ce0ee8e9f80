#!/bin/sh
# Writes /opt/srp4ctr/sbom.cdx.json: the environment's packages, with licences.
set -eu
uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment \
  --pyproject pyproject.toml --output-reproducible \
  -o "$VIRTUAL_ENV/sbom.cdx.json" "$VIRTUAL_ENV/bin/python"
