package db.basalt.e2e;

import java.io.IOException;
import java.nio.file.Files;
import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.util.VersionInfo;

/**
 * The stock Apache HBase client, used as an application uses it, against whatever speaks its
 * protocol. Every answer is compared with what was written; nothing is skipped. Prints one JSON
 * summary to standard output; exit code 0 only if all was right.
 */
public final class StockClient {
  private StockClient() {}

  public static void main(String[] arguments) throws Exception {
    Options options;
    try {
      options = Options.parse(arguments);
    } catch (IllegalArgumentException wrong) {
      System.err.println("StockClient: " + wrong.getMessage() + "\n" + Options.USAGE);
      System.exit(2);
      return;
    }
    Checks checks = new Checks();
    Map<String, Object> summary = new LinkedHashMap<>();
    summary.put("scenario", options.scenario());
    summary.put("registry", options.registry());
    summary.put("client", VersionInfo.getVersion());
    long start = System.nanoTime();
    try (Connection connection = ConnectionFactory.createConnection(options.configuration())) {
      summary.putAll(run(options, connection, checks));
    } catch (Exception | AssertionError unexpected) {
      checks.fail(options.scenario(), unexpected);
    }
    summary.put("ms", (System.nanoTime() - start) / 1_000_000);
    summary.putAll(checks.summary());
    report(options, summary);
    System.exit(checks.passed() ? 0 : 1);
  }

  private static Map<String, Object> run(Options options, Connection connection, Checks checks)
      throws Exception {
    switch (options.scenario()) {
      case "create" -> Tables.createFresh(connection, options.table());
      case "crud" -> {
        Tables.createFresh(connection, options.table());
        new ReadWriteChecks(connection, options.table(), checks).run();
        new DeleteChecks(connection, options.table(), checks).run();
        new AtomicChecks(connection, options.table(), checks).run();
        new BatchChecks(connection, options.table(), checks).run();
        new ScanChecks(connection, options.table(), checks).run();
        new AsyncChecks(options.configuration(), options.table(), checks).run();
        new RuleChecks(connection, options.table(), checks).run();
      }
      case "filters" -> {
        Tables.createFresh(connection, options.table());
        new FilterChecks(connection, options.table(), checks).run();
      }
      case "admin" -> new AdminChecks(connection, options.table(), checks).run();
      case "compressions" -> {
        return new CompressionChecks(connection, options.table(), checks).run();
      }
      case "flush" -> Tables.flush(connection, options.table());
      case "across-kill" -> {
        Tables.createFresh(connection, options.table());
        return new AcrossKill(connection, options, checks).run();
      }
      default -> throw new IllegalArgumentException("no such scenario: " + options.scenario());
    }
    return Map.of();
  }

  private static void report(Options options, Map<String, Object> summary) throws IOException {
    String json = Json.of(summary);
    System.out.println(json);
    if (options.jsonFile() != null) {
      Files.writeString(options.jsonFile(), json + "\n");
    }
  }
}
