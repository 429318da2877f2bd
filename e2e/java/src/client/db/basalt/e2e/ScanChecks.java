package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Checks.isTrue;
import static db.basalt.e2e.Tables.F;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.TreeMap;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Consistency;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.util.Bytes;

/**
 * Scans of a table of its own: 30 rows of 3 columns in each of 12 regions, and one wide row. Rows
 * are ASCII, so that a TreeMap of strings sorts them as the servers do.
 */
final class ScanChecks {
  private static final int ROWS_PER_REGION = 30;
  private static final int WIDE_COLUMNS = 300;
  private static final String WIDE_ROW = Tables.prefix(6) + "-wide";
  private static final String PADDING = "p".repeat(1000);

  private final Connection connection;
  private final TableName name;
  private final Checks checks;
  /** Row → its cells, as {@link Tables#cells} gives them. */
  private final TreeMap<String, List<String>> expected = new TreeMap<>();

  ScanChecks(Connection connection, TableName name, Checks checks) {
    this.connection = connection;
    this.name = TableName.valueOf(name.getNameAsString() + "_scan");
    this.checks = checks;
  }

  // === impl ScanChecks ===

  void run() throws IOException {
    Tables.createFresh(connection, name);
    try (Table table = connection.getTable(name)) {
      checks.run("scan of an empty table", () -> equal("rows", List.of(), rows(table, new Scan())));
      load(table);
      forward(table);
      reversed(table);
      partial(table);
      checks.run("scan reads a row range exactly", () -> ranges(table));
      checks.run("scan by prefix", () -> prefix(table));
      checks.run("many scanners at once", () -> interleaved(table));
      checks.run("a scanner is closed early", () -> closedEarly(table));
    }
    Tables.drop(connection, name);
  }

  private void load(Table table) throws IOException {
    List<Put> puts = new ArrayList<>();
    for (int region = 0; region < Tables.REGIONS; region++) {
      for (int number = 0; number < ROWS_PER_REGION; number++) {
        String row = String.format("%s-%03d", Tables.prefix(region), number);
        Put put = new Put(toBytes(row));
        List<String> cells = new ArrayList<>();
        for (String qualifier : List.of("a", "b", "c")) {
          put.addColumn(F, toBytes(qualifier), toBytes(row + qualifier));
          cells.add(row + "/f:" + qualifier + "=" + row + qualifier);
        }
        puts.add(put);
        expected.put(row, cells);
      }
    }
    Put wide = new Put(toBytes(WIDE_ROW));
    List<String> cells = new ArrayList<>();
    for (int column = 0; column < WIDE_COLUMNS; column++) {
      String qualifier = String.format("w%04d", column);
      wide.addColumn(F, toBytes(qualifier), toBytes(qualifier + PADDING));
      cells.add(WIDE_ROW + "/f:" + qualifier + "=" + qualifier + PADDING);
    }
    puts.add(wide);
    expected.put(WIDE_ROW, cells);
    table.put(puts);
  }

  private void forward(Table table) {
    same(table, "all", new Scan(), allRows());
    same(table, "caching 1", new Scan().setCaching(1).withStartRow(toBytes("ea")),
        from("ea"));
    same(table, "caching 7", new Scan().setCaching(7), allRows());
    same(table, "small results", new Scan().setMaxResultSize(500), allRows());
    same(table, "limit 1", new Scan().setLimit(1), allRows().subList(0, 1));
    same(table, "limit over regions", new Scan().setLimit(100), allRows().subList(0, 100));
    same(table, "limit with caching", new Scan().setLimit(100).setCaching(9),
        allRows().subList(0, 100));
    same(table, "one row", new Scan().withStartRow(toBytes(WIDE_ROW)).withStopRow(
        toBytes(WIDE_ROW), true), List.of(WIDE_ROW));
    same(table, "PREAD", new Scan().setReadType(Scan.ReadType.PREAD), allRows());
    same(table, "STREAM", new Scan().setReadType(Scan.ReadType.STREAM), allRows());
    same(table, "without block cache", new Scan().setCacheBlocks(false), allRows());
    same(table, "asynchronous prefetch", new Scan().setAsyncPrefetch(true).setCaching(10),
        allRows());
    same(table, "TIMELINE", new Scan().setConsistency(Consistency.TIMELINE), allRows());
    checks.run("scan of one column", () -> {
      List<String> found = new ArrayList<>();
      for (String cell : cells(table, new Scan().addColumn(F, toBytes("b")))) {
        found.add(cell);
      }
      equal("cells", expected.values().stream().flatMap(List::stream)
          .filter(cell -> cell.contains("/f:b=")).toList(), found);
    });
  }

  private void reversed(Table table) {
    same(table, "reversed", new Scan().setReversed(true), backwards(allRows()));
    same(table, "reversed, caching 7", new Scan().setReversed(true).setCaching(7),
        backwards(allRows()));
    same(table, "reversed, limit", new Scan().setReversed(true).setLimit(40),
        backwards(allRows()).subList(0, 40));
    same(table, "reversed range", new Scan().setReversed(true).withStartRow(toBytes("aa-010"))
        .withStopRow(toBytes("40-005")), backwards(new ArrayList<>(
            expected.subMap("40-005", false, "aa-010", true).keySet())));
    same(table, "reversed from the middle of nowhere", new Scan().setReversed(true)
        .withStartRow(toBytes("aa-0105"), false).withStopRow(toBytes("aa-000"), true),
        backwards(new ArrayList<>(expected.subMap("aa-000", true, "aa-0105", false).keySet())));
  }

