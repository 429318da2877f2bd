package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Checks.isTrue;
import static db.basalt.e2e.Tables.F;
import static db.basalt.e2e.Tables.get;
import static db.basalt.e2e.Tables.put;
import static db.basalt.e2e.Tables.row;
import static db.basalt.e2e.Tables.value;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Append;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Increment;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.RetriesExhaustedWithDetailsException;
import org.apache.hadoop.hbase.client.Row;
import org.apache.hadoop.hbase.client.RowMutations;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.regionserver.NoSuchColumnFamilyException;
import org.apache.hadoop.hbase.util.Bytes;

/** Table.batch: actions of all kinds over all regions in one call. */
final class BatchChecks {
  private final Connection connection;
  private final TableName name;
  private final Checks checks;

  BatchChecks(Connection connection, TableName name, Checks checks) {
    this.connection = connection;
    this.name = name;
    this.checks = checks;
  }

  // === impl BatchChecks ===

  void run() throws IOException {
    try (Table table = connection.getTable(name)) {
      checks.run("batch of all kinds over all regions", () -> allKinds(table));
      checks.run("batch of many reads and writes", () -> many(table));
      checks.run("one failure in a batch leaves the others", () -> oneFails(table));
    }
  }

  private static void allKinds(Table table) throws IOException, InterruptedException {
    List<Put> before = new ArrayList<>();
    for (int region = 0; region < Tables.REGIONS; region++) {
      before.add(put(row(region, "batch-get"), "q", "old " + region));
      before.add(put(row(region, "batch-delete"), "q", "x"));
      before.add(put(row(region, "batch-append"), "q", "a"));
      before.add(put(row(region, "batch-row"), "q", "x"));
    }
    table.put(before);
    List<Row> actions = new ArrayList<>();
    for (int region = 0; region < Tables.REGIONS; region++) {
      byte[] mutated = row(region, "batch-row");
      actions.add(put(row(region, "batch-put"), "q", "new " + region));
      actions.add(get(row(region, "batch-get"), "q"));
      actions.add(Tables.delete(row(region, "batch-delete"), "q"));
      actions.add(new Increment(row(region, "batch-count")).addColumn(F, toBytes("n"), region));
      actions.add(
          new Append(row(region, "batch-append")).addColumn(F, toBytes("q"), toBytes("b")));
      actions.add(RowMutations.of(
          List.of(put(mutated, "r", "y"), Tables.delete(mutated, "q"))));
    }
    Object[] results = new Object[actions.size()];
    table.batch(actions, results);
    for (int region = 0; region < Tables.REGIONS; region++) {
      int at = region * 6;
      equal("put " + region, true, ((Result) results[at]).isEmpty());
      equal("get " + region, "old " + region, value((Result) results[at + 1], "q"));
      equal("delete " + region, true, ((Result) results[at + 2]).isEmpty());
      equal("increment " + region, (long) region,
          Bytes.toLong(((Result) results[at + 3]).getValue(F, toBytes("n"))));
      equal("append " + region, "ab", value((Result) results[at + 4], "q"));
      isTrue("row mutations " + region, results[at + 5] instanceof Result);
      equal("put is there", "new " + region,
          value(table.get(new Get(row(region, "batch-put"))), "q"));
      equal("delete is there", false, table.exists(new Get(row(region, "batch-delete"))));
      Result mutated = table.get(new Get(row(region, "batch-row")));
      equal("row mutations are there", "y", value(mutated, "r"));
      equal("and nothing else", 1, mutated.size());
    }
  }

  private static void many(Table table) throws IOException, InterruptedException {
    List<Row> writes = new ArrayList<>();
    List<Row> reads = new ArrayList<>();
    for (int number = 0; number < 2000; number++) {
      byte[] row = row(number * 5 % Tables.REGIONS, "many-" + number);
      writes.add(put(row, "q", "m" + number));
      reads.add(new Get(row));
    }
    Object[] results = new Object[writes.size()];
    table.batch(writes, results);
    table.batch(reads, results);
    for (int number = 0; number < results.length; number++) {
      equal("row " + number, "m" + number, value((Result) results[number], "q"));
    }
  }

  private static void oneFails(Table table) throws IOException, InterruptedException {
    byte[] good = row(1, "good");
    byte[] bad = row(1, "bad");
    List<Row> actions = List.of(put(good, "q", "x"),
        new Put(bad).addColumn(toBytes("none"), toBytes("q"), toBytes("x")), get(good, "none"));
    Object[] results = new Object[actions.size()];
    try {
      table.batch(actions, results);
      throw new AssertionError("the unknown family was accepted");
    } catch (RetriesExhaustedWithDetailsException expected) {
      equal("causes", 1, expected.getNumExceptions());
      isTrue("cause is " + expected.getCause(0),
          expected.getCause(0) instanceof NoSuchColumnFamilyException);
    }
    isTrue("put", results[0] instanceof Result);
    isTrue("failed put", results[1] instanceof Throwable);
    isTrue("get", results[2] instanceof Result);
    equal("put is there", "x", value(table.get(new Get(good)), "q"));
  }
}
