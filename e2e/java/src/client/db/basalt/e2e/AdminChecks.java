package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Checks.isTrue;
import static db.basalt.e2e.Checks.throwsException;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Pattern;
import org.apache.hadoop.hbase.HRegionLocation;
import org.apache.hadoop.hbase.InvalidFamilyOperationException;
import org.apache.hadoop.hbase.NamespaceDescriptor;
import org.apache.hadoop.hbase.NamespaceNotFoundException;
import org.apache.hadoop.hbase.TableExistsException;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.TableNotDisabledException;
import org.apache.hadoop.hbase.TableNotEnabledException;
import org.apache.hadoop.hbase.TableNotFoundException;
import org.apache.hadoop.hbase.client.Admin;
import org.apache.hadoop.hbase.client.ColumnFamilyDescriptorBuilder;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Get;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.RegionInfo;
import org.apache.hadoop.hbase.client.RegionLocator;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.client.TableDescriptor;
import org.apache.hadoop.hbase.client.TableDescriptorBuilder;
import org.apache.hadoop.hbase.regionserver.NoSuchColumnFamilyException;
import org.apache.hadoop.hbase.util.Bytes;

/** The life of a table, in order: absent, created, disabled, enabled, altered, deleted. */
final class AdminChecks {
  private final Connection connection;
  private final TableName name;
  private final Checks checks;

  AdminChecks(Connection connection, TableName name, Checks checks) {
    this.connection = connection;
    this.name = name;
    this.checks = checks;
  }

  // === impl AdminChecks ===

  void run() throws IOException {
    Tables.drop(connection, name);
    try (Admin admin = connection.getAdmin()) {
      checks.run("an absent table", () -> absent(admin));
      checks.run("create", () -> create(admin));
      checks.run("describe", () -> describe(admin));
      checks.run("list", () -> list(admin));
      checks.run("regions and their locations", () -> regions(admin));
      checks.run("namespaces", () -> namespaces(admin));
      checks.run("cluster metrics", () -> isTrue("servers",
          !admin.getClusterMetrics().getLiveServerMetrics().isEmpty()
              && admin.getClusterMetrics().getMasterName() != null));
      checks.run("disable", () -> disable(admin));
      checks.run("enable", () -> enable(admin));
      checks.run("alter", () -> alter(admin));
      checks.run("delete", () -> delete(admin));
      checks.run("create again under the same name", () -> {
        create(admin);
        try (Table table = connection.getTable(name)) {
          equal("empty", true, table.get(new Get(Tables.row(3, "kept"))).isEmpty());
        }
        Tables.drop(connection, name);
      });
    }
  }

  private void absent(Admin admin) throws IOException {
    equal("exists", false, admin.tableExists(name));
    throwsException("getDescriptor", TableNotFoundException.class,
        () -> admin.getDescriptor(name));
    throwsException("isTableEnabled", TableNotFoundException.class,
        () -> admin.isTableEnabled(name));
    throwsException("disable", TableNotFoundException.class, () -> admin.disableTable(name));
    throwsException("enable", TableNotFoundException.class, () -> admin.enableTable(name));
    throwsException("delete", TableNotFoundException.class, () -> admin.deleteTable(name));
  }

  private void create(Admin admin) throws IOException {
    admin.createTable(Tables.descriptor(name), Tables.splitKeys());
    equal("exists", true, admin.tableExists(name));
    equal("enabled", true, admin.isTableEnabled(name));
    equal("disabled", false, admin.isTableDisabled(name));
    equal("available", true, admin.isTableAvailable(name));
    throwsException("a second time", TableExistsException.class,
        () -> admin.createTable(Tables.descriptor(name), Tables.splitKeys()));
    throwsException("namespace", NamespaceNotFoundException.class, () -> admin
        .createTable(Tables.descriptor(TableName.valueOf("no_such_namespace", "table"))));
  }

  private void describe(Admin admin) throws IOException {
    TableDescriptor found = admin.getDescriptor(name);
    TableDescriptor expected = Tables.descriptor(name);
    equal("name", name, found.getTableName());
    equal("families", Arrays.toString(expected.getColumnFamilies()),
        Arrays.toString(found.getColumnFamilies()));
  }

  private void list(Admin admin) throws IOException {
    isTrue("listTableNames", List.of(admin.listTableNames()).contains(name));
    isTrue("listTableDescriptors", admin.listTableDescriptors().stream()
        .anyMatch(table -> table.getTableName().equals(name)));
    equal("by pattern", List.of(name), List.of(
        admin.listTableNames(Pattern.compile(Pattern.quote(name.getNameAsString())))));
    equal("descriptors by name", 1, admin.listTableDescriptors(List.of(name)).size());
    isTrue("by namespace", List.of(admin.listTableNamesByNamespace("default")).contains(name));
  }

