# galo as one static binary on nothing: no shell, no libraries, no root. 3.6 MB.
#
# The base is pinned to a major version; for a build that can be repeated bit by bit give a digest:
#   docker build --build-arg RUST_IMAGE=rust@sha256:... -t galo .
ARG RUST_IMAGE=rust:1-bookworm

FROM ${RUST_IMAGE} AS build
WORKDIR /galo
# glibc, linked in: it needs no further target (names are looked up by files and DNS, as built in).
# Naming the target keeps the flag away from build scripts and macros, which cannot be static.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_BUILD_TARGET=x86_64-unknown-linux-gnu \
    CARGO_PROFILE_RELEASE_DEBUG=false \
    CARGO_PROFILE_RELEASE_STRIP=symbols
# The dependencies are a layer of their own, so that a change in src builds only src.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs && cargo build --release --locked && rm -r src
COPY src src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked && mkdir -p /image/data /image/run/galo \
    && cp target/x86_64-unknown-linux-gnu/release/galo /image/galo

FROM scratch
# Numeric, since there is no /etc/passwd. A new volume takes over the owner of the directory it
# covers: /data is for the journal, /run/galo for unix sockets.
COPY --from=build --chown=10001:10001 /image /
USER 10001:10001
ENTRYPOINT ["/galo"]
CMD ["serve"]
