# Stands in for the public redis image where no registry can be reached.
ARG BASE
FROM ${BASE}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends redis-server && \
    rm -rf /var/lib/apt/lists/* && usermod -u 999 redis && install -d -o 999 -g 999 /data
WORKDIR /data
VOLUME /data
USER 999:999
CMD ["redis-server"]
