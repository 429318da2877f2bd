# shellcheck shell=bash
# shellcheck disable=SC2034  # those that source this file use what is set here
# env.sh: class paths of the Java programs. The scripts of this folder source it.
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../lab/hbase/env.sh"

JAVA_PARTS=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
JAVA_CACHE=$BASALT_LAB/java
# Only the stock client, as in a user's program, without any of the server's jars.
CLIENT_LIB=$JAVA_CACHE/client/lib
# Our classes, in a folder named by the hash of their sources and poms.
JAVA_HASH=$(cd "$JAVA_PARTS" && find src pom-client.xml ../lab/hbase/pom-hbase.xml -type f |
  LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
CLIENT_CLASSES=$JAVA_CACHE/classes/$JAVA_HASH/client
STORE_FILE_CLASSES=$JAVA_CACHE/classes/$JAVA_HASH/store-file
CLIENT_CLASSPATH="$JAVA_PARTS/conf/client:$CLIENT_CLASSES:$CLIENT_LIB/*"
STORE_FILE_CLASSPATH="$JAVA_PARTS/conf/store-file:$STORE_FILE_CLASSES:$LAB_DIST/hbase/lib/*"
