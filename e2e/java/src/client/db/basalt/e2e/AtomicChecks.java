package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Checks.throwsException;
import static db.basalt.e2e.Tables.F;
import static db.basalt.e2e.Tables.V;
import static db.basalt.e2e.Tables.cells;
import static db.basalt.e2e.Tables.get;
import static db.basalt.e2e.Tables.put;
import static db.basalt.e2e.Tables.row;
import static db.basalt.e2e.Tables.value;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.List;
import org.apache.hadoop.hbase.CompareOperator;
import org.apache.hadoop.hbase.DoNotRetryIOException;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Append;
import org.apache.hadoop.hbase.client.CheckAndMutate;
import org.apache.hadoop.hbase.client.CheckAndMutateResult;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Delete;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Increment;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.RowMutations;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.util.Bytes;

/** Increment, Append, checkAndMutate and mutateRow. */
final class AtomicChecks {
  private static final byte[] N = toBytes("n");

  private final Connection connection;
  private final TableName name;
  private final Checks checks;

  AtomicChecks(Connection connection, TableName name, Checks checks) {
    this.connection = connection;
    this.name = name;
    this.checks = checks;
  }

  // === impl AtomicChecks ===

  void run() throws IOException {
    try (Table table = connection.getTable(name)) {
      checks.run("increment", () -> increment(table));
      checks.run("increment of what is no number", () -> incrementOfText(table));
      checks.run("append", () -> append(table));
      checks.run("checkAndMutate ifNotExists", () -> ifNotExists(table));
      checks.run("checkAndMutate ifEquals", () -> ifEquals(table));
      checks.run("checkAndMutate ifMatches", () -> ifMatches(table));
      checks.run("checkAndMutate with RowMutations", () -> checkAndMutateRow(table));
      checks.run("checkAndMutate with Increment and Append", () -> checkAndCount(table));
      checks.run("checkAndMutate(List)", () -> checkAndMutateList(table));
      checks.run("mutateRow", () -> mutateRow(table));
      checks.run("mutateRow with Increment and Append", () -> mutateRowCounts(table));
    }
  }

  private static void increment(Table table) throws IOException {
    byte[] row = row(0, "increment");
    equal("from nothing", 5L, table.incrementColumnValue(row, F, N, 5));
    equal("up", 12L, table.incrementColumnValue(row, F, N, 7));
    equal("down", -8L, table.incrementColumnValue(row, F, N, -20));
    Result both = table.increment(
        new Increment(row).addColumn(F, N, 1).addColumn(V, toBytes("m"), 100));
    equal("first of two", -7L, Bytes.toLong(both.getValue(F, N)));
    equal("second of two", 100L, Bytes.toLong(both.getValue(V, toBytes("m"))));
    Result none = table.increment(new Increment(row).addColumn(F, N, 1).setReturnResults(false));
    equal("no result wanted", true, none == null || none.isEmpty());
    equal("stored", -6L, Bytes.toLong(table.get(new Get(row)).getValue(F, N)));
  }

  private static void incrementOfText(Table table) throws IOException {
    byte[] row = row(0, "text");
    table.put(put(row, "n", "text"));
    throwsException("increment", DoNotRetryIOException.class,
        () -> table.incrementColumnValue(row, F, N, 1));
    equal("unchanged", "text", value(table.get(new Get(row)), "n"));
  }

  private static void append(Table table) throws IOException {
    byte[] row = row(1, "append");
    byte[] q = toBytes("q");
    equal("to nothing", "one",
        value(table.append(new Append(row).addColumn(F, q, toBytes("one"))), "q"));
    equal("to something", "one,two",
        value(table.append(new Append(row).addColumn(F, q, toBytes(",two"))), "q"));
    Result none = table.append(
        new Append(row).addColumn(F, q, toBytes(",three")).setReturnResults(false));
    equal("no result wanted", true, none == null || none.isEmpty());
    equal("stored", "one,two,three", value(table.get(new Get(row)), "q"));
  }

  private static void ifNotExists(Table table) throws IOException {
    byte[] row = row(2, "not-exists");
    CheckAndMutate first = CheckAndMutate.newBuilder(row).ifNotExists(F, toBytes("q"))
        .build(put(row, "q", "first"));
    equal("absent", true, table.checkAndMutate(first).isSuccess());
    equal("present", false, table.checkAndMutate(first).isSuccess());
    CheckAndMutate second = CheckAndMutate.newBuilder(row).ifNotExists(F, toBytes("q"))
        .build(put(row, "q", "second"));
    equal("still present", false, table.checkAndMutate(second).isSuccess());
    equal("value", "first", value(table.get(new Get(row)), "q"));
  }

