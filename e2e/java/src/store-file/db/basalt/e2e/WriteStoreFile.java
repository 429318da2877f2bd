package db.basalt.e2e;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Random;
import java.util.TreeSet;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hbase.ArrayBackedTag;
import org.apache.hadoop.hbase.Cell;
import org.apache.hadoop.hbase.CellComparatorImpl;
import org.apache.hadoop.hbase.CellUtil;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.KeyValue;
import org.apache.hadoop.hbase.PrivateCellUtil;
import org.apache.hadoop.hbase.Tag;
import org.apache.hadoop.hbase.io.compress.Compression;
import org.apache.hadoop.hbase.io.hfile.CacheConfig;
import org.apache.hadoop.hbase.io.hfile.HFileContext;
import org.apache.hadoop.hbase.io.hfile.HFileContextBuilder;
import org.apache.hadoop.hbase.regionserver.BloomType;
import org.apache.hadoop.hbase.regionserver.StoreFileWriter;
import org.apache.hadoop.hbase.util.Bytes;

/**
 * Writes the golden store files of crates/storage with Apache HBase's own writer: the same cells
 * in each compression, and one listing of them. What it writes depends on nothing but this file
 * and the HBase version, so that a run can be compared with what is committed.
 *
 * <p>{@code WriteStoreFile FOLDER} writes {@code NAME.hfile} for each {@link Variant},
 * {@code cells.json} (all cells in order, byte strings as hex) and {@code files.json}.
 */
public final class WriteStoreFile {
  private static final byte[] FAMILY = Bytes.toBytes("f");
  private static final long BASE_TIME = 1_700_000_000_000L;
  private static final long MAX_SEQUENCE_ID = 4711;
  private static final byte CUSTOM_TAG = 65;
  private static final byte TTL_TAG = 8;

  /**
   * One file: its name says what is special. Small chunks force several index levels and several
   * bloom chunks out of a few kilobytes; {@code plain} leaves out mvcc and tags.
   */
  private record Variant(String name, Compression.Algorithm compression, BloomType bloom,
      int blockSize, boolean smallChunks, boolean plain) {}

  private static final List<Variant> VARIANTS = List.of(
      new Variant("none-row", Compression.Algorithm.NONE, BloomType.ROW, 2048, false, false),
      new Variant("gz-row", Compression.Algorithm.GZ, BloomType.ROW, 2048, false, false),
      new Variant("snappy-rowcol", Compression.Algorithm.SNAPPY, BloomType.ROWCOL, 2048, false,
          false),
      new Variant("lz4-row", Compression.Algorithm.LZ4, BloomType.ROW, 2048, false, false),
      new Variant("zstd-rowcol", Compression.Algorithm.ZSTD, BloomType.ROWCOL, 2048, false, false),
      new Variant("none-rowcol-deep-index", Compression.Algorithm.NONE, BloomType.ROWCOL, 512,
          true, false),
      new Variant("none-plain", Compression.Algorithm.NONE, BloomType.NONE, 64 * 1024, false,
          true));

  private WriteStoreFile() {}

  public static void main(String[] arguments) throws IOException {
    if (arguments.length != 1) {
      System.err.println("usage: WriteStoreFile FOLDER");
      System.exit(2);
    }
    String folder = arguments[0];
    Files.createDirectories(Paths.get(folder));
    List<KeyValue> cells = cells();
    StringBuilder files = new StringBuilder("[\n");
    for (Variant variant : VARIANTS) {
      long length = write(variant, cells, folder);
      files.append(files.length() > 2 ? ",\n" : "").append(describe(variant, cells.size(), length));
      System.out.println(variant.name() + ".hfile: " + length + " bytes");
    }
    writeText(folder, "files.json", files + "\n]\n");
    writeText(folder, "cells.json", listing(cells));
    System.out.println(cells.size() + " cells");
  }

  // --- the cells ---------------------------------------------------------------------------------

  /** 40 rows: several versions, all kinds of delete, empty and large values, binary keys, tags. */
  private static List<KeyValue> cells() {
    Random random = new Random(1);
    TreeSet<KeyValue> cells = new TreeSet<>(CellComparatorImpl.COMPARATOR);
    long mvcc = 1;
    for (int number = 0; number < 40; number++) {
      byte[] row = Bytes.toBytes(String.format("row-%04d", number));
      for (int column = 0; column < 4; column++) {
        byte[] qualifier = Bytes.toBytes("q" + column);
        cells.add(put(row, qualifier, BASE_TIME + number, value(random, number, column),
            mvcc++, tags(number, column)));
      }
      if (number % 5 == 1) {
        for (int version = 1; version <= 3; version++) {
          cells.add(put(row, Bytes.toBytes("q1"), BASE_TIME + number + version,
              Bytes.toBytes("version " + version), mvcc++, List.of()));
        }
      }
      if (number % 10 == 3) {
        addDeletes(cells, row, BASE_TIME + number, mvcc);
        mvcc += 4;
      }
    }
    byte[] binaryRow = {0, 1, (byte) 0xff, 0x7f, (byte) 0x80};
    cells.add(put(binaryRow, new byte[0], BASE_TIME, Bytes.toBytes("empty qualifier"), mvcc++,
        List.of()));
    cells.add(put(binaryRow, new byte[] {(byte) 0xff, 0}, 1, new byte[0], 1L << 40, List.of()));
    return new ArrayList<>(cells);
  }

