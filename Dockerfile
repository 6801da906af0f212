# Two stages: what builds stays behind, and what runs holds the binary, trusted roots and little else.

FROM rust:1.95-slim-trixie AS build
# jemalloc's build needs make; the C compiler is in the image. Debian keeps only the newest build of a version,
# so one that is pinned here would be gone some day.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The manifest names the benches, so they are needed for it to be read, though not compiled.
COPY Cargo.toml Cargo.lock gateway.yaml ./
COPY benches benches
COPY certs certs
COPY src src
RUN cargo build --release --locked --bin gatehouse

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /build/target/release/gatehouse /usr/local/bin/gatehouse
# Mount the directory with gateway.yaml here; mounting the single file would hide changes to it.
WORKDIR /etc/gatehouse
# nonroot, by number, so that it can be checked to be no root.
USER 65532:65532
# 8000 requests, 9000 admin: whatever the configuration says.
EXPOSE 8000 9000
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/gatehouse"]
CMD ["run", "--config", "/etc/gatehouse/gateway.yaml"]
