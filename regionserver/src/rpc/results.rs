//! Cells as they are sent to a client: beside the message, or inside it if the client has no codec.

use basalt_hbase_rpc::{Call, message_cells, pb};
use basalt_model::Cell;

/// Collects the results of one reply.
pub(super) struct Results {
    inside: bool,
    cells: Vec<Cell>,
}

// === impl Results ===

impl Results {
    /// The results of a reply to `call`.
    pub(super) fn of(call: &Call) -> Self {
        Self { inside: call.caller.codec.is_none(), cells: Vec::new() }
    }

    /// Adds a result that holds `cells`.
    pub(super) fn add(&mut self, cells: Vec<Cell>) -> pb::Result {
        message_cells::result_of(cells, (!self.inside).then_some(&mut self.cells))
    }

    /// The cells to send beside the message.
    pub(super) fn into_cells(self) -> Vec<Cell> {
        self.cells
    }
}
