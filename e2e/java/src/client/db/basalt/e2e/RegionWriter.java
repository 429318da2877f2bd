package db.basalt.e2e;

import static db.basalt.e2e.Tables.F;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import org.apache.hadoop.hbase.client.Append;
import org.apache.hadoop.hbase.client.CheckAndMutate;
import org.apache.hadoop.hbase.client.Delete;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Increment;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.util.Bytes;

/** The only writer of the rows {@code <prefix>-r…} of one region: all operations in turn. */
final class RegionWriter {
  private static final int ROWS = 300;
  private static final int LOG_LENGTH_MAX = 2000;
  private static final int PACE_MS = 5;

  private final Table table;
  private final int region;
  private final Timeline timeline;
  private final TreeMap<String, TreeMap<String, byte[]>> ledger;
  private final boolean emptyRepeats;
  private final Random random;
  private final String prefix;
  private long sequence;
  private long counter;
  private String log = "";
  private String checked;

  RegionWriter(Table table, int region, Timeline timeline,
      TreeMap<String, TreeMap<String, byte[]>> ledger, boolean emptyRepeats) {
    this.table = table;
    this.region = region;
    this.emptyRepeats = emptyRepeats;
    this.timeline = timeline;
    this.ledger = ledger;
    this.random = new Random(region);
    this.prefix = Tables.prefix(region) + "-r";
  }

  // === impl RegionWriter ===

  void step() throws IOException, InterruptedException {
    sequence++;
    put();
    get();
    if (sequence % 5 == 0) {
      delete();
    }
    if (sequence % 3 == 0) {
      scan();
    }
    increment();
    append();
    checkAndPut();
    Thread.sleep(PACE_MS);
  }

  private void put() throws IOException {
    String row = prefix + String.format("%04d", sequence % ROWS);
    byte[] value = toBytes("value " + sequence);
    timeline.time("put", region, () -> {
      table.put(new Put(toBytes(row)).addColumn(F, toBytes("q"), value));
      return null;
    });
    ledger.computeIfAbsent(row, key -> new TreeMap<>()).put("q", value);
  }

  private void get() throws IOException {
    String row = prefix + String.format("%04d", random.nextInt(ROWS));
    Result result = timeline.time("get", region, () -> table.get(new Get(toBytes(row))));
    Ledgers.same(row, ledger.get(row), result);
  }

  private void delete() throws IOException, InterruptedException {
    String row = prefix + String.format("%04d", random.nextInt(ROWS));
    timeline.time("delete", region, () -> {
      table.delete(new Delete(toBytes(row)));
      return null;
    });
    ledger.remove(row);
    // In Apache HBase a delete hides a put of the same millisecond, even a later one.
    Thread.sleep(2);
  }

  private void scan() throws IOException {
    String start = prefix + String.format("%04d", random.nextInt(ROWS));
    boolean reversed = random.nextBoolean();
    int limit = 10;
    Scan scan = new Scan().withStartRow(toBytes(start)).setLimit(limit).setCaching(4)
        .setReversed(reversed)
        .withStopRow(toBytes(reversed ? prefix : prefix + "9999"), true);
    List<Result> results = timeline.time("scan", region, () -> {
      List<Result> found = new ArrayList<>();
      try (ResultScanner scanner = table.getScanner(scan)) {
        scanner.forEach(found::add);
      }
      return found;
    });
    Map<String, TreeMap<String, byte[]>> rows = reversed
        ? ledger.subMap(prefix, true, start, true).descendingMap()
        : ledger.subMap(start, true, prefix + "9999", true);
    List<String> expected = rows.keySet().stream().limit(limit).toList();
    Checks.equal("scan from " + start + (reversed ? " backwards" : ""), expected,
        results.stream().map(result -> Bytes.toString(result.getRow())).toList());
    for (Result result : results) {
      String row = Bytes.toString(result.getRow());
      Ledgers.same(row, ledger.get(row), result);
    }
  }

  private void increment() throws IOException {
    String row = prefix + "-counter";
    Result result = timeline.time("increment", region,
        () -> table.increment(new Increment(toBytes(row)).addColumn(F, toBytes("n"), 1)));
    counter++;
    answer("increment", row, Bytes.toBytes(counter), result);
    remember(row, Bytes.toBytes(counter));
  }

  private void append() throws IOException {
    String row = prefix + "-log";
    if (log.length() > LOG_LENGTH_MAX) {
      timeline.time("put", region, () -> {
        table.put(new Put(toBytes(row)).addColumn(F, toBytes("n"), toBytes("")));
        return null;
      });
      log = "";
    }
    String piece = sequence + ";";
    Result result = timeline.time("append", region,
        () -> table.append(new Append(toBytes(row)).addColumn(F, toBytes("n"), toBytes(piece))));
    log += piece;
    answer("append", row, toBytes(log), result);
    remember(row, toBytes(log));
  }

  /**
   * The client sends no nonce with a checkAndPut: if the answer of one that was applied is lost,
   * its repetition finds the new value and says false. So false is right if our value is there.
   */
  private void checkAndPut() throws IOException {
    String row = prefix + "-checked";
    String next = "checked " + sequence;
    CheckAndMutate.Builder builder = CheckAndMutate.newBuilder(toBytes(row));
    CheckAndMutate change = (checked == null ? builder.ifNotExists(F, toBytes("n"))
        : builder.ifEquals(F, toBytes("n"), toBytes(checked)))
        .build(new Put(toBytes(row)).addColumn(F, toBytes("n"), toBytes(next)));
    boolean success = timeline.time("check-and-put", region,
        () -> table.checkAndMutate(change).isSuccess());
    if (!success) {
      timeline.count("check-and-put applied by a lost attempt");
      Result result = table.get(new Get(toBytes(row)));
      Checks.equal(row + " after a refusal", next,
          Bytes.toString(result.getValue(F, toBytes("n"))));
    }
    checked = next;
    remember(row, toBytes(next));
  }

  private void answer(String kind, String row, byte[] expected, Result result) {
    if (result.isEmpty() && emptyRepeats) {
      timeline.count(kind + " answered empty");
      return;
    }
    TreeMap<String, byte[]> cells = new TreeMap<>();
    cells.put("n", expected);
    Ledgers.same(row, cells, result);
  }

  private void remember(String row, byte[] value) {
    ledger.computeIfAbsent(row, key -> new TreeMap<>()).put("n", value);
  }
}
