#!/bin/bash
# print-store-file.sh FILE [OPTION...]: Apache HBase's own HFilePrettyPrinter on a local store file.
# Options: those of the tool, by default `-v -m -k -p` (verbose, meta data, check the row order,
# print the cells). Exit code 0 only if the tool read the whole file.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ $# -ge 1 ] || fail "usage: print-store-file.sh FILE [OPTION...]"
file=$(readlink -f "$1"); shift
[ -f "$file" ] || fail "no such file: $file"
[ $# -gt 0 ] || set -- -v -m -k -p
"$LAB_SCRIPTS/install.sh" hbase >&2
exec "$JAVA" $JDK17_OPENS -cp "$STORE_FILE_CLASSPATH" \
  org.apache.hadoop.hbase.io.hfile.HFilePrettyPrinter "$@" -f "file://$file"
