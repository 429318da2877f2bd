package db.basalt.e2e;

import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hbase.Cell;
import org.apache.hadoop.hbase.CellUtil;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.KeyValue;
import org.apache.hadoop.hbase.PrivateCellUtil;
import org.apache.hadoop.hbase.Tag;
import org.apache.hadoop.hbase.io.compress.Compression;
import org.apache.hadoop.hbase.io.encoding.DataBlockEncoding;
import org.apache.hadoop.hbase.io.hfile.CacheConfig;
import org.apache.hadoop.hbase.io.hfile.HFileContext;
import org.apache.hadoop.hbase.io.hfile.HFileContextBuilder;
import org.apache.hadoop.hbase.regionserver.BloomType;
import org.apache.hadoop.hbase.regionserver.StoreFileWriter;
import org.apache.hadoop.hbase.util.Bytes;

/** Store files by Apache HBase's own writer, and listings of what is in them. */
final class StoreFiles {
  static final byte[] FAMILY = Bytes.toBytes("f");
  static final long BASE_TIME = 1_700_000_000_000L;
  /** Read once: it takes longer than a file. */
  static final Configuration CONFIGURATION = HBaseConfiguration.create();
  private static final long MAX_SEQUENCE_ID = 4711;

  /**
   * One file: its name says what is special. Small chunks force several index levels and several
   * bloom chunks out of a few kilobytes.
   */
  record Variant(String name, Compression.Algorithm compression, BloomType bloom,
      DataBlockEncoding encoding, int blockSize, boolean smallChunks, boolean mvcc, TagForm tags) {}

  /** How the tags of cells are kept; no encoding but PREFIX, DIFF and FAST_DIFF compresses them. */
  enum TagForm { NONE, PLAIN, COMPRESSED }

  private StoreFiles() {}

  // --- the files ---------------------------------------------------------------------------------

  static Path path(Variant variant, String folder) {
    return new Path(Paths.get(folder, variant.name() + ".hfile").toAbsolutePath().toString());
  }

  /** Writes the cells, and says how long the file got. */
  static long write(Variant variant, List<KeyValue> cells, String folder) throws IOException {
    Configuration configuration = new Configuration(CONFIGURATION);
    if (variant.smallChunks()) {
      configuration.setInt("hfile.index.block.max.size", 128);
      configuration.setInt("hfile.index.block.min.entries", 2);
      configuration.setInt("io.storefile.bloom.block.size", 128);
    }
    FileSystem fileSystem = FileSystem.getLocal(configuration).getRaw();
    Path path = path(variant, folder);
    fileSystem.delete(path, false);
    HFileContext context = new HFileContextBuilder().withBlockSize(variant.blockSize())
        .withCompression(variant.compression()).withDataBlockEncoding(variant.encoding())
        .withIncludesMvcc(variant.mvcc()).withIncludesTags(variant.tags() != TagForm.NONE)
        .withCompressTags(variant.tags() == TagForm.COMPRESSED).withHBaseCheckSum(true)
        .withCreateTime(BASE_TIME).withColumnFamily(FAMILY)
        .withTableName(Bytes.toBytes("golden")).build();
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

  static String describe(Variant variant, int cells, long length) {
    return String.format("  {\"file\": \"%s.hfile\", \"compression\": \"%s\", \"bloom\": \"%s\", "
            + "\"encoding\": \"%s\", \"block_size\": %d, \"mvcc\": %b, \"tags\": %b, "
            + "\"cells\": %d, \"max_sequence_id\": %d, \"length\": %d}",
        variant.name(), variant.compression().getName(), variant.bloom(), variant.encoding(),
        variant.blockSize(), variant.mvcc(), variant.tags() != TagForm.NONE, cells,
        MAX_SEQUENCE_ID, length);
  }

  /** All cells in order, byte strings as hex. */
  static String listing(List<KeyValue> cells) {
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

  static String hex(byte[] bytes) {
    return HexFormat.of().formatHex(bytes);
  }

  static void writeText(String folder, String name, String text) throws IOException {
    try (PrintWriter out = new PrintWriter(
        Files.newBufferedWriter(Paths.get(folder, name), StandardCharsets.UTF_8))) {
      out.print(text);
    }
  }

  // --- the cells ---------------------------------------------------------------------------------

  static KeyValue cell(byte[] row, byte[] qualifier, long time, KeyValue.Type type,
      byte[] value, long mvcc, List<Tag> tags) {
    KeyValue cell = new KeyValue(row, 0, row.length, FAMILY, 0, FAMILY.length, qualifier, 0,
        qualifier.length, time, type, value, 0, value.length, tags);
    cell.setSequenceId(mvcc);
    return cell;
  }
}
