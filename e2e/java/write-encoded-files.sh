#!/bin/bash
# write-encoded-files.sh FOLDER: writes store files with Apache HBase's own writer in every
# encoding, compressed and not, for each bloom filter and each form of tags. Also records what
# HBase's own reader finds in them. They are read by
# `BASALT_HBASE_FILES=FOLDER cargo test -p basalt-storage --test store_file encoded:: -- --ignored`.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ $# -eq 1 ] || fail "usage: write-encoded-files.sh FOLDER"
"$JAVA_PARTS/build.sh" store-file >&2
# The program ends before the second compiler pays off.
exec "$JAVA" -XX:TieredStopAtLevel=1 $JDK17_OPENS -cp "$STORE_FILE_CLASSPATH" \
  db.basalt.e2e.WriteEncodedFiles "$1"
