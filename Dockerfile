# One static binary for all roles. Without a Docker daemon: e2e/kube/image.sh.
FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools \
    && rustup target add x86_64-unknown-linux-musl
WORKDIR /source
COPY . .
RUN cargo build --release --locked --target x86_64-unknown-linux-musl -p basalt

FROM scratch
COPY --from=build /source/target/x86_64-unknown-linux-musl/release/basalt /basalt
USER 65532:65532
ENTRYPOINT ["/basalt"]
