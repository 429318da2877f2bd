package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Checks.isTrue;
import static db.basalt.e2e.Checks.throwsException;
import static db.basalt.e2e.Tables.F;
import static db.basalt.e2e.Tables.T;
import static db.basalt.e2e.Tables.V;
import static db.basalt.e2e.Tables.cells;
import static db.basalt.e2e.Tables.get;
import static db.basalt.e2e.Tables.put;
import static db.basalt.e2e.Tables.row;
import static db.basalt.e2e.Tables.value;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.TableNotFoundException;
import org.apache.hadoop.hbase.client.BufferedMutator;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Consistency;
import org.apache.hadoop.hbase.client.Durability;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.regionserver.NoSuchColumnFamilyException;

/** Put, Get, exists, versions, TTL and the BufferedMutator. */
final class ReadWriteChecks {
  private final Connection connection;
  private final TableName name;
  private final Checks checks;

  ReadWriteChecks(Connection connection, TableName name, Checks checks) {
    this.connection = connection;
    this.name = name;
    this.checks = checks;
  }

  // === impl ReadWriteChecks ===

  void run() throws IOException {
    try (Table table = connection.getTable(name)) {
      checks.run("put and get in each region", () -> putAndGet(table));
      checks.run("get chooses columns and families", () -> getChooses(table));
      checks.run("binary keys and empty values", () -> binaryKeys(table));
      checks.run("put(List) and get(List) over all regions", () -> lists(table));
      checks.run("exists", () -> exists(table));
      checks.run("a family keeps its versions", () -> versions(table));
      checks.run("get by timestamp and time range", () -> times(table));
      checks.run("cells expire", () -> expiry(table));
      checks.run("every durability is accepted", () -> durabilities(table));
      checks.run("TIMELINE reads are accepted", () -> timeline(table));
      checks.run("a value of 1 MiB", () -> largeValue(table));
      checks.run("BufferedMutator", () -> bufferedMutator(table));
      checks.run("an unknown family", () -> unknownFamily(table));
    }
    checks.run("an unknown table", this::unknownTable);
  }

  private static void putAndGet(Table table) throws IOException {
    for (int region = 0; region < Tables.REGIONS; region++) {
      byte[] row = row(region, "put");
      equal("before", true, table.get(new Get(row)).isEmpty());
      table.put(put(row, "q", "one of " + region));
      equal("put", "one of " + region, value(table.get(new Get(row)), "q"));
      table.put(put(row, "q", "two of " + region));
      equal("overwritten", List.of(Tables.prefix(region) + "-put/f:q=two of " + region),
          cells(table.get(new Get(row))));
    }
  }

  private static void getChooses(Table table) throws IOException {
    byte[] row = row(1, "columns");
    table.put(new Put(row).addColumn(F, toBytes("a"), toBytes("1"))
        .addColumn(F, toBytes("b"), toBytes("2")).addColumn(V, toBytes("a"), toBytes("3")));
    String key = Tables.prefix(1) + "-columns/";
    equal("row", List.of(key + "f:a=1", key + "f:b=2", key + "v:a=3"),
        cells(table.get(new Get(row))));
    equal("family", List.of(key + "f:a=1", key + "f:b=2"),
        cells(table.get(new Get(row).addFamily(F))));
    equal("column", List.of(key + "f:b=2"), cells(table.get(get(row, "b"))));
    equal("columns of two families", List.of(key + "f:a=1", key + "v:a=3"),
        cells(table.get(get(row, "a").addColumn(V, toBytes("a")))));
    equal("missing column", List.of(), cells(table.get(get(row, "none"))));
    equal("column limit and offset", List.of(key + "f:b=2"),
        cells(table.get(new Get(row).addFamily(F).setMaxResultsPerColumnFamily(1)
            .setRowOffsetPerColumnFamily(1))));
  }

  private static void binaryKeys(Table table) throws IOException {
    byte[] row = {(byte) 0xff, 0, 1, (byte) 0x80};
    byte[] empty = {};
    table.put(new Put(row).addColumn(F, empty, empty).addColumn(F, new byte[] {0, -1}, row));
    Result result = table.get(new Get(row));
    isTrue("row", Arrays.equals(row, result.getRow()));
    isTrue("empty value", Arrays.equals(empty, result.getValue(F, empty)));
    isTrue("binary value", Arrays.equals(row, result.getValue(F, new byte[] {0, -1})));
  }

  private static void lists(Table table) throws IOException {
    List<Put> puts = new ArrayList<>();
    List<Get> gets = new ArrayList<>();
    List<String> expected = new ArrayList<>();
    for (int number = 0; number < 240; number++) {
      byte[] row = row(number * 7 % Tables.REGIONS, "list-" + number);
      puts.add(put(row, "q", "value " + number));
      gets.add(get(row, "q"));
      expected.add("value " + number);
    }
    gets.add(get(row(0, "list-none"), "q"));
    expected.add(null);
    table.put(puts);
    List<String> found = new ArrayList<>();
    for (Result result : table.get(gets)) {
      found.add(value(result, "q"));
    }
    equal("values in the order of the gets", expected, found);
  }

