package db.basalt.e2e;

import java.util.Map;
import java.util.TreeMap;
import org.apache.hadoop.hbase.Cell;
import org.apache.hadoop.hbase.CellUtil;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.util.Bytes;

/** Comparing what a writer knows of a row with what the cluster says. */
final class Ledgers {
  private Ledgers() {}

  static void same(String row, TreeMap<String, byte[]> expected, Result result) {
    TreeMap<String, String> found = new TreeMap<>();
    for (Cell cell : result.isEmpty() ? new Cell[0] : result.rawCells()) {
      found.put(Bytes.toString(CellUtil.cloneQualifier(cell)),
          Bytes.toStringBinary(CellUtil.cloneValue(cell)));
    }
    TreeMap<String, String> wanted = new TreeMap<>();
    if (expected != null) {
      for (Map.Entry<String, byte[]> cell : expected.entrySet()) {
        wanted.put(cell.getKey(), Bytes.toStringBinary(cell.getValue()));
      }
    }
    Checks.equal(row, wanted, found);
  }
}
