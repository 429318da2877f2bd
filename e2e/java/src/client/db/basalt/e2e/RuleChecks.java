package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Checks.isTrue;
import static db.basalt.e2e.Checks.throwsException;
import static db.basalt.e2e.Tables.F;
import static db.basalt.e2e.Tables.put;
import static db.basalt.e2e.Tables.value;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.hbase.Cell;
import org.apache.hadoop.hbase.CellBuilderFactory;
import org.apache.hadoop.hbase.CellBuilderType;
import org.apache.hadoop.hbase.CompareOperator;
import org.apache.hadoop.hbase.RegionMetrics;
import org.apache.hadoop.hbase.ServerName;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.Append;
import org.apache.hadoop.hbase.client.CheckAndMutate;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptor;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Delete;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Increment;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.RowMutations;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.filter.Filter;
import org.apache.hadoop.hbase.filter.FilterList;
import org.apache.hadoop.hbase.filter.InclusiveStopFilter;
import org.apache.hadoop.hbase.filter.KeyOnlyFilter;
import org.apache.hadoop.hbase.filter.PageFilter;
import org.apache.hadoop.hbase.filter.PrefixFilter;
import org.apache.hadoop.hbase.filter.SingleColumnValueFilter;
import org.apache.hadoop.hbase.util.Bytes;

/** Which of several writes counts, and which rows a scan has: in a table of its own, one region. */
final class RuleChecks {
  private static final byte[] Q = toBytes("q");
  private static final int VERSIONS = 3;
  private static final long AHEAD_MS = 600_000;
  private static final long COMPACTION_MAX_MS = 60_000;

  private final Connection connection;
  private final TableName name;
  private final Checks checks;

  RuleChecks(Connection connection, TableName table, Checks checks) {
    this.connection = connection;
    this.name = TableName.valueOf(table.getNameAsString() + "_rules");
    this.checks = checks;
  }

  // === impl RuleChecks ===

  void run() throws IOException {
    Tables.drop(connection, name);
    try (Admin admin = connection.getAdmin(); Table table = connection.getTable(name)) {
      admin.createTable(TableDescriptorBuilder.newBuilder(name).setColumnFamily(family(VERSIONS))
          .build());
      checks.run("one column twice in one put", () -> columnTwice(table));
      checks.run("one column twice in one row mutation", () -> mutationsInOrder(table));
      checks.run("the latest two versions deleted", () -> deleteLatest(table));
      checks.run("checkAndMutate over a later timestamp", () -> checkAhead(table));
      checks.run("timestamps of Increment and Append", () -> updateTimestamps(table));
      checks.run("a negative timestamp", () -> negativeTimestamp(table));
      checks.run("a range of one row", () -> rangeOfOneRow(table));
      checks.run("reversed scans with filters", () -> reversedFilters(table));
      checks.run("a FilterList in any order", () -> listOrder(table));
      checks.run("latestVersionOnly", () -> latestVersionOnly(table));
      checks.run("region metrics", () -> regionMetrics(admin));
      checks.run("a major compaction of one file", () -> compactOneFile(admin, table));
    } finally {
      Tables.drop(connection, name);
    }
  }

  private static ColumnFamilyDescriptor family(int versions) {
    return ColumnFamilyDescriptorBuilder.newBuilder(F).setMaxVersions(versions).build();
  }

  private static void columnTwice(Table table) throws IOException {
    // Both orders of the bytes: the smaller one must win neither always nor never.
    for (String[] values : new String[][] {{"a", "b"}, {"b", "a"}}) {
      byte[] row = toBytes("twice-" + values[0]);
      table.put(put(row, "q", values[0]).addColumn(F, Q, toBytes(values[1])));
      equal("no timestamp", values[1], value(table.get(new Get(row)), "q"));
      row = toBytes("twice-7-" + values[0]);
      table.put(new Put(row).addColumn(F, Q, 7, toBytes(values[0]))
          .addColumn(F, Q, 7, toBytes(values[1])));
      equal("timestamp 7", values[1], value(table.get(new Get(row)), "q"));
      row = toBytes("twice-check-" + values[0]);
      isTrue("made", table.checkAndMutate(CheckAndMutate.newBuilder(row).ifNotExists(F, Q).build(
          RowMutations.of(List.of(put(row, "q", values[0]), put(row, "q", values[1])))))
          .isSuccess());
      equal("on a condition", values[1], value(table.get(new Get(row)), "q"));
    }
  }

