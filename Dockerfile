# One image with three entry points: moleport-server (the default), moleport-operator and moleport.
# `make image` builds it. Everything in it is pinned: the libraries by image/*.lock (`make lock`), the
# base by whoever builds, with BASE_IMAGE=…@sha256:…

# The base of the result: any Linux with glibc and Python 3.11 or newer as python3.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim
# The same Python at the same path, with its headers and a C compiler. Without a compiler the data path
# stays interpreted, which costs about a third more CPU time per request.
ARG BUILD_IMAGE=docker.io/library/python:3.13

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# Both secrets are optional: the settings of pip and a certificate authority of a machine that
# reaches its package index in its own way. The result keeps neither.
COPY image/build.lock image/runtime.lock image/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/etc/pip-ca.pem \
    python3 -m venv /tools && \
    /tools/bin/pip install --quiet --no-cache-dir --no-deps --require-hashes -r image/build.lock && \
    python3 -m venv --without-pip /opt/moleport && \
    /tools/bin/pip --python /opt/moleport/bin/python install --quiet --no-cache-dir --no-compile --no-deps \
      --only-binary :all: --require-hashes -r image/runtime.lock
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY wire wire
COPY server server
COPY agent agent
COPY operator operator
# Byte code is made here, since no container may write it, and checked against its source by nobody, so that
# the layer does not depend on the time of the build. Sources stay for tracebacks.
RUN if command -v cc >/dev/null; then export MOLEPORT_COMPILE=1; else echo "no C compiler: the data path stays interpreted"; fi && \
    PATH=/tools/bin:$PATH /tools/bin/pip wheel --quiet --no-cache-dir --no-deps --no-build-isolation --wheel-dir /dist . && \
    /tools/bin/pip --python /opt/moleport/bin/python install --quiet --no-compile --no-deps --no-index /dist/*.whl && \
    find /opt/moleport -name tests -path '*/site-packages/*' -prune -exec rm -rf {} + && \
    find /opt/moleport -name '*.so' -exec sh -c 'strip --strip-unneeded "$@" 2>/dev/null || true' sh {} + && \
    /opt/moleport/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/moleport/lib

FROM ${BASE_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="moleport" \
      org.opencontainers.image.description="Reverse tunnels for Kubernetes: tunnel server, operator and agent" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/moleport/moleport" \
      org.opencontainers.image.documentation="https://github.com/moleport/moleport/tree/main/docs"
COPY --from=build /opt/moleport /opt/moleport
ENV PATH=/opt/moleport/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Nobody in particular: a number, so that Kubernetes can see that it is not root. HOME is where a
# volume may be; nothing needs it.
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["moleport-server"]
CMD ["run"]
