package db.basalt.e2e;

import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.Increment;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.util.Bytes;

/**
 * Load on all regions while a region server is killed. One thread for each region does every kind
 * of operation there in turn, two write batches over all regions, one scans the whole table. Each
 * row has one writer that knows what it must hold, so every answer is compared at once and
 * everything again at the end. One counter is shared: increments are never applied twice.
 *
 * <p>What must hold: no exception reaches the program, nothing acknowledged is lost or doubled.
 */
final class AcrossKill {
  private static final int BATCH_WRITERS = 2;
  private static final int SHARED_COUNTERS = 3;
  private static final byte[] SHARED = Tables.row(5, "shared-counter");

  private final Connection connection;
  private final Options options;
  private final Checks checks;
  private final Timeline timeline = new Timeline();
  private final AtomicBoolean stop = new AtomicBoolean();
  private final AtomicBoolean writerFailed = new AtomicBoolean();
  private final Set<String> failed = ConcurrentHashMap.newKeySet();
  private final AtomicLong sharedIncrements = new AtomicLong();
  /** Every row that the writers own and what it must hold: f:qualifier → value. */
  private final List<TreeMap<String, TreeMap<String, byte[]>>> ledgers = new ArrayList<>();

  AcrossKill(Connection connection, Options options, Checks checks) {
    this.connection = connection;
    this.options = options;
    this.checks = checks;
  }

  // === impl AcrossKill ===

  Map<String, Object> run() throws Exception {
    List<Thread> threads = new ArrayList<>();
    boolean emptyRepeats = options.number("--empty-repeats", 0) == 1;
    for (int region = 0; region < Tables.REGIONS; region++) {
      int number = region;
      TreeMap<String, TreeMap<String, byte[]>> ledger = newLedger();
      threads.add(thread("region " + region, ledger, table -> {
        RegionWriter writer = new RegionWriter(table, number, timeline, ledger, emptyRepeats);
        return writer::step;
      }));
    }
    for (int writer = 0; writer < BATCH_WRITERS; writer++) {
      int number = writer;
      TreeMap<String, TreeMap<String, byte[]>> ledger = newLedger();
      threads.add(thread("batch " + writer, ledger, table -> {
        BatchWriter batches = new BatchWriter(table, number, timeline, ledger, emptyRepeats);
        return batches::step;
      }));
    }
    for (int counter = 0; counter < SHARED_COUNTERS; counter++) {
      threads.add(
          thread("shared " + counter, new TreeMap<>(), table -> () -> incrementShared(table)));
    }
    threads.add(thread("scan", new TreeMap<>(), table -> () -> scanAll(table)));
    timeline.begin();
    threads.forEach(Thread::start);
    runKill();
    Thread.sleep(Math.max(0,
        TimeUnit.SECONDS.toMillis(options.number("--seconds", 30)) - timeline.now()));
    stop.set(true);
    join(threads);
    Map<String, Object> summary = new LinkedHashMap<>(timeline.summary());
    summary.put("shared_increments", sharedIncrements.get());
    summary.put("verified_rows", verify());
    return summary;
  }

  // --- the threads -------------------------------------------------------------------------------

  private interface Work {
    Checks.Check on(Table table);
  }

  private TreeMap<String, TreeMap<String, byte[]>> newLedger() {
    TreeMap<String, TreeMap<String, byte[]>> ledger = new TreeMap<>();
    ledgers.add(ledger);
    return ledger;
  }

  /** The first failure ends a thread: what its rows hold is no longer known, nor compared. */
  private Thread thread(String name, TreeMap<String, TreeMap<String, byte[]>> ledger, Work work) {
    Thread thread = new Thread(() -> {
      try (Table table = connection.getTable(options.table())) {
        Checks.Check step = work.on(table);
        while (!stop.get()) {
          step.run();
        }
      } catch (Exception | AssertionError failure) {
        checks.fail(name + " at " + timeline.now() + " ms", failure);
        failed.addAll(ledger.keySet());
        writerFailed.set(true);
      }
    }, name);
    thread.setDaemon(true);
    return thread;
  }

  private void runKill() throws IOException, InterruptedException {
    String command = options.named().get("--kill");
    if (command == null) {
      return;
    }
    Thread.sleep(TimeUnit.SECONDS.toMillis(options.number("--kill-after-s", 5)));
    timeline.kill();
    Process process = new ProcessBuilder("bash", "-c", command)
        .redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.to(
            new java.io.File(options.named().getOrDefault("--kill-log", "/dev/null")))).start();
    long limit = options.number("--kill-max-s", 30);
    if (!process.waitFor(limit, TimeUnit.SECONDS) || process.exitValue() != 0) {
      process.destroy();
      throw new IllegalStateException("the kill command failed: " + command);
    }
  }

  private void join(List<Thread> threads) throws InterruptedException {
    long deadline =
        timeline.now() + TimeUnit.SECONDS.toMillis(options.number("--drain-s", 300));
    for (Thread thread : threads) {
      thread.join(Math.max(1, deadline - timeline.now()));
      if (thread.isAlive()) {
        checks.fail(thread.getName(), new AssertionError("an operation did not end"));
      }
    }
  }

  private void incrementShared(Table table) throws Exception {
    timeline.time("increment-shared", -1,
        () -> table.increment(new Increment(SHARED).addColumn(Tables.F, Bytes.toBytes("n"), 1)));
    sharedIncrements.incrementAndGet();
    Thread.sleep(5);
  }

  /** Rows come and go meanwhile, but always in order and never twice. */
  private void scanAll(Table table) throws Exception {
    timeline.time("scan-all", -1, () -> {
      byte[] last = {};
      try (ResultScanner scanner = table.getScanner(new Scan().setCaching(100))) {
        for (Result result : scanner) {
          if (Bytes.compareTo(last, result.getRow()) >= 0) {
            throw new AssertionError(Bytes.toString(result.getRow()) + " after "
                + Bytes.toString(last));
          }
          last = result.getRow();
        }
      }
      return null;
    });
    Thread.sleep(50);
  }

  // --- the end -----------------------------------------------------------------------------------

  private int verify() throws IOException {
    TreeMap<String, TreeMap<String, byte[]>> expected = new TreeMap<>();
    ledgers.forEach(expected::putAll);
    TreeMap<String, byte[]> counter = new TreeMap<>();
    counter.put("n", Bytes.toBytes(sharedIncrements.get()));
    expected.put(Bytes.toString(SHARED), counter);
    expected.values().removeIf(Map::isEmpty);
    expected.keySet().removeAll(failed);
    int rows = 0;
    try (Table table = connection.getTable(options.table());
        ResultScanner scanner = table.getScanner(new Scan())) {
      for (Result result : scanner) {
        String row = Bytes.toString(result.getRow());
        TreeMap<String, byte[]> cells = expected.remove(row);
        if (cells == null && writerFailed.get()) {
          continue;
        }
        if (cells == null) {
          checks.fail("at the end", new AssertionError(row + " must not exist: "
              + Tables.cells(result)));
          continue;
        }
        rows++;
        checks.run("row " + row, () -> Ledgers.same(row, cells, result));
      }
    }
    expected.keySet().forEach(
        row -> checks.fail("at the end", new AssertionError(row + " is lost")));
    return rows;
  }
}
