# One image for all services: the command line chooses which one runs.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# `docker build --build-arg TRACER_REVISION=$(git rev-parse HEAD)`: manifests name it.
ARG TRACER_REVISION=""
ENV TRACER_REVISION=$TRACER_REVISION
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package tracer \
    && cp target/release/tracer /tracer

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /tracer /usr/local/bin/tracer
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 8080
ENTRYPOINT ["tracer"]
CMD ["--help"]
