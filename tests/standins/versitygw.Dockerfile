# Stands in for the public versitygw image where no registry can be reached; the program is the one of `make s3-server`.
ARG BASE
FROM ${BASE}
COPY versitygw /usr/local/bin/versitygw
ENTRYPOINT ["/usr/local/bin/versitygw"]
