# One image for all services: the command line chooses which one runs.
#
#   docker build --tag tracer:local .

# The manifests alone, see docker/skeleton.sh.
FROM rust:1.95.0-bookworm AS skeleton
WORKDIR /src
COPY . .
RUN sh docker/skeleton.sh

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
# The dependencies: a layer of their own, kept while no manifest changes.
COPY --from=skeleton /src .
RUN cargo build --release --locked --package tracer
COPY . .
# `docker build --build-arg TRACER_REVISION=$(git rev-parse HEAD)`: manifests name it.
ARG TRACER_REVISION=""
ENV TRACER_REVISION=$TRACER_REVISION
# Cargo goes by time: what was empty a moment ago must look older than what is there now,
# and what was whole (docker/skeleton.sh) must not, for librdkafka is built against it.
RUN find libs services proto -path libs/openssl-sys -prune -o -type f -exec touch {} + \
    && cargo build --release --locked --package tracer
# What the binary is made of, and the licences of others. The image has Python, Mercurial needs it.
RUN python3 docker/sbom.py target/sbom

FROM debian:bookworm-slim
# Certificates to check others' against, and the one library that the binary does not
# bring. Not pinned: a build takes the security fixes of its day.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/tracer /usr/local/bin/tracer
COPY --from=build /src/target/sbom /usr/share/doc/tracer
COPY LICENSE /usr/share/doc/tracer/LICENSE
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 8080
# Of a service at its configured listen.http; Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 CMD ["tracer", "health", "--live"]
ENTRYPOINT ["tracer"]
CMD ["--help"]
