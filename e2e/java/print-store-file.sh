#!/bin/bash
# print-store-file.sh FILE [OPTION...]: runs Apache HBase's own HFilePrettyPrinter on a store file,
# local or hdfs://….
# Options: the options of the tool, by default `-v -m -k -p` (verbose, meta data, check the row
# order, print the cells). Exits with 0 only if the tool read the whole file.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ $# -ge 1 ] || fail "usage: print-store-file.sh FILE [OPTION...]"
case $1 in
  hdfs://*) file=$1 ;;
  *)
    [ -f "$1" ] || fail "no such file: $1"
    file=file://$(readlink -f "$1") ;;
esac
shift
[ $# -gt 0 ] || set -- -v -m -k -p
"$LAB_SCRIPTS/install.sh" hbase >&2
exec "$JAVA" $JDK17_OPENS -cp "$STORE_FILE_CLASSPATH" \
  org.apache.hadoop.hbase.io.hfile.HFilePrettyPrinter "$@" -f "$file"
