#!/bin/bash
# build.sh [client] [store-file]: downloads the class paths (once) and compiles the Java programs
# (if their sources have changed) into $BASALT_LAB/java. Without arguments: both.
#   client      StockClient, against the stock hbase-client of pom-client.xml
#   store-file  WriteStoreFile, against the whole of Apache HBase (lab/hbase/install.sh hbase)
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
command -v javac >/dev/null || fail "no javac (apt-get install openjdk-17-jdk-headless)"

compile() { # compile SOURCES CLASSES LIB
  [ -d "$2" ] && return 0
  mkdir -p "$(dirname "$2")"
  local new; new=$(mktemp -d "$2.XXXXXX")
  find "$1" -name '*.java' -print0 | xargs -0 javac --release 17 -Werror \
    -Xlint:all,-classfile,-processing,-path -d "$new" -cp "$3/*" >&2
  mv -T "$new" "$2" 2>/dev/null || rm -rf "$new"  # another build of the same sources won
}

for program in ${*:-client store-file}; do
  case $program in
    client)
      INSTALL_POM=$JAVA_PARTS/pom-client.xml INSTALL_INTO=$JAVA_CACHE/client \
        "$LAB_SCRIPTS/fetch.sh"
      compile "$JAVA_PARTS/src/client" "$CLIENT_CLASSES" "$CLIENT_LIB" ;;
    store-file)
      "$LAB_SCRIPTS/install.sh" hbase
      compile "$JAVA_PARTS/src/store-file" "$STORE_FILE_CLASSES" "$LAB_DIST/hbase/lib" ;;
    *) fail "no such program: $program (programs: client store-file)" ;;
  esac
done
