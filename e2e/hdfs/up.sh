#!/bin/bash
# up.sh: start the HDFS of env.sh and wait until all its DataNodes are known. CLEAN=1: forget all
# data first. down.sh stops it.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
write_settings
"$LAB_SCRIPTS/up.sh" hdfs
jmx="http://$HDFS_HOST:$NAME_NODE_WEB_PORT/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState"
for _ in $(seq 240); do
  live=$(curl -fs "$jmx" | sed -n 's/.*"NumLiveDataNodes" : \([0-9]*\).*/\1/p')
  safe=$(curl -fs "$jmx" | sed -n 's/.*"FSState" : "\([A-Za-z]*\)".*/\1/p')
  if [ "${live:-0}" = "$DATA_NODES" ] && [ "$safe" = Operational ]; then
    echo "hdfs: $live DataNodes live; settings in $LAB/conf/hdfs"; exit 0
  fi
  sleep 0.25
done
fail "after 60 s ${live:-0} of $DATA_NODES DataNodes are live, the NameNode is ${safe:-away}"
