package db.basalt.e2e;

import java.util.Collection;
import java.util.Map;
import java.util.stream.Collectors;

/** Maps, collections, numbers, booleans and strings as JSON text. */
final class Json {
  private Json() {}

  static String of(Object value) {
    if (value == null || value instanceof Number || value instanceof Boolean) {
      return String.valueOf(value);
    }
    if (value instanceof Map<?, ?> map) {
      return map.entrySet().stream()
          .map(entry -> quoted(String.valueOf(entry.getKey())) + ":" + of(entry.getValue()))
          .collect(Collectors.joining(",", "{", "}"));
    }
    if (value instanceof Collection<?> items) {
      return items.stream().map(Json::of).collect(Collectors.joining(",", "[", "]"));
    }
    return quoted(value.toString());
  }

  private static String quoted(String text) {
    StringBuilder out = new StringBuilder("\"");
    for (char letter : text.toCharArray()) {
      switch (letter) {
        case '"' -> out.append("\\\"");
        case '\\' -> out.append("\\\\");
        case '\n' -> out.append("\\n");
        default -> out.append(letter < ' ' || letter > '~'
            ? String.format("\\u%04x", (int) letter) : String.valueOf(letter));
      }
    }
    return out.append('"').toString();
  }
}
