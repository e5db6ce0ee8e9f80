# One target per role, so that a stream worker carries no torch and Triton no Faust:
# docker build --target stream .
FROM python:3.12.11-slim-bookworm AS python
RUN pip install --no-cache-dir uv==0.13.9 \
 && useradd --uid 10001 --create-home srp4ctr \
 && mkdir -p /data /models /served /scratch && chown srp4ctr:srp4ctr /data /models /served /scratch
# A user who may not write there would have torch compiled at each start: 10 s.
ENV UV_SYSTEM_PYTHON=1 UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
COPY requirements.lock pyproject.toml ./

FROM python AS wheel
COPY . .
RUN uv build --wheel --out-dir /wheels

# Postgres' driver is the real stack's alone: the embedded registry is a file.
FROM python AS stream
RUN uv pip install --constraint requirements.lock --requirement pyproject.toml \
      --extra streams --extra features --extra postgres --extra monitoring --extra states
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl
USER srp4ctr
ENTRYPOINT ["srp4ctr"]

FROM python AS trainer
# Empty: torch as PyPI has it, with CUDA. cpu: the small build.
ARG TORCH_BACKEND=
# Another index's torch has other hashes than the lock's: see the Makefile.
RUN test -z "${TORCH_BACKEND}" || sed -i -E \
      '/^(torch|triton|nvidia-[a-z0-9-]+)==/,/[^\\]$/{ s/ \\$//; /--hash=/d }' requirements.lock
RUN uv pip install ${TORCH_BACKEND:+--torch-backend $TORCH_BACKEND} \
      --constraint requirements.lock --requirement pyproject.toml \
      --extra streams --extra features --extra postgres --extra training --extra serving
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl
USER srp4ctr
ENTRYPOINT ["srp4ctr"]

FROM python AS monitor
RUN uv pip install --constraint requirements.lock --requirement pyproject.toml \
      --extra monitoring --extra serving
COPY --from=wheel /wheels /wheels
RUN uv pip install --no-deps /wheels/*.whl
USER srp4ctr
ENTRYPOINT ["srp4ctr"]

# What the Python steps import; their own code comes with each bundle at promotion.
FROM nvcr.io/nvidia/tritonserver:25.08-py3 AS triton
COPY --from=python /usr/local/bin/uv /usr/local/bin/uv
COPY requirements.lock /tmp/requirements.lock
RUN uv pip install --no-cache --compile-bytecode --target /opt/steps --python python3 \
      --constraint /tmp/requirements.lock \
      "feast[redis]" onnxruntime msgspec xxhash pyarrow "psycopg[binary]"
# The user of the other roles: all share the models, and `watch` looks after its processes.
RUN useradd --uid 10001 --create-home srp4ctr \
 && mkdir -p /models /served && chown srp4ctr:srp4ctr /models /served
# Not PYTHONPATH: the stub's Python does not heed it (seen with tritonserver 2.51).
RUN python3 -c "import pathlib, site; \
  pathlib.Path(site.getsitepackages()[0], 'steps.pth').write_text( \
  \"import sys; sys.path.insert(0, '/opt/steps')\\n\")"
USER srp4ctr
