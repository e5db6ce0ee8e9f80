#!/bin/sh
# Writes what the image's environment holds, with licences: /opt/srp4ctr/sbom.cdx.json.
set -eu
uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py environment \
  --pyproject pyproject.toml --output-reproducible \
  -o "$VIRTUAL_ENV/sbom.cdx.json" "$VIRTUAL_ENV/bin/python"
