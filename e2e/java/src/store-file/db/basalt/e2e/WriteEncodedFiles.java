package db.basalt.e2e;

import static db.basalt.e2e.StoreFiles.BASE_TIME;
import static db.basalt.e2e.StoreFiles.cell;

import db.basalt.e2e.StoreFiles.TagForm;
import db.basalt.e2e.StoreFiles.Variant;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.hbase.ArrayBackedTag;
import org.apache.hadoop.hbase.Cell;
import org.apache.hadoop.hbase.CellComparatorImpl;
import org.apache.hadoop.hbase.CellUtil;
import org.apache.hadoop.hbase.KeyValue;
import org.apache.hadoop.hbase.KeyValueUtil;
import org.apache.hadoop.hbase.Tag;
import org.apache.hadoop.hbase.io.compress.Compression;
import org.apache.hadoop.hbase.io.encoding.DataBlockEncoding;
import org.apache.hadoop.hbase.io.hfile.HFile;
import org.apache.hadoop.hbase.io.hfile.HFileScanner;
import org.apache.hadoop.hbase.regionserver.BloomType;
import org.apache.hadoop.hbase.regionserver.StoreFileScanner;
import org.apache.hadoop.hbase.util.Bytes;

/**
 * Writes a store file in every encoding, with and without compression, for each bloom filter and
 * each form of tags, and beside it what Apache HBase's own reader finds in it.
 *
 * <p>{@code WriteEncodedFiles FOLDER} writes {@code NAME.hfile}, {@code NAME.cells.json} (a scan
 * from the start), {@code NAME.seeks.json} (for each of the search keys in {@code keys.json} the
 * number of the first cell at or after it) and {@code files.json}.
 */
public final class WriteEncodedFiles {
  private static final Compression.Algorithm[] COMPRESSIONS =
      {Compression.Algorithm.NONE, Compression.Algorithm.SNAPPY};
  private static final BloomType[] BLOOMS = {BloomType.NONE, BloomType.ROW, BloomType.ROWCOL};
  private static final Set<DataBlockEncoding> DELTA = EnumSet.of(DataBlockEncoding.PREFIX,
      DataBlockEncoding.DIFF, DataBlockEncoding.FAST_DIFF);
  private static final KeyValue.Type[] TYPES = {KeyValue.Type.Put, KeyValue.Type.Put,
      KeyValue.Type.Put, KeyValue.Type.Delete, KeyValue.Type.DeleteColumn};
  /** A dictionary holds 127: with these some are forgotten, and some of them come again. */
  private static final int TAGS = 400;

  private final Random random = new Random(2);
  private final TreeSet<KeyValue> cells = new TreeSet<>(CellComparatorImpl.COMPARATOR);

  private WriteEncodedFiles() {}

  public static void main(String[] arguments) throws IOException {
    if (arguments.length != 1) {
      System.err.println("usage: WriteEncodedFiles FOLDER");
      System.exit(2);
    }
    String folder = arguments[0];
    Files.createDirectories(Paths.get(folder));
    List<KeyValue> cells = new WriteEncodedFiles().cells();
    List<KeyValue> searchKeys = searchKeys(cells);
    List<String> keys = searchKeys.stream().map(
        key -> "\"" + StoreFiles.hex(key.getKey()) + "\"").toList();
    StoreFiles.writeText(folder, "keys.json", "[\n" + String.join(",\n", keys) + "\n]\n");
    List<String> files = new ArrayList<>();
    for (Variant variant : variants()) {
      long length = StoreFiles.write(variant, cells, folder);
      files.add(StoreFiles.describe(variant, cells.size(), length));
      read(variant, cells.size(), searchKeys, folder);
    }
    StoreFiles.writeText(folder, "files.json", "[\n" + String.join(",\n", files) + "\n]\n");
    System.out.println(files.size() + " files of " + cells.size() + " cells");
  }

