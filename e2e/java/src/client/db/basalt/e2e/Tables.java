package db.basalt.e2e;

import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.hbase.Cell;
import org.apache.hadoop.hbase.CellUtil;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Delete;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.RegionLocator;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.TableDescriptor;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.util.Bytes;

/** The table under test: 12 regions, three families; and short words for rows and results. */
final class Tables {
  static final int REGIONS = 12;
  /** All defaults: one version, no expiry. */
  static final byte[] F = toBytes("f");
  /** Keeps three versions. */
  static final byte[] V = toBytes("v");
  static final int V_VERSIONS = 3;
  /** Cells expire. */
  static final byte[] T = toBytes("t");
  static final int T_SECONDS = 2;

  private Tables() {}

  /** The keys at which regions 1 to 11 start: two hex digits, spread evenly. */
  static byte[][] splitKeys() {
    byte[][] keys = new byte[REGIONS - 1][];
    for (int region = 1; region < REGIONS; region++) {
      keys[region - 1] = toBytes(prefix(region));
    }
    return keys;
  }

  /** How the rows of a region begin. */
  static String prefix(int region) {
    return String.format("%02x", region * 256 / REGIONS);
  }

  static byte[] row(int region, String name) {
    return toBytes(prefix(region) + "-" + name);
  }

  static TableDescriptor descriptor(TableName name) {
    return TableDescriptorBuilder.newBuilder(name)
        .setColumnFamily(ColumnFamilyDescriptorBuilder.of(F))
        .setColumnFamily(
            ColumnFamilyDescriptorBuilder.newBuilder(V).setMaxVersions(V_VERSIONS).build())
        .setColumnFamily(
            ColumnFamilyDescriptorBuilder.newBuilder(T).setTimeToLive(T_SECONDS).build())
        .build();
  }

  static void createFresh(Connection connection, TableName name) throws IOException {
    drop(connection, name);
    try (Admin admin = connection.getAdmin();
        RegionLocator locator = connection.getRegionLocator(name)) {
      admin.createTable(descriptor(name), splitKeys());
      Checks.equal("regions of " + name, REGIONS, locator.getAllRegionLocations().size());
    }
  }

  static void drop(Connection connection, TableName name) throws IOException {
    try (Admin admin = connection.getAdmin()) {
      if (admin.tableExists(name)) {
        if (!admin.isTableDisabled(name)) {
          admin.disableTable(name);
        }
        admin.deleteTable(name);
      }
    }
  }

  static void flush(Connection connection, TableName name) throws IOException {
    try (Admin admin = connection.getAdmin()) {
      admin.flush(name);
    }
  }

  static Put put(byte[] row, String qualifier, String value) {
    return new Put(row).addColumn(F, toBytes(qualifier), toBytes(value));
  }

  static Get get(byte[] row, String qualifier) {
    return new Get(row).addColumn(F, toBytes(qualifier));
  }

  static Delete delete(byte[] row, String qualifier) {
    return new Delete(row).addColumns(F, toBytes(qualifier));
  }

  /** The newest value of f:qualifier as text, or null. */
  static String value(Result result, String qualifier) {
    byte[] value = result.getValue(F, toBytes(qualifier));
    return value == null ? null : Bytes.toString(value);
  }

  /** All cells as {@code row/family:qualifier=value}, in the order in which they came. */
  static List<String> cells(Result result) {
    List<String> cells = new ArrayList<>();
    for (Cell cell : result.isEmpty() ? new Cell[0] : result.rawCells()) {
      cells.add(Bytes.toStringBinary(CellUtil.cloneRow(cell)) + "/"
          + Bytes.toString(CellUtil.cloneFamily(cell)) + ":"
          + Bytes.toStringBinary(CellUtil.cloneQualifier(cell)) + "="
          + Bytes.toStringBinary(CellUtil.cloneValue(cell)));
    }
    return cells;
  }
}
