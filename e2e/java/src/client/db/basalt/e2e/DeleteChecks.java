package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Tables.F;
import static db.basalt.e2e.Tables.V;
import static db.basalt.e2e.Tables.cells;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Delete;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Table;

/** The four kinds of delete, on rows with three versions of two columns in family v. */
final class DeleteChecks {
  private final Connection connection;
  private final TableName name;
  private final Checks checks;

  DeleteChecks(Connection connection, TableName name, Checks checks) {
    this.connection = connection;
    this.name = name;
    this.checks = checks;
  }

  // === impl DeleteChecks ===

  void run() throws IOException {
    try (Table table = connection.getTable(name)) {
      remains(table, "nothing deleted", null, "f:a=1", "v:a=3", "v:a=2", "v:a=1", "v:b=3",
          "v:b=2", "v:b=1");
      remains(table, "one version", delete -> delete.addColumn(V, toBytes("a"), 2), "f:a=1",
          "v:a=3", "v:a=1", "v:b=3", "v:b=2", "v:b=1");
      remains(table, "newest version", delete -> delete.addColumn(V, toBytes("a")), "f:a=1",
          "v:a=2", "v:a=1", "v:b=3", "v:b=2", "v:b=1");
      remains(table, "a column", delete -> delete.addColumns(V, toBytes("a")), "f:a=1", "v:b=3",
          "v:b=2", "v:b=1");
      remains(table, "a column up to a time", delete -> delete.addColumns(V, toBytes("a"), 2),
          "f:a=1", "v:a=3", "v:b=3", "v:b=2", "v:b=1");
      remains(table, "a family", delete -> delete.addFamily(V), "f:a=1");
      remains(table, "a family up to a time", delete -> delete.addFamily(V, 2), "f:a=1", "v:a=3",
          "v:b=3");
      remains(table, "a family's version", delete -> delete.addFamilyVersion(V, 2), "f:a=1",
          "v:a=3", "v:a=1", "v:b=3", "v:b=1");
      remains(table, "the row", delete -> delete);
      remains(table, "several at once",
          delete -> delete.addColumns(F, toBytes("a")).addColumn(V, toBytes("a"), 1)
              .addColumns(V, toBytes("b"), 2), "v:a=3", "v:a=2", "v:b=3");
      checks.run("delete(List) over all regions", () -> list(table));
      checks.run("a put after a delete is seen", () -> putAfterDelete(table));
    }
  }

  private interface Change {
    Delete apply(Delete delete);
  }

  private void remains(Table table, String what, Change change, String... expected) {
    checks.run("delete: " + what, () -> {
      byte[] row = Tables.row(10, what);
      for (long time = 1; time <= 3; time++) {
        table.put(new Put(row).addColumn(V, toBytes("a"), time, toBytes(Long.toString(time)))
            .addColumn(V, toBytes("b"), time, toBytes(Long.toString(time))));
      }
      table.put(new Put(row).addColumn(F, toBytes("a"), 1, toBytes("1")));
      if (change != null) {
        table.delete(change.apply(new Delete(row)));
      }
      String key = Tables.prefix(10) + "-" + what + "/";
      equal("remains", Arrays.stream(expected).map(cell -> key + cell).toList(),
          cells(table.get(new Get(row).readAllVersions())));
    });
  }

  private static void list(Table table) throws IOException {
    List<Put> puts = new ArrayList<>();
    List<Delete> deletes = new ArrayList<>();
    List<Get> gets = new ArrayList<>();
    for (int region = 0; region < Tables.REGIONS; region++) {
      for (int number = 0; number < 4; number++) {
        byte[] row = Tables.row(region, "delete-" + number);
        puts.add(Tables.put(row, "q", "x"));
        gets.add(new Get(row));
        if (number % 2 == 0) {
          deletes.add(new Delete(row));
        }
      }
    }
    table.put(puts);
    table.delete(deletes);
    boolean[] exists = table.exists(gets);
    for (int index = 0; index < exists.length; index++) {
      equal("row " + index, index % 2 == 1, exists[index]);
    }
  }

  private static void putAfterDelete(Table table) throws IOException, InterruptedException {
    byte[] row = Tables.row(11, "again");
    for (int round = 0; round < 5; round++) {
      table.put(Tables.put(row, "q", "round " + round));
      equal("put", "round " + round, Tables.value(table.get(new Get(row)), "q"));
      table.delete(new Delete(row));
      equal("deleted", true, table.get(new Get(row)).isEmpty());
      // In Apache HBase a delete hides a put of the same millisecond, even a later one.
      Thread.sleep(2);
    }
  }
}