  /** Without a bloom filter there are no sequence ids either, so that every encoding has both. */
  private static List<Variant> variants() {
    List<Variant> variants = new ArrayList<>();
    for (DataBlockEncoding encoding : DataBlockEncoding.values()) {
      for (Compression.Algorithm compression : COMPRESSIONS) {
        boolean compressed = compression != Compression.Algorithm.NONE;
        for (BloomType bloom : BLOOMS) {
          for (TagForm tags : TagForm.values()) {
            if (tags == TagForm.COMPRESSED && !DELTA.contains(encoding)) {
              continue;
            }
            String name = String.join("-", encoding.toString(), compression.getName(),
                bloom.toString(), tags.toString()).toLowerCase().replace('_', '-');
            variants.add(new Variant(name, compression, bloom, encoding,
                compressed ? 4 * 1024 : 64 * 1024, compressed, bloom != BloomType.NONE, tags));
          }
        }
      }
    }
    return variants;
  }

  // --- the cells ---------------------------------------------------------------------------------

  private List<KeyValue> cells() {
    for (int number = 0; number < 40; number++) {
      addRow(Bytes.toBytes(String.format("row-%04d", number)), 6);
      addRow(Bytes.toBytes("a".repeat(1 + number / 10) + (char) ('b' + number % 10)), 2);
    }
    for (int number = 0; number < 8; number++) {
      // The lengths of rows have one byte in common, then the other.
      addRow(Bytes.toBytes("m".repeat(252 + number)), 2);
      addRow(Bytes.toBytes("n".repeat(400) + number), 2);
    }
    byte[] longest = new byte[Short.MAX_VALUE];
    Arrays.fill(longest, (byte) 'z');
    addRow(longest, 1);
    addRow(new byte[] {0}, 4);
    addRow(new byte[] {0, 1, (byte) 0xff, 0x7f, (byte) 0x80}, 4);
    addRow(new byte[] {(byte) 0xff, (byte) 0xff}, 4);
    byte[] large = new byte[66_000];
    random.nextBytes(large);
    cells.add(cell(Bytes.toBytes("row-0030"), Bytes.toBytes("large"), BASE_TIME,
        KeyValue.Type.Put, large, 0, tags()));
    return new ArrayList<>(cells);
  }

  private void addRow(byte[] row, int columns) {
    byte[] none = new byte[0];
    if (random.nextInt(4) == 0) {
      cells.add(cell(row, none, timestamp(), KeyValue.Type.DeleteFamily, none, mvcc(), tags()));
      cells.add(
          cell(row, none, timestamp(), KeyValue.Type.DeleteFamilyVersion, none, mvcc(), tags()));
    }
    for (int column = 0; column < columns; column++) {
      byte[] qualifier = qualifier();
      for (int version = random.nextInt(3); version >= 0; version--) {
        KeyValue.Type type = TYPES[random.nextInt(TYPES.length)];
        byte[] value = type == KeyValue.Type.Put ? value() : none;
        long timestamp = timestamp();
        cells.add(cell(row, qualifier, timestamp, type, value, mvcc(), tags()));
        if (random.nextInt(20) == 0) {
          // The same key once more: only the sequence id is another.
          cells.add(cell(row, qualifier, timestamp, type, value, 1L << 40, tags()));
        }
      }
    }
  }

  private byte[] qualifier() {
    switch (random.nextInt(5)) {
      case 0:
        return new byte[0];
      case 1:
        return Bytes.toBytes("q".repeat(1 + random.nextInt(300)));
      default:
        return Bytes.toBytes("qualifier-" + random.nextInt(12));
    }
  }

  private long timestamp() {
    switch (random.nextInt(8)) {
      case 0:
        return random.nextInt(2);
      case 1:
        return Long.MAX_VALUE - 1 - random.nextInt(300);
      case 2:
        return BASE_TIME - (1L << random.nextInt(40));
      default:
        return BASE_TIME - random.nextInt(4);
    }
  }

  private byte[] value() {
    switch (random.nextInt(4)) {
      case 0:
        return new byte[0];
      case 1:
        return Bytes.toBytes("the same again");
      case 2:
        return Bytes.toBytes(random.nextLong());
      default:
        byte[] noise = new byte[random.nextInt(300)];
        random.nextBytes(noise);
        return noise;
    }
  }

