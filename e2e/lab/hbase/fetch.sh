#!/bin/bash
# fetch.sh: downloads the jars of one pom into a plain folder. INSTALL_POM: the pom; INSTALL_INTO:
# the folder, which gets lib/ and pom.xml (the stamp: nothing is done if it is the same). Prints
# what it did.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/env.sh"
command -v mvn >/dev/null || fail "mvn is not installed (apt-get install maven)"
command -v "$JAVA" >/dev/null || fail "no java (apt-get install openjdk-17-jdk-headless)"
name=$(basename "$INSTALL_INTO")

# One installer at a time. The folder appears complete, by a rename.
mkdir -p "$(dirname "$INSTALL_INTO")"
exec 9>"$INSTALL_INTO.lock"; flock 9
if cmp -s "$INSTALL_POM" "$INSTALL_INTO/pom.xml"; then echo "$name: installed"; exit 0; fi
new=$INSTALL_INTO.new
rm -rf "$new"; mkdir -p "$new"
cp "$INSTALL_POM" "$new/pom.xml"
mvn -q -B -Dstyle.color=never -f "$new/pom.xml" dependency:copy-dependencies \
  -DincludeScope=runtime "-DoutputDirectory=$new/lib" >&2
# HBase logs through log4j 2. With Hadoop's log4j 1 binding next to it, that one would be used.
if compgen -G "$new/lib/log4j-slf4j-impl-*.jar" >/dev/null; then rm -f "$new"/lib/{reload4j,slf4j-reload4j}-*.jar; fi
rm -rf "$INSTALL_INTO"; mv "$new" "$INSTALL_INTO"
echo "$name: $(ls "$INSTALL_INTO/lib" | wc -l) jars in $INSTALL_INTO/lib"