  private static void mutationsInOrder(Table table) throws IOException {
    byte[] row = toBytes("order-puts");
    table.mutateRow(RowMutations.of(List.of(put(row, "q", "b"), put(row, "q", "a"))));
    equal("the later put", "a", value(table.get(new Get(row)), "q"));
    row = toBytes("order-increment");
    table.mutateRow(RowMutations.of(
        List.of(new Increment(row).addColumn(F, Q, 1), put(row, "q", "b"))));
    equal("the put after the increment", "b", value(table.get(new Get(row)), "q"));
    row = toBytes("order-appends");
    table.mutateRow(RowMutations.of(List.of(new Append(row).addColumn(F, Q, toBytes("1")),
        new Append(row).addColumn(F, Q, toBytes("2")))));
    equal("both appends count from nothing", "2", value(table.get(new Get(row)), "q"));
    row = toBytes("order-columns");
    Result both = table.append(new Append(row).addColumn(F, toBytes("b"), toBytes("1"))
        .addColumn(F, toBytes("a"), toBytes("2")));
    equal("a result is searched", List.of("2", "1"), List.of(value(both, "a"), value(both, "b")));
  }

  private static void deleteLatest(Table table) throws IOException {
    byte[] row = toBytes("latest-two");
    for (int at = 1; at <= VERSIONS; at++) {
      table.put(new Put(row).addColumn(F, Q, at, toBytes("" + at)));
    }
    table.delete(new Delete(row).addColumn(F, Q).addColumn(F, Q));
    equal("left", "1", value(table.get(new Get(row)), "q"));
  }