  /** Rows cut by setBatch and by the result size: the pieces together are the row, in order. */
  private void partial(Table table) {
    Scan wideRow = new Scan().withStartRow(toBytes(WIDE_ROW)).withStopRow(toBytes(WIDE_ROW), true);
    checks.run("scan with batch", () -> {
      List<Integer> sizes = new ArrayList<>();
      List<String> found = new ArrayList<>();
      try (ResultScanner scanner = table.getScanner(new Scan(wideRow).setBatch(70))) {
        for (Result result : scanner) {
          sizes.add(result.size());
          found.addAll(Tables.cells(result));
        }
      }
      equal("sizes", List.of(70, 70, 70, 70, 20), sizes);
      equal("cells", expected.get(WIDE_ROW), found);
    });
    same(table, "batch 2 over the whole table", new Scan().setBatch(2), allRows());
    checks.run("scan with partial results", () -> {
      int pieces = 0;
      List<String> found = new ArrayList<>();
      Scan scan = new Scan(wideRow).setAllowPartialResults(true).setMaxResultSize(20_000);
      try (ResultScanner scanner = table.getScanner(scan)) {
        for (Result result : scanner) {
          pieces++;
          found.addAll(Tables.cells(result));
          equal("more cells to come", found.size() < WIDE_COLUMNS,
              result.mayHaveMoreCellsInRow());
        }
      }
      isTrue(pieces + " pieces are more than 5", pieces > 5);
      equal("cells", expected.get(WIDE_ROW), found);
    });
    checks.run("a row over the result size is put together", () -> {
      Scan scan = new Scan(wideRow).setMaxResultSize(20_000);
      try (ResultScanner scanner = table.getScanner(scan)) {
        equal("row", expected.get(WIDE_ROW), Tables.cells(scanner.next()));
        equal("end", null, scanner.next());
      }
    });
  }

  private void ranges(Table table) throws IOException {
    for (String start : List.of("", "15-003", "40-0295", "aa", "ff")) {
      for (String stop : List.of("", "15-003", "6a-001", "d5-029", "ff")) {
        for (boolean inclusive : List.of(true, false)) {
          if (!stop.isEmpty() && start.compareTo(stop) > 0) {
            continue;
          }
          List<String> range = new ArrayList<>(stop.isEmpty()
              ? expected.tailMap(start, inclusive).keySet()
              : expected.subMap(start, inclusive || start.equals(stop), stop,
                  inclusive || start.equals(stop)).keySet());
          equal("[" + start + ", " + stop + "] inclusive " + inclusive, range, rows(table,
              new Scan().withStartRow(toBytes(start), inclusive || start.equals(stop))
                  .withStopRow(toBytes(stop), inclusive || start.equals(stop))));
        }
      }
    }
  }

  private void prefix(Table table) throws IOException {
    for (String prefix : List.of("15-01", "15", "d", "none")) {
      equal(prefix, allRows().stream().filter(row -> row.startsWith(prefix)).toList(),
          rows(table, new Scan().setStartStopRowForPrefixScan(toBytes(prefix))));
    }
  }

  private void interleaved(Table table) throws IOException {
    List<ResultScanner> scanners = new ArrayList<>();
    List<List<String>> found = new ArrayList<>();
    for (int number = 0; number < 10; number++) {
      scanners.add(table.getScanner(new Scan().setCaching(5).setLimit(50)
          .withStartRow(toBytes(Tables.prefix(number)))));
      found.add(new ArrayList<>());
    }
    for (int step = 0; step < 50; step++) {
      for (int number = 0; number < scanners.size(); number++) {
        found.get(number).add(Bytes.toString(scanners.get(number).next().getRow()));
      }
    }
    for (int number = 0; number < scanners.size(); number++) {
      equal("end", null, scanners.get(number).next());
      scanners.get(number).close();
      equal("scanner " + number, from(Tables.prefix(number)).subList(0, 50), found.get(number));
    }
  }

  private void closedEarly(Table table) throws IOException {
    for (int round = 0; round < 20; round++) {
      try (ResultScanner scanner = table.getScanner(new Scan().setCaching(2))) {
        equal("first", expected.firstKey(), Bytes.toString(scanner.next().getRow()));
      }
    }
  }

  /** The rows and all of their cells, whatever pieces they come in. */
  private void same(Table table, String what, Scan scan, List<String> rows) {
    checks.run("scan: " + what, () -> {
      List<String> cells = rows.stream().flatMap(row -> expected.get(row).stream()).toList();
      equal("cells", cells, cells(table, scan));
      if (scan.getBatch() <= 0) {
        equal("rows", rows, rows(table, scan));
      }
    });
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

  private static List<String> cells(Table table, Scan scan) throws IOException {
    List<String> cells = new ArrayList<>();
    try (ResultScanner scanner = table.getScanner(scan)) {
      for (Result result : scanner) {
        cells.addAll(Tables.cells(result));
      }
    }
    return cells;
  }

  private List<String> allRows() {
    return new ArrayList<>(expected.keySet());
  }

  private List<String> from(String start) {
    return new ArrayList<>(expected.tailMap(start, true).keySet());
  }

  private static List<String> backwards(List<String> rows) {
    List<String> reversed = new ArrayList<>(rows);
    Collections.reverse(reversed);
    return reversed;
  }
}
