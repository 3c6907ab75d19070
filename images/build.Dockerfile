# Builds the emulators of one host, and qus, on a machine of that host: `cargo xtask build-qemu --builder NAME` runs it on
# the nodes of a builder. It runs the same `cargo xtask` as everywhere. The verified source archive is the context
# `source`; crates, wheels and Debian's packages come from the node's own network.

# Anything Debian-like with Rust.
ARG BASE=docker.io/library/rust:1-slim-bookworm

FROM ${BASE} AS build
# Without package lists, apt does not print where it gets packages from. Some of them may be broken.
RUN apt-get update; for tool in cargo cc git python3; do command -v $tool || missing=1; done; \
    test -z "$missing" || apt-get install -y --no-install-recommends gcc libc6-dev git python3
# A name that occurs in no program: every program is searched for traces of the directory it was built in.
WORKDIR /clone-of-qus
COPY . .
ARG HOST
ARG ARGUMENTS
RUN --mount=type=bind,from=source,target=/source --mount=type=cache,id=qus-${HOST},target=/cache \
    export XDG_CACHE_HOME=/cache CARGO_HOME=/cache/cargo \
    && cargo xtask build-qemu --source /source ${ARGUMENTS} \
    && cargo xtask build-qus \
    && mv target/qus/bundle/${HOST} /bundle

FROM scratch
COPY --from=build /bundle /
