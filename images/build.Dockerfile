# Builds the emulators of one host, and qus, on a machine of that kind: `cargo xtask build-qemu --builder NAME` has the
# nodes of a builder do it. What is done is what `cargo xtask` does everywhere; there is no second recipe. The source
# archive comes as the context `source`, verified; crates, wheels and Debian's packages from the node's own network.

# Anything Debian-like with Rust.
ARG BASE=docker.io/library/rust:1-slim-bookworm

FROM ${BASE} AS build
# Without lists, apt does not tell where it would get packages. That some are broken is no reason to end here.
RUN apt-get update; for tool in cargo cc git python3; do command -v $tool || missing=1; done; \
    test -z "$missing" || apt-get install -y --no-install-recommends gcc libc6-dev git python3
# A name that no program has in it, since every one is looked at for traces of where it was built.
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
