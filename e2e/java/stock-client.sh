#!/bin/bash
# stock-client.sh OPTION... SCENARIO: runs the stock Apache HBase client against the cluster that
# the options name. Without arguments: prints the usage. Logs are written to standard error, the
# JSON to standard output.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
"$JAVA_PARTS/build.sh" client >&2
exec "$JAVA" -Xmx512m $JDK17_OPENS -cp "$CLIENT_CLASSPATH" db.basalt.e2e.StockClient "$@"