  private void regions(Admin admin) throws IOException {
    List<String> starts = new ArrayList<>(List.of(""));
    for (byte[] key : Tables.splitKeys()) {
      starts.add(Bytes.toString(key));
    }
    List<RegionInfo> regions = admin.getRegions(name);
    equal("getRegions", starts,
        regions.stream().map(region -> Bytes.toString(region.getStartKey())).toList());
    try (RegionLocator locator = connection.getRegionLocator(name)) {
      equal("start keys", starts,
          Arrays.stream(locator.getStartKeys()).map(Bytes::toString).toList());
      for (HRegionLocation location : locator.getAllRegionLocations()) {
        isTrue("server of " + location, location.getServerName() != null);
        isTrue("sequence number of " + location, location.getSeqNum() >= 0);
      }
      for (int region = 0; region < Tables.REGIONS; region++) {
        HRegionLocation location = locator.getRegionLocation(Tables.row(region, "x"), true);
        equal("region of a row", starts.get(region),
            Bytes.toString(location.getRegion().getStartKey()));
      }
    }
  }

  private static void namespaces(Admin admin) throws IOException {
    List<String> found = Arrays.stream(admin.listNamespaceDescriptors())
        .map(NamespaceDescriptor::getName).sorted().toList();
    equal("namespaces", true, found.containsAll(List.of("default", "hbase")));
  }

  private void disable(Admin admin) throws IOException {
    try (Table table = connection.getTable(name)) {
      table.put(Tables.put(Tables.row(3, "kept"), "q", "x"));
      admin.disableTable(name);
      equal("disabled", true, admin.isTableDisabled(name));
      equal("enabled", false, admin.isTableEnabled(name));
      throwsException("get", TableNotEnabledException.class,
          () -> table.get(new Get(Tables.row(3, "kept"))));
      throwsException("disable again", TableNotEnabledException.class,
          () -> admin.disableTable(name));
    }
  }

  private void enable(Admin admin) throws IOException {
    admin.enableTable(name);
    equal("enabled", true, admin.isTableEnabled(name));
    throwsException("enable again", TableNotDisabledException.class,
        () -> admin.enableTable(name));
    try (Table table = connection.getTable(name)) {
      equal("data", "x", Tables.value(table.get(new Get(Tables.row(3, "kept"))), "q"));
      table.put(Tables.put(toBytes("zz"), "q", "y"));
    }
  }

  private void alter(Admin admin) throws IOException {
    byte[] added = toBytes("added");
    admin.addColumnFamily(name, ColumnFamilyDescriptorBuilder.of(added));
    throwsException("add it again", InvalidFamilyOperationException.class,
        () -> admin.addColumnFamily(name, ColumnFamilyDescriptorBuilder.of(added)));
    byte[] row = Tables.row(3, "kept");
    try (Table table = connection.getTable(name)) {
      table.put(new Put(row).addColumn(added, toBytes("q"), toBytes("new")));
      equal("in the new family", "new", Bytes.toString(table.get(new Get(row)).getValue(added, toBytes("q"))));
      equal("in the old one", "x", Tables.value(table.get(new Get(row)), "q"));
      admin.modifyColumnFamily(name,
          ColumnFamilyDescriptorBuilder.newBuilder(added).setMaxVersions(5).build());
      equal("versions", 5, admin.getDescriptor(name).getColumnFamily(added).getMaxVersions());
      admin.modifyTable(TableDescriptorBuilder.newBuilder(admin.getDescriptor(name))
          .setValue("OWNER", "e2e").build());
      equal("a value of the table", "e2e", admin.getDescriptor(name).getValue("OWNER"));
      admin.deleteColumnFamily(name, added);
      throwsException("put into the deleted one", NoSuchColumnFamilyException.class,
          () -> table.put(new Put(row).addColumn(added, toBytes("q"), toBytes("late"))));
      admin.addColumnFamily(name, ColumnFamilyDescriptorBuilder.of(added));
      equal("a family of the same name", null,
          table.get(new Get(row)).getValue(added, toBytes("q")));
      equal("what was there", "x", Tables.value(table.get(new Get(row)), "q"));
    }
  }

  private void delete(Admin admin) throws IOException {
    throwsException("while enabled", TableNotDisabledException.class,
        () -> admin.deleteTable(name));
    admin.disableTable(name);
    admin.deleteTable(name);
    equal("exists", false, admin.tableExists(name));
    try (Table table = connection.getTable(name)) {
      throwsException("get", TableNotFoundException.class,
          () -> table.get(new Get(Tables.row(3, "kept"))));
    }
  }
}
