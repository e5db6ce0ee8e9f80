# One target per role: a stream worker has no torch, and Triton no Faust:
# docker build --target stream .
ARG VERSION=0.2.0

# An S3 server (Apache-2.0) whose volume belongs to a user of its own.
FROM ghcr.io/versity/versitygw:v1.8.0 AS objects
ARG VERSION
LABEL org.opencontainers.image.title="srp4ctr-objects" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/ of release ${VERSION}"
RUN mkdir /objects && chown 10002:10002 /objects
USER 10002:10002

FROM python:3.12.11-slim-bookworm AS python
ARG VERSION
LABEL org.opencontainers.image.title="srp4ctr" \
      org.opencontainers.image.description="Streaming feature-and-model platform for click-through-rate prediction" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/ of release ${VERSION}"
RUN useradd --uid 10001 --create-home srp4ctr \
 && mkdir -p /data /models /served /scratch && chown srp4ctr:srp4ctr /data /models /served /scratch
ENV PATH=/opt/srp4ctr/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app

# Packages are installed here, into an environment that the roles copy.
FROM python AS build
RUN pip install --no-cache-dir uv==0.13.9 && uv venv --python python3 /opt/srp4ctr
# Without write access, torch's modules would be compiled at each start: 10 s.
ENV VIRTUAL_ENV=/opt/srp4ctr UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1
COPY requirements.lock pyproject.toml deploy/images/sbom.lock ./
COPY deploy/images/slim.sh deploy/images/sbom.sh /usr/local/bin/

FROM build AS wheel
COPY . .
RUN uv build --wheel --out-dir /wheels

# Only the real stack needs Postgres' driver: the embedded registry is a file.
FROM build AS stream-packages
RUN uv pip install --constraint requirements.lock --requirement pyproject.toml \
      --extra streams --extra features --extra postgres --extra monitoring --extra tracing \
 && slim.sh && sbom.sh

FROM python AS stream
COPY --from=stream-packages /opt/srp4ctr /opt/srp4ctr
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/srp4ctr/bin/python install --no-cache-dir --no-index --no-deps /wheels/*.whl
USER srp4ctr
ENTRYPOINT ["srp4ctr"]

# The HTTP intake runs here, too.
FROM build AS monitor-packages
RUN uv pip install --constraint requirements.lock --requirement pyproject.toml \
      --extra monitoring --extra serving --extra intake --extra bucket \
 && slim.sh && sbom.sh

FROM python AS monitor
COPY --from=monitor-packages /opt/srp4ctr /opt/srp4ctr
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/srp4ctr/bin/python install --no-cache-dir --no-index --no-deps /wheels/*.whl
RUN mkdir /cards /snapshots && chown srp4ctr:srp4ctr /cards /snapshots
USER srp4ctr
ENTRYPOINT ["srp4ctr"]

# Not copied into a new stage: torch with CUDA would be on the disk twice. Operators'
# commands run here too.
FROM build AS trainer
# Empty: torch as PyPI has it, with CUDA. cpu: the small build.
ARG TORCH_BACKEND=
# Another index's torch has other hashes than the lock's: see the Makefile.
RUN test -z "${TORCH_BACKEND}" || sed -i -E \
      '/^(torch|triton|nvidia-[a-z0-9-]+)==/,/[^\\]$/{ s/ \\$//; /--hash=/d }' requirements.lock
RUN uv pip install ${TORCH_BACKEND:+--torch-backend $TORCH_BACKEND} \
      --constraint requirements.lock --requirement pyproject.toml \
      --extra streams --extra features --extra postgres --extra training --extra serving \
      --extra bucket \
 && slim.sh && sbom.sh
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl
USER srp4ctr
ENTRYPOINT ["srp4ctr"]

# Triton's Python steps and their supervisor, which share no package. The steps' packages are
# pinned as the embedded server's, with numpy < 2: tritonserver 2.51 aborts on numpy 2, and
# newer servers were not tried. The steps' own code comes with each bundle at promotion.
FROM nvcr.io/nvidia/tritonserver:25.08-py3 AS triton
ARG VERSION
LABEL org.opencontainers.image.title="srp4ctr-triton" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.documentation="docs/ of release ${VERSION}"
COPY --from=build /usr/local/bin/uv /usr/local/bin/uv
COPY srp4ctr/embedded/triton-requirements.lock requirements.lock pyproject.toml /tmp/srp4ctr/
# No dependencies are resolved: the lock has them all, and Feast requires numpy 2.
RUN uv pip install --no-cache --compile-bytecode --no-deps --target /opt/steps --python python3 \
      --require-hashes --requirement /tmp/srp4ctr/triton-requirements.lock
# Not PYTHONPATH: the stub's Python ignores it (seen with tritonserver 2.51).
RUN python3 -c "import pathlib, site; \
  pathlib.Path(site.getsitepackages()[0], 'steps.pth').write_text( \
  \"import sys; sys.path.insert(0, '/opt/steps')\\n\")"
RUN uv venv --python python3 /opt/supervisor \
 && uv pip install --no-cache --compile-bytecode --python /opt/supervisor/bin/python \
      --constraint /tmp/srp4ctr/requirements.lock \
      --requirement /tmp/srp4ctr/pyproject.toml --extra serving
COPY --from=wheel /wheels /tmp/srp4ctr/
RUN uv pip install --no-cache --no-deps --python /opt/supervisor/bin/python \
      /tmp/srp4ctr/*.whl
# The user of the other roles: all share the models.
RUN useradd --uid 10001 --create-home srp4ctr \
 && mkdir -p /models /served && chown srp4ctr:srp4ctr /models /served
USER srp4ctr
