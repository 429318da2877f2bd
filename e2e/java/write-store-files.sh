#!/bin/bash
# write-store-files.sh FOLDER: writes the golden store files of crates/storage with Apache HBase's
# own writer. `write-store-files.sh crates/storage/tests/golden` writes the committed files again.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
[ $# -eq 1 ] || fail "usage: write-store-files.sh FOLDER"
"$JAVA_PARTS/build.sh" store-file >&2
exec "$JAVA" $JDK17_OPENS -cp "$STORE_FILE_CLASSPATH" db.basalt.e2e.WriteStoreFile "$1"
