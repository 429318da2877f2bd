package db.basalt.e2e;

import static db.basalt.e2e.StoreFiles.BASE_TIME;
import static db.basalt.e2e.StoreFiles.cell;
import static db.basalt.e2e.StoreFiles.describe;
import static db.basalt.e2e.StoreFiles.listing;
import static db.basalt.e2e.StoreFiles.writeText;

import db.basalt.e2e.StoreFiles.TagForm;
import db.basalt.e2e.StoreFiles.Variant;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.TreeSet;
import org.apache.hadoop.hbase.ArrayBackedTag;
import org.apache.hadoop.hbase.CellComparatorImpl;
import org.apache.hadoop.hbase.KeyValue;
import org.apache.hadoop.hbase.Tag;
import org.apache.hadoop.hbase.io.compress.Compression;
import org.apache.hadoop.hbase.io.encoding.DataBlockEncoding;
import org.apache.hadoop.hbase.regionserver.BloomType;
import org.apache.hadoop.hbase.util.Bytes;

/**
 * Writes the golden store files of crates/storage with Apache HBase's own writer: the same cells
 * in each compression and encoding, and one listing of them. What it writes depends on nothing but
 * these sources and the HBase version, so that a run can be compared with what is committed.
 *
 * <p>{@code WriteStoreFile FOLDER} writes {@code NAME.hfile} for each {@link Variant},
 * {@code cells.json} (all cells in order, byte strings as hex) and {@code files.json}.
 */
public final class WriteStoreFile {
  private static final byte CUSTOM_TAG = 65;
  private static final byte TTL_TAG = 8;

  private static final List<Variant> VARIANTS = List.of(
      plain("none-row", Compression.Algorithm.NONE, BloomType.ROW, 2048, false),
      plain("gz-row", Compression.Algorithm.GZ, BloomType.ROW, 2048, false),
      plain("snappy-rowcol", Compression.Algorithm.SNAPPY, BloomType.ROWCOL, 2048, false),
      plain("lz4-row", Compression.Algorithm.LZ4, BloomType.ROW, 2048, false),
      plain("zstd-rowcol", Compression.Algorithm.ZSTD, BloomType.ROWCOL, 2048, false),
      plain("none-rowcol-deep-index", Compression.Algorithm.NONE, BloomType.ROWCOL, 512, true),
      new Variant("none-plain", Compression.Algorithm.NONE, BloomType.NONE, DataBlockEncoding.NONE,
          64 * 1024, false, false, TagForm.NONE),
      encoded("none-row-prefix", Compression.Algorithm.NONE, BloomType.ROW,
          DataBlockEncoding.PREFIX, TagForm.PLAIN),
      encoded("gz-rowcol-diff", Compression.Algorithm.GZ, BloomType.ROWCOL,
          DataBlockEncoding.DIFF, TagForm.COMPRESSED),
      encoded("none-row-fast-diff", Compression.Algorithm.NONE, BloomType.ROW,
          DataBlockEncoding.FAST_DIFF, TagForm.COMPRESSED),
      encoded("snappy-row-row-index", Compression.Algorithm.SNAPPY, BloomType.ROW,
          DataBlockEncoding.ROW_INDEX_V1, TagForm.PLAIN));

  private WriteStoreFile() {}

  private static Variant plain(String name, Compression.Algorithm compression, BloomType bloom,
      int blockSize, boolean smallChunks) {
    return new Variant(name, compression, bloom, DataBlockEncoding.NONE, blockSize, smallChunks,
        true, TagForm.PLAIN);
  }

  private static Variant encoded(String name, Compression.Algorithm compression, BloomType bloom,
      DataBlockEncoding encoding, TagForm tags) {
    return new Variant(name, compression, bloom, encoding, 2048, false, true, tags);
  }

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
      long length = StoreFiles.write(variant, cells, folder);
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
}
