# Stands in for the public postgres image where no registry can be reached: Debian's server behind the same variables.
ARG BASE
FROM ${BASE}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql && \
    rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* && usermod -u 999 postgres && groupmod -g 999 postgres && \
    ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ 2>/dev/null; \
    install -d -o 999 -g 999 /var/lib/postgresql/data /var/run/postgresql
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]
CMD ["postgres"]