  private static void addDeletes(TreeSet<KeyValue> cells, byte[] row, long time, long mvcc) {
    byte[] none = new byte[0];
    byte[] q0 = Bytes.toBytes("q0");
    byte[] q2 = Bytes.toBytes("q2");
    cells.add(cell(row, none, time - 10, KeyValue.Type.DeleteFamily, none, mvcc, List.of()));
    cells.add(cell(row, none, time, KeyValue.Type.DeleteFamilyVersion, none, mvcc + 1, List.of()));
    cells.add(cell(row, q0, time, KeyValue.Type.Delete, none, mvcc + 2, List.of()));
    cells.add(cell(row, q2, time, KeyValue.Type.DeleteColumn, none, mvcc + 3, List.of()));
  }

  private static byte[] value(Random random, int number, int column) {
    switch (column) {
      case 0:
        return Bytes.toBytes("value of row " + number);
      case 1:
        return number % 7 == 0 ? new byte[0] : Bytes.toBytes("x".repeat(number * 3));
      case 2:
        byte[] noise = new byte[24];
        random.nextBytes(noise);
        return noise;
      default:
        return Bytes.toBytes((long) number);
    }
  }

  private static List<Tag> tags(int number, int column) {
    if (column == 3) {
      return List.of(new ArrayBackedTag(TTL_TAG, Bytes.toBytes(86_400_000L)));
    }
    if (column == 0 && number % 4 == 0) {
      return List.of(new ArrayBackedTag(CUSTOM_TAG, "first"),
          new ArrayBackedTag((byte) (CUSTOM_TAG + 1), ""));
    }
    return List.of();
  }

  private static KeyValue put(byte[] row, byte[] qualifier, long time, byte[] value, long mvcc,
      List<Tag> tags) {
    return cell(row, qualifier, time, KeyValue.Type.Put, value, mvcc, tags);
  }

  private static KeyValue cell(byte[] row, byte[] qualifier, long time, KeyValue.Type type,
      byte[] value, long mvcc, List<Tag> tags) {
    KeyValue cell = new KeyValue(row, 0, row.length, FAMILY, 0, FAMILY.length, qualifier, 0,
        qualifier.length, time, type, value, 0, value.length, tags);
    cell.setSequenceId(mvcc);
    return cell;
  }

  // --- the files ---------------------------------------------------------------------------------

  private static long write(Variant variant, List<KeyValue> cells, String folder)
      throws IOException {
    Configuration configuration = HBaseConfiguration.create();
    if (variant.smallChunks()) {
      configuration.setInt("hfile.index.block.max.size", 128);
      configuration.setInt("hfile.index.block.min.entries", 2);
      configuration.setInt("io.storefile.bloom.block.size", 128);
    }
    FileSystem fileSystem = FileSystem.getLocal(configuration).getRaw();
    Path path = new Path(Paths.get(folder, variant.name() + ".hfile").toAbsolutePath().toString());
    fileSystem.delete(path, false);
    HFileContext context = new HFileContextBuilder().withBlockSize(variant.blockSize())
        .withCompression(variant.compression()).withIncludesMvcc(!variant.plain())
        .withIncludesTags(!variant.plain()).withHBaseCheckSum(true).withCreateTime(BASE_TIME)
        .withColumnFamily(FAMILY).withTableName(Bytes.toBytes("golden")).build();
    StoreFileWriter writer =
        new StoreFileWriter.Builder(configuration, new CacheConfig(configuration), fileSystem)
            .withFilePath(path).withFileContext(context).withBloomType(variant.bloom())
            .withMaxKeyCount(cells.size()).build();
    for (KeyValue cell : cells) {
      writer.append(cell);
    }
    writer.appendMetadata(MAX_SEQUENCE_ID, false);
    writer.close();
    return fileSystem.getFileStatus(path).getLen();
  }

  // --- the listings ------------------------------------------------------------------------------

  private static String describe(Variant variant, int cells, long length) {
    return String.format("  {\"file\": \"%s.hfile\", \"compression\": \"%s\", \"bloom\": \"%s\", "
            + "\"block_size\": %d, \"mvcc\": %b, \"tags\": %b, \"cells\": %d, "
            + "\"max_sequence_id\": %d, \"length\": %d}",
        variant.name(), variant.compression().getName(), variant.bloom(), variant.blockSize(),
        !variant.plain(), !variant.plain(), cells, MAX_SEQUENCE_ID, length);
  }

  private static String listing(List<KeyValue> cells) {
    StringBuilder text = new StringBuilder("[\n");
    for (KeyValue cell : cells) {
      text.append(text.length() > 2 ? ",\n" : "");
      text.append(String.format("{\"row\":\"%s\",\"family\":\"%s\",\"qualifier\":\"%s\","
              + "\"timestamp\":%d,\"type\":%d,\"mvcc\":%d,\"value\":\"%s\",\"tags\":%s}",
          hex(CellUtil.cloneRow(cell)), hex(CellUtil.cloneFamily(cell)),
          hex(CellUtil.cloneQualifier(cell)), cell.getTimestamp(), cell.getTypeByte(),
          cell.getSequenceId(), hex(CellUtil.cloneValue(cell)), tagListing(cell)));
    }
    return text + "\n]\n";
  }

  private static String tagListing(Cell cell) {
    List<String> tags = new ArrayList<>();
    for (Tag tag : PrivateCellUtil.getTags(cell)) {
      tags.add("{\"type\":" + tag.getType() + ",\"value\":\"" + hex(Tag.cloneValue(tag)) + "\"}");
    }
    return "[" + String.join(",", tags) + "]";
  }

  private static String hex(byte[] bytes) {
    return HexFormat.of().formatHex(bytes);
  }

  private static void writeText(String folder, String name, String text) throws IOException {
    try (PrintWriter out = new PrintWriter(
        Files.newBufferedWriter(Paths.get(folder, name), StandardCharsets.UTF_8))) {
      out.print(text);
    }
  }
}
