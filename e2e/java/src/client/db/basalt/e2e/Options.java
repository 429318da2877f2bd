package db.basalt.e2e;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.TableName;

/** The command line. Settings of the client are Apache HBase's defaults, and each {@code -D}. */
record Options(String scenario, Map<String, String> named, Map<String, String> settings) {
  static final String USAGE = """
      usage: StockClient OPTION... SCENARIO
      scenarios: create, crud, filters, admin, compressions, flush, across-kill
        --registry zk|rpc          how the client finds the cluster
        --zk-quorum HOST[,HOST]    with --zk-port PORT and --znode-parent /PATH (default /hbase)
        --bootstrap HOST:PORT,...  masters or region servers
        --table NAME               made afresh by create, crud, filters, admin and across-kill;
                                   compressions appends the name of each compression
        --json FILE                the summary goes there too
        -DNAME=VALUE               a setting of the HBase client
      of across-kill:
        --seconds N                how long the load runs (default 30)
        --kill COMMAND             what kills a region server, run by bash under load
        --kill-after-s N           when (default 5)
        --kill-max-s N             how long it may take (default 30)
        --kill-log FILE            what it prints (default: nowhere)
        --empty-repeats 1          accept an empty answer to a repeated increment or append (Apache
                                   HBase forgets the answer, not the effect, when it recovers)
        --drain-s N                how long an operation may still take at the end (default 300)
      """;
  private static final List<String> NAMES = List.of("--registry", "--zk-quorum", "--zk-port",
      "--znode-parent", "--bootstrap", "--table", "--json", "--seconds", "--kill",
      "--kill-after-s", "--kill-max-s", "--kill-log", "--drain-s", "--empty-repeats");

  static Options parse(String[] arguments) {
    Map<String, String> named = new LinkedHashMap<>();
    Map<String, String> settings = new LinkedHashMap<>();
    List<String> rest = new ArrayList<>();
    for (int index = 0; index < arguments.length; index++) {
      String argument = arguments[index];
      if (argument.startsWith("-D") && argument.contains("=")) {
        int equals = argument.indexOf('=');
        settings.put(argument.substring(2, equals), argument.substring(equals + 1));
      } else if (NAMES.contains(argument)) {
        if (index + 1 == arguments.length) {
          throw new IllegalArgumentException(argument + " needs a value");
        }
        named.put(argument, arguments[++index]);
      } else if (argument.startsWith("-")) {
        throw new IllegalArgumentException("unknown option " + argument);
      } else {
        rest.add(argument);
      }
    }
    if (rest.size() != 1) {
      throw new IllegalArgumentException("one scenario expected, got " + rest);
    }
    Options options = new Options(rest.get(0), named, settings);
    options.configuration();
    options.table();
    return options;
  }

  // === impl Options ===

  String registry() {
    return required("--registry");
  }

  TableName table() {
    return TableName.valueOf(required("--table"));
  }

  Path jsonFile() {
    return named.containsKey("--json") ? Path.of(named.get("--json")) : null;
  }

  int number(String name, int otherwise) {
    return Integer.parseInt(named.getOrDefault(name, Integer.toString(otherwise)));
  }

  Configuration configuration() {
    Configuration configuration = HBaseConfiguration.create();
    switch (registry()) {
      // Not named: what a client without any such setting uses must be this one.
      case "zk" -> {
        configuration.set("hbase.zookeeper.quorum", required("--zk-quorum"));
        configuration.set("hbase.zookeeper.property.clientPort", required("--zk-port"));
        configuration.set("zookeeper.znode.parent",
            named.getOrDefault("--znode-parent", "/hbase"));
      }
      case "rpc" -> {
        configuration.set("hbase.client.registry.impl",
            "org.apache.hadoop.hbase.client.RpcConnectionRegistry");
        configuration.set("hbase.client.bootstrap.servers", required("--bootstrap"));
        // A client that went to ZooKeeper all the same would find nobody there.
        configuration.set("hbase.zookeeper.quorum", "127.0.0.1");
        configuration.set("hbase.zookeeper.property.clientPort", "1");
      }
      default -> throw new IllegalArgumentException(
          "--registry " + registry() + " (allowed: zk, rpc)");
    }
    settings.forEach(configuration::set);
    return configuration;
  }

  private String required(String name) {
    String value = named.get(name);
    if (value == null) {
      throw new IllegalArgumentException(name + " is missing");
    }
    return value;
  }
}
