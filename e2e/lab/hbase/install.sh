#!/bin/bash
# install.sh [zk] [hdfs] [hbase]: installs Apache HBase, Hadoop HDFS and ZooKeeper (versions: the
# pom files here) from Maven as plain class paths, into $BASALT_LAB/hbase/dist/PART/lib. Without
# arguments: all three. Does nothing for a part whose pom has not changed since it was installed.
# Needs a JDK 17 and mvn; about 200 MB.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
for part in ${*:-zk hdfs hbase}; do
  [ -f "$LAB_SCRIPTS/pom-$part.xml" ] || fail "no such part: $part (parts: zk hdfs hbase)"
  INSTALL_POM=$LAB_SCRIPTS/pom-$part.xml INSTALL_INTO=$LAB_DIST/$part "$LAB_SCRIPTS/fetch.sh"
done
