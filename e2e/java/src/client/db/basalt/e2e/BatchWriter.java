package db.basalt.e2e;

import static db.basalt.e2e.Tables.F;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.TreeMap;
import org.apache.hadoop.hbase.client.Append;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Increment;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.Row;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.util.Bytes;

/** Table.batch over all regions, with rows of its own: put, get, delete, increment, append. */
final class BatchWriter {
  private static final int KINDS = 5;
  private static final int LOG_LENGTH_MAX = 2000;
  private static final int PACE_MS = 20;

  private final Table table;
  private final Timeline timeline;
  private final TreeMap<String, TreeMap<String, byte[]>> ledger;
  private final String name;
  private final boolean emptyRepeats;
  private long sequence;
  private String log = "";

  BatchWriter(Table table, int number, Timeline timeline,
      TreeMap<String, TreeMap<String, byte[]>> ledger, boolean emptyRepeats) {
    this.table = table;
    this.timeline = timeline;
    this.ledger = ledger;
    this.name = "batch-" + number;
    this.emptyRepeats = emptyRepeats;
  }

  // === impl BatchWriter ===

  void step() throws IOException, InterruptedException {
    sequence++;
    String piece = sequence + ";";
    byte[] written = toBytes("batch " + sequence);
    boolean reset = log.length() > LOG_LENGTH_MAX;
    List<Row> actions = new ArrayList<>();
    for (int region = 0; region < Tables.REGIONS; region++) {
      actions.add(new Put(row(region, "put")).addColumn(F, toBytes("n"), written));
      actions.add(new Get(row(region, "previous")));
      actions.add(Tables.delete(row(region, "deleted"), "n"));
      actions.add(new Increment(row(region, "counter")).addColumn(F, toBytes("n"), 1));
      actions.add(reset ? new Put(row(region, "log")).addColumn(F, toBytes("n"), toBytes(piece))
          : new Append(row(region, "log")).addColumn(F, toBytes("n"), toBytes(piece)));
    }
    Object[] results = new Object[actions.size()];
    timeline.time("batch", -1, () -> {
      try {
        table.batch(actions, results);
      } catch (InterruptedException interrupted) {
        throw new IOException(interrupted);
      }
      return null;
    });
    log = reset ? piece : log + piece;
    for (int region = 0; region < Tables.REGIONS; region++) {
      compare(region, results, reset);
      remember(region, "put", written);
      remember(region, "counter", Bytes.toBytes(sequence));
      remember(region, "log", toBytes(log));
    }
    refill(written);
    Thread.sleep(PACE_MS);
  }

  private void compare(int region, Object[] results, boolean reset) {
    int at = region * KINDS;
    String previous = Bytes.toString(row(region, "previous"));
    Ledgers.same(previous, ledger.get(previous), (Result) results[at + 1]);
    answer("increment", region, "counter", Bytes.toBytes(sequence), (Result) results[at + 3]);
    if (!reset) {
      answer("append", region, "log", toBytes(log), (Result) results[at + 4]);
    }
  }

  private void answer(String kind, int region, String rowKind, byte[] expected, Result result) {
    if (result.isEmpty() && emptyRepeats) {
      timeline.count(kind + " answered empty");
      return;
    }
    TreeMap<String, byte[]> cells = new TreeMap<>();
    cells.put("n", expected);
    Ledgers.same(Bytes.toString(row(region, rowKind)), cells, result);
  }

  /** put(List): the rows that the next batch reads, and those that it deletes. */
  private void refill(byte[] written) throws IOException, InterruptedException {
    // In Apache HBase a delete hides a put of the same millisecond, even a later one.
    Thread.sleep(2);
    List<Put> puts = new ArrayList<>();
    for (int region = 0; region < Tables.REGIONS; region++) {
      puts.add(new Put(row(region, "previous")).addColumn(F, toBytes("n"), written));
      puts.add(new Put(row(region, "deleted")).addColumn(F, toBytes("n"), written));
    }
    timeline.time("put-list", -1, () -> {
      table.put(puts);
      return null;
    });
    for (int region = 0; region < Tables.REGIONS; region++) {
      remember(region, "previous", written);
      remember(region, "deleted", written);
    }
  }

  private byte[] row(int region, String kind) {
    return Tables.row(region, name + "-" + kind);
  }

  private void remember(int region, String kind, byte[] value) {
    ledger.computeIfAbsent(Bytes.toString(row(region, kind)), key -> new TreeMap<>())
        .put("n", value);
  }
}