  private static void exists(Table table) throws IOException {
    byte[] row = row(2, "exists");
    table.put(put(row, "q", "x"));
    equal("column", true, table.exists(get(row, "q")));
    equal("other column", false, table.exists(get(row, "other")));
    boolean[] found = table.exists(List.of(get(row, "q"), get(row(9, "exists"), "q"),
        new Get(row)));
    equal("list", "[true, false, true]", Arrays.toString(found));
  }

  private static void versions(Table table) throws IOException {
    byte[] row = row(3, "versions");
    for (int version = 1; version <= 5; version++) {
      table.put(new Put(row).addColumn(V, toBytes("q"), version * 10L, toBytes("v" + version))
          .addColumn(F, toBytes("q"), version * 10L, toBytes("f" + version)));
    }
    String key = Tables.prefix(3) + "-versions/";
    equal("newest", List.of(key + "f:q=f5", key + "v:q=v5"), cells(table.get(new Get(row))));
    equal("all", List.of(key + "f:q=f5", key + "v:q=v5", key + "v:q=v4", key + "v:q=v3"),
        cells(table.get(new Get(row).readAllVersions())));
    equal("two", List.of(key + "v:q=v5", key + "v:q=v4"),
        cells(table.get(new Get(row).addFamily(V).readVersions(2))));
  }

  private static void times(Table table) throws IOException {
    byte[] row = row(4, "times");
    for (long time = 100; time <= 300; time += 100) {
      table.put(new Put(row).addColumn(V, toBytes("q"), time, toBytes("at " + time)));
    }
    String key = Tables.prefix(4) + "-times/v:q=at ";
    equal("at", List.of(key + 200), cells(table.get(new Get(row).setTimestamp(200))));
    equal("range", List.of(key + 200, key + 100),
        cells(table.get(new Get(row).readAllVersions().setTimeRange(100, 300))));
    equal("range, newest only", List.of(key + 200),
        cells(table.get(new Get(row).setTimeRange(0, 300))));
    equal("outside", List.of(), cells(table.get(new Get(row).setTimeRange(301, 400))));
  }

  private static void expiry(Table table) throws IOException, InterruptedException {
    byte[] row = row(5, "expiry");
    table.put(new Put(row).addColumn(T, toBytes("q"), toBytes("soon gone"))
        .addColumn(F, toBytes("q"), toBytes("stays")));
    equal("at first", 2, table.get(new Get(row)).size());
    Thread.sleep(Tables.T_SECONDS * 1000L + 500);
    equal("after", List.of(Tables.prefix(5) + "-expiry/f:q=stays"),
        cells(table.get(new Get(row))));
  }

  private static void durabilities(Table table) throws IOException {
    for (Durability durability : Durability.values()) {
      byte[] row = row(6, durability.name());
      table.put(put(row, "q", durability.name()).setDurability(durability));
      equal("written", durability.name(), value(table.get(new Get(row)), "q"));
    }
  }

  private static void timeline(Table table) throws IOException {
    byte[] row = row(7, "timeline");
    table.put(put(row, "q", "x"));
    Result result = table.get(new Get(row).setConsistency(Consistency.TIMELINE));
    equal("value", "x", value(result, "q"));
    equal("from the primary", false, result.isStale());
  }

  private static void largeValue(Table table) throws IOException {
    byte[] value = new byte[1 << 20];
    for (int index = 0; index < value.length; index++) {
      value[index] = (byte) (index * 31 >> 3);
    }
    byte[] row = row(8, "large");
    table.put(new Put(row).addColumn(F, toBytes("q"), value));
    isTrue("value", Arrays.equals(value, table.get(new Get(row)).getValue(F, toBytes("q"))));
  }

  private void bufferedMutator(Table table) throws IOException {
    int count = 3000;
    try (BufferedMutator mutator = connection.getBufferedMutator(name)) {
      for (int number = 0; number < count; number++) {
        mutator.mutate(put(row(number % Tables.REGIONS, "buffer-" + number), "q", "b" + number));
      }
      mutator.mutate(Tables.delete(row(0, "buffer-0"), "q"));
      mutator.flush();
      List<Get> gets = new ArrayList<>();
      for (int number = 1; number < count; number++) {
        gets.add(get(row(number % Tables.REGIONS, "buffer-" + number), "q"));
      }
      Result[] results = table.get(gets);
      for (int number = 1; number < count; number++) {
        equal("row " + number, "b" + number, value(results[number - 1], "q"));
      }
    }
  }

  private static void unknownFamily(Table table) {
    byte[] row = row(0, "unknown");
    throwsException("put", NoSuchColumnFamilyException.class,
        () -> table.put(new Put(row).addColumn(toBytes("none"), toBytes("q"), toBytes("x"))));
    throwsException("get", NoSuchColumnFamilyException.class,
        () -> table.get(new Get(row).addFamily(toBytes("none"))));
  }

  private void unknownTable() throws IOException {
    try (Table table = connection.getTable(TableName.valueOf("no_such_table"))) {
      throwsException("get", TableNotFoundException.class, () -> table.get(new Get(toBytes("r"))));
    }
  }
}
