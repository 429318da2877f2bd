package db.basalt.e2e;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** How long each operation took, and how long each region went without a success. */
final class Timeline {
  private static final int SAMPLES_MAX = 200_000;

  /** An operation of the client. */
  interface Operation<T> {
    T run() throws IOException;
  }

  private final Map<String, List<Long>> micros = new TreeMap<>();
  private final Map<String, Long> operations = new TreeMap<>();
  private final Map<String, Long> counts = new TreeMap<>();
  private final long[] lastSuccess = new long[Tables.REGIONS];
  private final long[] longestGap = new long[Tables.REGIONS];
  private long start;
  private long killedAt = -1;

  // === impl Timeline ===

  void begin() {
    start = System.nanoTime();
    Arrays.fill(lastSuccess, 0);
  }

  long now() {
    return (System.nanoTime() - start) / 1_000_000;
  }

  synchronized void kill() {
    killedAt = now();
  }

  synchronized void count(String what) {
    counts.merge(what, 1L, Long::sum);
  }

  /** Runs one operation; {@code region} is -1 for one that touches several. */
  <T> T time(String kind, int region, Operation<T> operation) throws IOException {
    long before = System.nanoTime();
    T result = operation.run();
    record(kind, region, (System.nanoTime() - before) / 1000);
    return result;
  }

  private synchronized void record(String kind, int region, long took) {
    operations.merge(kind, 1L, Long::sum);
    List<Long> samples = micros.computeIfAbsent(kind, key -> new ArrayList<>());
    if (samples.size() < SAMPLES_MAX) {
      samples.add(took);
    }
    if (region >= 0) {
      long now = now();
      longestGap[region] = Math.max(longestGap[region], now - lastSuccess[region]);
      lastSuccess[region] = now;
    }
  }

  synchronized Map<String, Object> summary() {
    Map<String, Object> kinds = new LinkedHashMap<>();
    micros.forEach((kind, samples) -> {
      Collections.sort(samples);
      Map<String, Object> figures = new LinkedHashMap<>();
      figures.put("count", operations.get(kind));
      figures.put("p50_ms", samples.get(samples.size() / 2) / 1000.0);
      figures.put("p99_ms", samples.get(samples.size() * 99 / 100) / 1000.0);
      figures.put("max_ms", samples.get(samples.size() - 1) / 1000.0);
      kinds.put(kind, figures);
    });
    Map<String, Object> summary = new LinkedHashMap<>();
    summary.put("killed_at_ms", killedAt < 0 ? null : killedAt);
    summary.put("longest_gap_ms", Arrays.stream(longestGap).max().orElse(0));
    summary.put("longest_gap_ms_by_region", Arrays.stream(longestGap).boxed().toList());
    summary.put("operations", kinds);
    summary.put("notes", counts);
    return summary;
  }
}
