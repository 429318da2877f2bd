package db.basalt.e2e;

import static db.basalt.e2e.Checks.equal;
import static db.basalt.e2e.Tables.F;
import static org.apache.hadoop.hbase.util.Bytes.toBytes;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import org.apache.hadoop.hbase.CompareOperator;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.filter.Filter;
import org.apache.hadoop.hbase.filter.FilterList;
import org.apache.hadoop.hbase.filter.FirstKeyOnlyFilter;
import org.apache.hadoop.hbase.filter.KeyOnlyFilter;
import org.apache.hadoop.hbase.filter.PageFilter;
import org.apache.hadoop.hbase.filter.PrefixFilter;
import org.apache.hadoop.hbase.filter.SingleColumnValueFilter;

/** The filters that YCSB, PerformanceEvaluation and the shell's count use. */
final class FilterChecks {
  private static final int ROWS_PER_REGION = 5;

  private final Connection connection;
  private final TableName name;
  private final Checks checks;

  FilterChecks(Connection connection, TableName name, Checks checks) {
    this.connection = connection;
    this.name = name;
    this.checks = checks;
  }

  // === impl FilterChecks ===

  void run() throws IOException {
    int all = Tables.REGIONS * ROWS_PER_REGION;
    try (Table table = connection.getTable(name)) {
      List<Put> puts = new ArrayList<>();
      for (int number = 0; number < all; number++) {
        byte[] row = Tables.row(number % Tables.REGIONS, "filter-" + number / Tables.REGIONS);
        puts.add(Tables.put(row, "a", Integer.toString(number % 10))
            .addColumn(F, toBytes("b"), toBytes("value")));
      }
      table.put(puts);
      checks.run("FirstKeyOnlyFilter", () -> count(table, new FirstKeyOnlyFilter(), all, all));
      checks.run("KeyOnlyFilter", () -> count(table, new KeyOnlyFilter(), all, 2 * all));
      checks.run("PrefixFilter",
          () -> count(table, new PrefixFilter(toBytes(Tables.prefix(4))), ROWS_PER_REGION,
              2 * ROWS_PER_REGION));
      checks.run("SingleColumnValueFilter", () -> count(table, column("3"), 6, 12));
      checks.run("FilterList of PageFilter, with a limit",
          () -> equal("rows", 20, scan(table, new Scan().setCaching(20).setLimit(20)
              .setFilter(new FilterList(new PageFilter(20)))).size()));
      checks.run("FilterList MUST_PASS_ONE", () -> count(table,
          new FilterList(FilterList.Operator.MUST_PASS_ONE, column("3"), column("4")), 12, 24));
      checks.run("FilterList MUST_PASS_ALL", () -> count(table,
          new FilterList(column("3"), new FirstKeyOnlyFilter()), 6, 6));
    }
  }

  private static Filter column(String value) {
    return new SingleColumnValueFilter(F, toBytes("a"), CompareOperator.EQUAL, toBytes(value));
  }

  private static void count(Table table, Filter filter, int rows, int cells) throws IOException {
    List<Result> results = scan(table, new Scan().setFilter(filter));
    equal("rows", rows, results.size());
    equal("cells", cells, results.stream().mapToInt(Result::size).sum());
  }

  private static List<Result> scan(Table table, Scan scan) throws IOException {
    List<Result> results = new ArrayList<>();
    try (ResultScanner scanner = table.getScanner(scan)) {
      scanner.forEach(results::add);
    }
    return results;
  }
}
