package db.basalt.e2e;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** Named checks: one that fails is reported, and the next one runs all the same. */
final class Checks {
  private static final int FAILURES_MAX = 100;

  /** One behaviour of the cluster. */
  interface Check {
    void run() throws Exception;
  }

  private final List<String> passed = new ArrayList<>();
  private final List<Map<String, String>> failures = new ArrayList<>();

  // === impl Checks ===

  void run(String name, Check check) {
    try {
      check.run();
      synchronized (this) {
        passed.add(name);
      }
    } catch (Exception | AssertionError failure) {
      fail(name, failure);
    }
  }

  synchronized void fail(String name, Throwable failure) {
    StringWriter trace = new StringWriter();
    failure.printStackTrace(new PrintWriter(trace));
    System.err.println("FAILED " + name + ": " + trace);
    if (failures.size() < FAILURES_MAX) {
      failures.add(Map.of("check", name, "failure", failure.toString()));
    }
  }

  synchronized boolean passed() {
    return failures.isEmpty();
  }

  synchronized Map<String, Object> summary() {
    Map<String, Object> summary = new LinkedHashMap<>();
    summary.put("passed", passed.size());
    summary.put("failures", new ArrayList<>(failures));
    summary.put("ok", failures.isEmpty());
    return summary;
  }

  static void equal(String what, Object expected, Object actual) {
    if (!Objects.equals(expected, actual)) {
      throw new AssertionError(what + ": expected " + brief(expected) + ", got " + brief(actual));
    }
  }

  static void isTrue(String what, boolean holds) {
    if (!holds) {
      throw new AssertionError(what + ": does not hold");
    }
  }

  /** The call must fail with exactly this class of exception (or one below it). */
  static void throwsException(String what, Class<? extends Exception> expected, Check call) {
    try {
      call.run();
    } catch (Exception thrown) {
      if (expected.isInstance(thrown)) {
        return;
      }
      throw new AssertionError(what + ": expected " + expected.getName() + ", got " + thrown,
          thrown);
    }
    throw new AssertionError(what + ": expected " + expected.getName() + ", got no exception");
  }

  private static String brief(Object value) {
    String text = String.valueOf(value);
    return text.length() <= 600 ? text : text.substring(0, 600) + "… (" + text.length() + ")";
  }
}
