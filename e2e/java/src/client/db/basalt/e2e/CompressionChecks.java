package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.io.compress.Compression.Algorithm;

/**
 * A table of one region for each compression, named after it, with as many cells in each. All are
 * flushed, and stay: whoever reads their store files finds these cells.
 */
final class CompressionChecks {
  private static final int CELLS = 500;
  private static final List<Algorithm> ALGORITHMS = List.of(
      Algorithm.NONE, Algorithm.GZ, Algorithm.SNAPPY, Algorithm.LZ4, Algorithm.ZSTD);

  private final Connection connection;
  private final TableName prefix;
  private final Checks checks;

  CompressionChecks(Connection connection, TableName prefix, Checks checks) {
    this.connection = connection;
    this.prefix = prefix;
    this.checks = checks;
  }

  // === impl CompressionChecks ===

  Map<String, Object> run() {
    for (Algorithm algorithm : ALGORITHMS) {
      checks.run(algorithm.getName(), () -> writeAndFlush(algorithm));
    }
    return Map.of("cells", CELLS);
  }

  private void writeAndFlush(Algorithm algorithm) throws IOException {
    TableName name = TableName.valueOf(
        prefix.getNameAsString() + "_" + algorithm.getName().toLowerCase(Locale.ROOT));
    Tables.drop(connection, name);
    try (Admin admin = connection.getAdmin(); Table table = connection.getTable(name)) {
      admin.createTable(TableDescriptorBuilder.newBuilder(name)
          .setColumnFamily(ColumnFamilyDescriptorBuilder.newBuilder(Tables.F)
              .setCompressionType(algorithm).build())
          .build());
      equal("compression", algorithm,
          admin.getDescriptor(name).getColumnFamily(Tables.F).getCompressionType());
      List<Put> puts = new ArrayList<>();
      for (int cell = 0; cell < CELLS; cell++) {
        puts.add(Tables.put(row(cell), "q", value(cell)));
      }
      table.put(puts);
      admin.flush(name);
      for (int cell = 0; cell < CELLS; cell += 50) {
        equal("value", value(cell), Tables.value(table.get(new Get(row(cell))), "q"));
      }
    }
  }

  private static byte[] row(int cell) {
    return toBytes(String.format("row-%06d", cell));
  }

  /** Compresses well, and is not the same in any two cells. */
  private static String value(int cell) {
    return "a value that is written again and again, this time by cell " + cell;
  }
}
