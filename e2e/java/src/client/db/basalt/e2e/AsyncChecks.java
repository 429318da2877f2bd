package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Tables.F;
import static db.basalt.e2e.Tables.get;
import static db.basalt.e2e.Tables.put;
import static db.basalt.e2e.Tables.row;
import static db.basalt.e2e.Tables.value;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.AsyncConnection;
import org.apache.hadoop.hbase.client.AsyncTable;
import org.apache.hadoop.hbase.client.CheckAndMutate;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Increment;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.util.Bytes;

/** The asynchronous client: in 2.6 an implementation of its own, with its own location cache. */
final class AsyncChecks {
  private static final long SECONDS = 60;

  private final Configuration configuration;
  private final TableName name;
  private final Checks checks;

  AsyncChecks(Configuration configuration, TableName name, Checks checks) {
    this.configuration = configuration;
    this.name = name;
    this.checks = checks;
  }

  // === impl AsyncChecks ===

  void run() throws Exception {
    try (AsyncConnection connection =
        wait(ConnectionFactory.createAsyncConnection(configuration))) {
      AsyncTable<?> table = connection.getTable(name);
      checks.run("async: put, get, increment, checkAndMutate", () -> single(table));
      checks.run("async: batches and a scan over all regions", () -> bulk(table));
      checks.run("async: admin and locator", () -> {
        equal("exists", true, wait(connection.getAdmin().tableExists(name)));
        equal("enabled", true, wait(connection.getAdmin().isTableEnabled(name)));
        equal("regions", Tables.REGIONS,
            wait(connection.getRegionLocator(name).getAllRegionLocations()).size());
        equal("families", 3, wait(connection.getAdmin().getDescriptor(name))
            .getColumnFamilyCount());
      });
    }
  }

  private static void single(AsyncTable<?> table) throws Exception {
    byte[] row = row(2, "async");
    wait(table.put(put(row, "q", "x")));
    equal("get", "x", value(wait(table.get(get(row, "q"))), "q"));
    equal("increment", 4L, Bytes.toLong(wait(table.increment(
        new Increment(row).addColumn(F, toBytes("n"), 4))).getValue(F, toBytes("n"))));
    equal("checkAndMutate", true, wait(table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("x")).build(put(row, "q", "y")))).isSuccess());
    wait(table.delete(Tables.delete(row, "q")));
    equal("deleted", false, wait(table.exists(get(row, "q"))));
  }

  private static void bulk(AsyncTable<?> table) throws Exception {
    List<Put> puts = new ArrayList<>();
    List<Get> gets = new ArrayList<>();
    List<String> rows = new ArrayList<>();
    for (int region = 0; region < Tables.REGIONS; region++) {
      for (int number = 0; number < 20; number++) {
        byte[] row = row(region, String.format("zasync-%02d", number));
        puts.add(put(row, "q", Bytes.toString(row)));
        gets.add(new Get(row));
        rows.add(Bytes.toString(row));
      }
    }
    wait(table.putAll(puts));
    equal("get all", rows,
        wait(table.getAll(gets)).stream().map(result -> value(result, "q")).toList());
    List<String> scanned = new ArrayList<>();
    for (Result result : wait(table.scanAll(new Scan().setCaching(50)))) {
      String row = Bytes.toStringBinary(result.getRow());
      if (row.contains("-zasync-")) {
        scanned.add(row);
      }
    }
    equal("scan all", rows, scanned);
  }

  private static <V> V wait(CompletableFuture<V> future) throws Exception {
    return future.get(SECONDS, TimeUnit.SECONDS);
  }
}
