# Thin names for commands that also work without `just`.

# List the verbs
default:
    @just --list

# Read: formatting, lints, tests
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace

# Write: formatting, and what clippy can mend
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# The whole cluster under a seed: `just sim all --seeds 1..101`, `just sim planted --count`
sim *arguments:
    cargo run --release -p basalt-sim --features planted-bugs -- {{arguments}}

# The stock Java client and Apache HBase's tools against a cluster (JDK 17 and mvn)
e2e:
    cargo build --release
    TARGET=basalt e2e/run-java-client.sh

# A real Kubernetes on this machine: install, kill, roll, scale (root; Go for the first time)
e2e-kube:
    e2e/kube/run.sh

# Write the custom resource definitions and check them for drift
crds:
    cargo run -- crds --write crds
    cp crds/*.yaml charts/basalt-operator/files/crds/
    git diff --exit-code crds charts

# YCSB's mixes
bench *arguments:
    cargo run --release -- bench {{arguments}}

# A cluster that is killed under load
demo *arguments:
    cargo run --release -- demo {{arguments}}

# Licences, advisories, sources (cargo-deny)
deny:
    cargo deny check
