//! What a master reads from the coordinator, for the fuzz targets: `--cfg fuzzing` alone compiles
//! this.

use basalt_model::FeatureLevel;

use crate::procedure::Procedure;

/// Reads a procedure; what was read is the same when it is written and read again.
pub fn decode_procedure(bytes: &[u8]) {
    if let Ok(procedure) = Procedure::decode(bytes, FeatureLevel::NEWEST) {
        let again = Procedure::decode(&procedure.encode(), FeatureLevel::NEWEST);
        assert_eq!(again.ok().as_ref(), Some(&procedure));
    }
}