  private static void ifEquals(Table table) throws IOException {
    byte[] row = row(3, "equals");
    table.put(put(row, "q", "one"));
    equal("other value", false, table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("two")).build(put(row, "q", "x"))).isSuccess());
    equal("same value", true, table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("one")).build(put(row, "q", "two"))).isSuccess());
    equal("value", "two", value(table.get(new Get(row)), "q"));
    equal("delete", true, table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("two")).build(new Delete(row))).isSuccess());
    equal("gone", true, table.get(new Get(row)).isEmpty());
    equal("null means absent", true, table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), null).build(put(row, "other", "y"))).isSuccess());
  }

  private static void ifMatches(Table table) throws IOException {
    byte[] row = row(4, "matches");
    table.put(put(row, "q", "m"));
    // The condition reads "the given value OP the stored one".
    expectMatch(table, row, CompareOperator.GREATER, "n", true);
    expectMatch(table, row, CompareOperator.GREATER, "m", false);
    expectMatch(table, row, CompareOperator.GREATER_OR_EQUAL, "m", true);
    expectMatch(table, row, CompareOperator.LESS, "a", true);
    expectMatch(table, row, CompareOperator.LESS, "z", false);
    expectMatch(table, row, CompareOperator.LESS_OR_EQUAL, "m", true);
    expectMatch(table, row, CompareOperator.NOT_EQUAL, "m", false);
    expectMatch(table, row, CompareOperator.NOT_EQUAL, "x", true);
    expectMatch(table, row, CompareOperator.EQUAL, "m", true);
  }

  private static void expectMatch(Table table, byte[] row, CompareOperator operator, String given,
      boolean expected) throws IOException {
    equal(given + " " + operator + " m", expected,
        table.checkAndMutate(CheckAndMutate.newBuilder(row)
            .ifMatches(F, toBytes("q"), operator, toBytes(given))
            .build(put(row, "touched", given))).isSuccess());
  }

  private static void checkAndMutateRow(Table table) throws IOException {
    byte[] row = row(5, "check-row");
    table.put(put(row, "q", "one").addColumn(F, toBytes("old"), toBytes("x")));
    RowMutations change = RowMutations.of(
        List.of(put(row, "q", "two"), put(row, "new", "y"), Tables.delete(row, "old")));
    equal("no match", false, table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("none")).build(change)).isSuccess());
    equal("match", true, table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("one")).build(change)).isSuccess());
    String key = Tables.prefix(5) + "-check-row/f:";
    equal("all of it", List.of(key + "new=y", key + "q=two"),
        cells(table.get(new Get(row))));
  }

  private static void checkAndCount(Table table) throws IOException {
    byte[] row = row(6, "check-count");
    table.put(put(row, "q", "go"));
    CheckAndMutateResult increment = table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("go")).build(new Increment(row).addColumn(F, N, 3)));
    equal("increment", true, increment.isSuccess());
    equal("increment's result", 3L, Bytes.toLong(increment.getResult().getValue(F, N)));
    CheckAndMutateResult append = table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("go"))
        .build(new Append(row).addColumn(F, toBytes("q"), toBytes("ne"))));
    equal("append", true, append.isSuccess());
    equal("append's result", "gone", value(append.getResult(), "q"));
    CheckAndMutateResult refused = table.checkAndMutate(CheckAndMutate.newBuilder(row)
        .ifEquals(F, toBytes("q"), toBytes("go")).build(new Increment(row).addColumn(F, N, 3)));
    equal("refused", false, refused.isSuccess());
    equal("count", 3L, Bytes.toLong(table.get(new Get(row)).getValue(F, N)));
  }

  private static void checkAndMutateList(Table table) throws IOException {
    byte[] one = row(7, "list");
    byte[] two = row(8, "list");
    table.put(put(one, "q", "a"));
    List<CheckAndMutateResult> results = table.checkAndMutate(List.of(
        CheckAndMutate.newBuilder(one).ifEquals(F, toBytes("q"), toBytes("a"))
            .build(put(one, "q", "b")),
        CheckAndMutate.newBuilder(two).ifEquals(F, toBytes("q"), toBytes("a"))
            .build(put(two, "q", "b")),
        CheckAndMutate.newBuilder(two).ifNotExists(F, toBytes("z")).build(put(two, "z", "c"))));
    equal("successes", List.of(true, false, true),
        results.stream().map(CheckAndMutateResult::isSuccess).toList());
    equal("first", "b", value(table.get(get(one, "q")), "q"));
    equal("second", null, value(table.get(get(two, "q")), "q"));
    equal("third", "c", value(table.get(get(two, "z")), "z"));
  }

  private static void mutateRow(Table table) throws IOException {
    byte[] row = row(9, "mutate-row");
    table.put(put(row, "old", "x").addColumn(V, toBytes("old"), toBytes("x")));
    table.mutateRow(RowMutations.of(List.of(put(row, "new", "y"), Tables.delete(row, "old"),
        new Delete(row).addFamily(V))));
    equal("row", List.of(Tables.prefix(9) + "-mutate-row/f:new=y"),
        cells(table.get(new Get(row))));
  }

  private static void mutateRowCounts(Table table) throws IOException {
    byte[] row = row(10, "mutate-counts");
    table.put(put(row, "q", "a").addColumn(F, toBytes("old"), toBytes("x")));
    Result result = table.mutateRow(RowMutations.of(List.of(
        new Increment(row).addColumn(F, N, 2),
        new Append(row).addColumn(F, toBytes("q"), toBytes("b")),
        Tables.delete(row, "old"))));
    equal("increment's result", 2L, Bytes.toLong(result.getValue(F, N)));
    equal("append's result", "ab", value(result, "q"));
    Result stored = table.get(new Get(row));
    equal("cells", 2, stored.size());
    equal("stored", "ab", value(stored, "q"));
  }
}