  private long mvcc() {
    return random.nextInt(3) == 0 ? 0 : 1L << random.nextInt(40);
  }

  private List<Tag> tags() {
    List<Tag> tags = new ArrayList<>();
    for (int count = random.nextInt(4); count > 0; count--) {
      // Some are frequent, most are rare.
      int number = random.nextInt(1 + random.nextInt(TAGS));
      String value = number == 7 ? "seven".repeat(300) : number == 8 ? "" : "tag " + number;
      tags.add(new ArrayBackedTag((byte) (65 + number % 60), value));
    }
    return tags;
  }

  // --- what HBase reads --------------------------------------------------------------------------

  /** The keys of all cells, and others before, between and after them. */
  private static List<KeyValue> searchKeys(List<KeyValue> cells) {
    List<KeyValue> keys = new ArrayList<>();
    keys.add(KeyValueUtil.createFirstOnRow(new byte[0]));
    for (int number = 0; number < cells.size(); number++) {
      byte[] row = CellUtil.cloneRow(cells.get(number));
      byte[] qualifier = CellUtil.cloneQualifier(cells.get(number));
      long time = cells.get(number).getTimestamp();
      switch (row.length == Short.MAX_VALUE ? 0 : number % 16) {
        case 0 -> keys.add(
            key(row, qualifier, time, KeyValue.Type.codeToType(cells.get(number).getTypeByte())));
        case 1 -> keys.add(key(row, qualifier, time - 1, KeyValue.Type.Maximum));
        case 2 -> keys.add(key(row, Bytes.add(qualifier, new byte[] {'~'}), BASE_TIME,
            KeyValue.Type.Put));
        case 3 -> keys.add(KeyValueUtil.createFirstOnRow(row));
        case 4 -> keys.add(KeyValueUtil.createFirstOnRow(Bytes.add(row, new byte[] {'!'})));
        default -> { }
      }
    }
    keys.add(KeyValueUtil.createFirstOnRow(new byte[] {(byte) 0xff, (byte) 0xff, 0}));
    return keys;
  }

  private static KeyValue key(byte[] row, byte[] qualifier, long time, KeyValue.Type type) {
    return cell(row, qualifier, time, type, new byte[0], 0, List.of());
  }

  private static void read(Variant variant, int count, List<KeyValue> searchKeys, String folder)
      throws IOException {
    Configuration configuration = StoreFiles.CONFIGURATION;
    FileSystem fileSystem = FileSystem.getLocal(configuration).getRaw();
    List<KeyValue> cells = new ArrayList<>();
    try (HFile.Reader reader =
        HFile.createReader(fileSystem, StoreFiles.path(variant, folder), configuration)) {
      if (reader.getDataBlockEncoding() != variant.encoding()) {
        throw new IllegalStateException(variant.name() + ": " + reader.getDataBlockEncoding());
      }
      HFileScanner scanner = reader.getScanner(configuration, false, true);
      for (boolean more = scanner.seekTo(); more; more = scanner.next()) {
        cells.add(KeyValueUtil.copyToNewKeyValue(scanner.getCell()));
      }
      if (cells.size() != count) {
        throw new IllegalStateException(variant.name() + ": " + cells.size() + " cells");
      }
      StoreFiles.writeText(folder, variant.name() + ".cells.json", StoreFiles.listing(cells));
      List<Integer> seeks = new ArrayList<>();
      for (KeyValue key : searchKeys) {
        boolean found = StoreFileScanner.seekAtOrAfter(scanner, key);
        seeks.add(found ? firstLike(cells, scanner.getCell()) : cells.size());
      }
      StoreFiles.writeText(folder, variant.name() + ".seeks.json", seeks + "\n");
    }
  }

  /** The number of the first cell with the key of this one. */
  private static int firstLike(List<KeyValue> cells, Cell cell) {
    int low = 0;
    int high = cells.size();
    while (low < high) {
      int middle = (low + high) / 2;
      boolean before = CellComparatorImpl.COMPARATOR.compare(cells.get(middle), cell, true) < 0;
      low = before ? middle + 1 : low;
      high = before ? high : middle;
    }
    return low;
  }
}
