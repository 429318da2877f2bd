//! Decoders of what a master reads from the coordinator, for the fuzz targets. Compiled only with
//! `--cfg fuzzing`.

use basalt_model::FeatureLevel;

use crate::procedure::Procedure;

/// Decodes a procedure, and asserts that it survives encoding and decoding again.
pub fn decode_procedure(bytes: &[u8]) {
    if let Ok(procedure) = Procedure::decode(bytes, FeatureLevel::NEWEST) {
        let again = Procedure::decode(&procedure.encode(), FeatureLevel::NEWEST);
        assert_eq!(again.ok().as_ref(), Some(&procedure));
    }
}