  private static void checkAhead(Table table) throws IOException {
    long ahead = System.currentTimeMillis() + AHEAD_MS;
    byte[] row = toBytes("ahead");
    table.put(new Put(row).addColumn(F, Q, ahead, toBytes("1")));
    CheckAndMutate swap = CheckAndMutate.newBuilder(row).ifEquals(F, Q, toBytes("1"))
        .build(put(row, "q", "2"));
    equal("made once", List.of(true, false),
        List.of(table.checkAndMutate(swap).isSuccess(), table.checkAndMutate(swap).isSuccess()));
    equal("and seen", "2", value(table.get(new Get(row)), "q"));
    table.put(put(row, "q", "3"));
    equal("a plain put is hidden", "2", value(table.get(new Get(row)), "q"));
    row = toBytes("ahead-row");
    table.put(new Put(row).addColumn(F, Q, ahead, toBytes("1")));
    isTrue("row mutations", table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, Q, toBytes("1")).build(RowMutations.of(List.of(put(row, "q", "2")))))
        .isSuccess());
    equal("row mutations seen", "2", value(table.get(new Get(row)), "q"));
  }

  private static void updateTimestamps(Table table) throws IOException {
    byte[] row = toBytes("update-at");
    long ahead = System.currentTimeMillis() + AHEAD_MS;
    for (long expected : new long[] {ahead, ahead + 1}) {
      Result result = table.increment(new Increment(row).setTimestamp(ahead).addColumn(F, Q, 1));
      equal("increment", expected, result.rawCells()[0].getTimestamp());
    }
    Result appended = table.append(new Append(toBytes("append-at")).setTimestamp(7)
        .addColumn(F, Q, toBytes("x")));
    equal("append to nothing", 7L, appended.rawCells()[0].getTimestamp());
  }

  /** Only clients that build their cells themselves can ask for it. */
  private static void negativeTimestamp(Table table) throws IOException {
    byte[] row = toBytes("negative");
    throwsException("put", Exception.class,
        () -> table.put(new Put(row).add(cell(row, Cell.Type.Put))));
    throwsException("delete", Exception.class,
        () -> table.delete(new Delete(row).add(cell(row, Cell.Type.DeleteColumn))));
    equal("nothing is there", 0, rows(table, new Scan().withStartRow(row).setRaw(true)
        .withStopRow(row, true)).size());
  }

  private static Cell cell(byte[] row, Cell.Type type) {
    return CellBuilderFactory.create(CellBuilderType.DEEP_COPY).setRow(row).setFamily(F)
        .setQualifier(Q).setTimestamp(-5).setType(type).setValue(toBytes("v")).build();
  }

  private static void rangeOfOneRow(Table table) throws IOException {
    byte[] row = toBytes("range");
    table.put(put(row, "q", "v"));
    for (boolean reversed : new boolean[] {false, true}) {
      for (boolean start : new boolean[] {false, true}) {
        for (boolean stop : new boolean[] {false, true}) {
          Scan scan = new Scan().setReversed(reversed).withStartRow(row, start)
              .withStopRow(row, stop);
          equal("reversed " + reversed + ", included " + start + " " + stop,
              start && stop ? List.of("range") : List.of(), rows(table, scan));
        }
      }
    }
  }

  private static void reversedFilters(Table table) throws IOException {
    for (String row : List.of("rev-a", "rev-b1", "rev-b2", "rev-c")) {
      table.put(put(toBytes(row), "q", "v"));
    }
    List<String> both = List.of("rev-b2", "rev-b1");
    Filter prefix = new PrefixFilter(toBytes("rev-b"));
    equal("prefix", both, rows(table, new Scan().setReversed(true).setFilter(prefix)));
    equal("prefix in a list", both,
        rows(table, new Scan().setReversed(true).setFilter(new FilterList(prefix))));
    equal("prefix from a row", both, rows(table,
        new Scan().setReversed(true).withStartRow(toBytes("rev-c")).setFilter(prefix)));
    equal("prefix forward", List.of("rev-b1", "rev-b2"),
        rows(table, new Scan().setFilter(prefix)));
    equal("stop", List.of("rev-c", "rev-b2"), rows(table, new Scan().setReversed(true)
        .withStartRow(toBytes("rev-c")).setFilter(new InclusiveStopFilter(toBytes("rev-b2")))));
  }

  private static void listOrder(Table table) throws IOException {
    for (int number = 0; number < 8; number++) {
      byte[] row = toBytes("list-" + number);
      table.put(put(row, "a", number % 2 == 0 ? "1" : "2").addColumn(F, toBytes("b"), Q));
    }
    List<String> expected = List.of("list-0", "list-2", "list-4");
    for (Filter[] order : new Filter[][] {
        {new PageFilter(3), valueOf("a", "1")}, {valueOf("a", "1"), new PageFilter(3)}}) {
      equal(order[0] + " first", expected, rows(table, list(order)));
    }
    for (Filter[] order : new Filter[][] {
        {new KeyOnlyFilter(), valueOf("a", "1")}, {valueOf("a", "1"), new KeyOnlyFilter()}}) {
      equal(order[0] + " first", 4, rows(table, list(order)).size());
    }
  }

  private static Scan list(Filter... filters) {
    return new Scan().setStartStopRowForPrefixScan(toBytes("list-"))
        .setFilter(new FilterList(filters));
  }

  private static SingleColumnValueFilter valueOf(String qualifier, String value) {
    SingleColumnValueFilter filter = new SingleColumnValueFilter(F, toBytes(qualifier),
        CompareOperator.EQUAL, toBytes(value));
    filter.setFilterIfMissing(true);
    return filter;
  }

  private static void latestVersionOnly(Table table) throws IOException {
    byte[] row = toBytes("version");
    table.put(new Put(row).addColumn(F, Q, 1, toBytes("old")));
    table.put(new Put(row).addColumn(F, Q, 2, toBytes("new")));
    for (boolean latestOnly : new boolean[] {true, false}) {
      SingleColumnValueFilter filter = valueOf("q", "old");
      filter.setLatestVersionOnly(latestOnly);
      Result result = table.get(new Get(row).setFilter(filter));
      equal("latest only: " + latestOnly, latestOnly ? null : "new", value(result, "q"));
    }
  }

  /** MapReduce plans by these. */
  private void regionMetrics(Admin admin) throws IOException {
    List<RegionMetrics> metrics = new ArrayList<>();
    for (ServerName server : admin.getRegionServers()) {
      metrics.addAll(admin.getRegionMetrics(server, name));
      isTrue("of all tables", admin.getRegionMetrics(server).size() > 0);
    }
    equal("regions", 1, metrics.size());
    equal("region", Bytes.toStringBinary(admin.getRegions(name).get(0).getRegionName()),
        Bytes.toStringBinary(metrics.get(0).getRegionName()));
  }

  /** Once as it was written, once by what the family declares later. */
  private void compactOneFile(Admin admin, Table table) throws Exception {
    byte[] row = toBytes("compact");
    for (int at = 1; at <= VERSIONS; at++) {
      table.put(new Put(row).addColumn(F, Q, at, toBytes("" + at)));
    }
    byte[] region = admin.getRegions(name).get(0).getRegionName();
    admin.flushRegion(region);
    admin.majorCompactRegion(region);
    // Until it is one file, and has been.
    Thread.sleep(3_000);
    equal("kept", VERSIONS, rawVersions(table, row));
    admin.modifyColumnFamily(name, family(1));
    admin.majorCompactRegion(region);
    long end = System.currentTimeMillis() + COMPACTION_MAX_MS;
    while (rawVersions(table, row) > 1 && System.currentTimeMillis() < end) {
      Thread.sleep(200);
    }
    equal("dropped", 1, rawVersions(table, row));
  }

  private static int rawVersions(Table table, byte[] row) throws IOException {
    int cells = 0;
    Scan scan = new Scan().withStartRow(row).withStopRow(row, true).setRaw(true).readAllVersions();
    try (ResultScanner scanner = table.getScanner(scan)) {
      for (Result result : scanner) {
        cells += result.size();
      }
    }
    return cells;
  }

  private static List<String> rows(Table table, Scan scan) throws IOException {
    List<String> rows = new ArrayList<>();
    try (ResultScanner scanner = table.getScanner(scan)) {
      for (Result result : scanner) {
        rows.add(Bytes.toString(result.getRow()));
      }
    }
    return rows;
  }
}
