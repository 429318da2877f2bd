//! Progress in one line: rewritten in place on a terminal, printed now and then elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// The progress line.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// The last printed stage, and when it was printed, if there is no terminal.
    stage: String,
    printed_at: Option<Instant>,
}

/// The interval between two lines if there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

// === impl Progress ===

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
            bar.set_style(style);
        }
        Self { bar, stage: String::new(), printed_at: None }
    }

    /// Shows `text` as the progress of `stage`.
    pub(crate) fn show(&mut self, stage: &str, text: &str) {
        if !self.bar.is_hidden() {
            if self.stage != stage && !self.stage.is_empty() {
                // The line of the previous stage stays on the screen.
                self.bar.suspend(|| print_error_line!("  {}", self.bar.message()));
            }
            self.bar.set_message(text.to_owned());
            self.bar.tick();
        } else if self.stage != stage
            || self.printed_at.is_none_or(|printed_at| printed_at.elapsed() >= LINE_INTERVAL)
        {
            print_error_line!("{text}");
            self.printed_at = Some(Instant::now());
        }
        stage.clone_into(&mut self.stage);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
