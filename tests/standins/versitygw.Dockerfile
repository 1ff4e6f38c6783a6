# Stands in for the public versitygw image where no registry can be reached; the program is the one of `make s3-server`.
ARG BASE
FROM ${BASE}
# wget is in the public image too; health checks of Compose use it.
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends wget && \
    rm -rf /var/lib/apt/lists/*
COPY versitygw /usr/local/bin/versitygw
ENTRYPOINT ["/usr/local/bin/versitygw"]
