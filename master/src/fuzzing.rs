//! What a master reads from the coordinator, for the fuzz targets: `--cfg fuzzing` alone compiles
//! this.

use crate::procedure::Procedure;

/// Reads a procedure; what was read is the same when it is written and read again.
pub fn decode_procedure(bytes: &[u8]) {
    if let Ok(procedure) = Procedure::decode(bytes) {
        let again = Procedure::decode(&procedure.encode());
        assert_eq!(again.ok().as_ref(), Some(&procedure));
    }
}
