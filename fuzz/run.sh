#!/bin/bash
# fuzz/run.sh [--build] [TARGET...]: builds the fuzz targets, gives each its first inputs, and runs
# each for a while; with --build, it only builds them. Fails where one finds something, or where they
# cannot be built or run. See docs/fuzzing.md.
#   SECONDS_EACH      how long each target runs, default 10
#   JOBS              how many run at a time, default one a core
#   CORPUS            where the inputs are kept, default fuzz/corpus
#   CARGO_TARGET_DIR  as for cargo; the targets go into its folder `fuzz`
# Needs the toolchain of rust-toolchain.toml and a C++ compiler (for libFuzzer); neither cargo-fuzz
# nor a nightly toolchain.
set -euo pipefail
exec </dev/null
cd "$(dirname "$(readlink -f "$0")")"

export SECONDS_EACH=${SECONDS_EACH:-10} CORPUS=${CORPUS:-$PWD/corpus}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
TRIPLE=$(rustc -vV | sed -n 's/^host: //p')
export BINARIES=$CARGO_TARGET_DIR/$TRIPLE/release LOGS=$CARGO_TARGET_DIR/logs
# What cargo-fuzz sets, without a sanitizer: our code has no unsafe block, and so it builds with the
# stable toolchain.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares stack-depth; do
  RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-$option"
done
export RUSTFLAGS

say() { echo "[fuzz] $*"; }
fail() { say "CANNOT RUN: $*"; echo "0 passed, 1 failed"; exit 1; }

# Runs one target. libFuzzer ends with another code than 0 if it finds something.
run_target() {
  local target=$1 corpus=$CORPUS/$1 log=$LOGS/$1.log start=$SECONDS code=0 runs coverage
  mkdir -p "$corpus" artifacts
  FUZZ_SEEDS=$corpus timeout $((SECONDS_EACH + 120)) "$BINARIES/$target" "$corpus" \
    -max_total_time="$SECONDS_EACH" -max_len=4096 -rss_limit_mb=1024 -timeout=10 \
    -artifact_prefix="artifacts/$target-" -print_final_stats=1 >"$log" 2>&1 || code=$?
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
  if [ "$code" -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
    say "ok $target: $runs runs in $((SECONDS - start)) s, $coverage"
    return 0
  fi
  say "FAILED $target: exit code $code, ${runs:-no} runs; inputs in fuzz/artifacts; its log ends:"
  grep -v '^#' "$log" | tail -n 40
  return 1
}
export -f run_target say

command -v c++ >/dev/null || fail "libFuzzer needs a C++ compiler"
build_only=
if [ "${1:-}" = --build ]; then
  build_only=1
  shift
fi
TARGETS=("$@")
if [ ${#TARGETS[@]} -eq 0 ]; then
  for file in fuzz_targets/*.rs; do TARGETS+=("$(basename "$file" .rs)"); done
fi
mkdir -p "$LOGS"
# The versions of the workspace; cargo adds libFuzzer.
[ Cargo.lock -nt ../Cargo.lock ] || cp ../Cargo.lock Cargo.lock
say "building ${#TARGETS[@]} targets"
cargo build --release --target "$TRIPLE" "${TARGETS[@]/#/--bin=}" \
  || fail "the targets do not build"
say "built in $SECONDS s"
[ -z "$build_only" ] || exit 0
# A failure must not hide those behind it.
code=0
printf '%s\n' "${TARGETS[@]}" \
  | xargs -P "${JOBS:-$(nproc)}" -I{} bash -euo pipefail -c 'run_target {}' >"$LOGS/all" || code=$?
cat "$LOGS/all"
passed=$(grep -c '^\[fuzz\] ok ' "$LOGS/all" || true)
say "$SECONDS s in all"
echo "$passed passed, $((${#TARGETS[@]} - passed)) failed"
[ "$code" -eq 0 ] && [ "$passed" -eq ${#TARGETS[@]} ]
