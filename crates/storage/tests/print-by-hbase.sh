#!/bin/bash
# print-by-hbase.sh: Apache HBase's HFilePrettyPrinter reads what Basalt writes, in each compression
# with each bloom filter: the golden cells, an index of several levels, and a file without cells.
# Prints what it compared; exit code 0 only if every cell was the same.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
print="$here/../../../e2e/java/print-store-file.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$here/.."
BASALT_STORE_FILES=$work cargo test -q -p basalt-storage --test store_file \
  files_for_hbase_to_read -- --ignored >"$work/cargo.log" 2>&1 || { cat "$work/cargo.log"; exit 1; }
"$print" "$here/golden/none-row.hfile" 2>/dev/null | grep '^K: ' >"$work/golden.expected"
: >"$work/empty.expected"
for file in "$work"/*.hfile; do
  name=$(basename "$file" .hfile)
  kind=${name%%-*}
  "$print" "$file" >"$work/printed" 2>"$work/errors" || { cat "$work/errors"; exit 1; }
  grep '^K: ' "$work/printed" >"$work/cells" || true
  # The first file of many cells is counted, the others must print the same.
  if [ "$kind" = many ] && [ ! -f "$work/many.expected" ]; then
    [ "$(wc -l <"$work/cells")" = 20000 ]
    [ "$(sed -n 's/^ *numDataIndexLevels=\([0-9]*\),/\1/p' "$work/printed")" -ge 3 ]
    cp "$work/cells" "$work/many.expected"
  fi
  cmp "$work/cells" "$work/$kind.expected"
  if grep -qi 'WARNING\|previous row is greater' "$work/printed"; then
    grep -i 'WARNING\|previous row is greater' "$work/printed"; exit 1
  fi
  echo "$name: $(wc -l <"$work/cells") cells"
done
