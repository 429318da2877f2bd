//! Output to standard output and standard error that ignores failures.
//!
//! `println!` and `eprintln!` panic if the line cannot be written: the disk below a redirected
//! output is full, or the reader of the pipe has ended (`basalt local … | head -3`). A process must
//! not end for that reason, and certainly not take a cluster down with it.

use std::fmt;
use std::io::{self, Write};

use anyhow::Context;

/// Writes a text of several lines to standard output. A failure to write is ignored.
pub(crate) fn print_text(text: &str) {
    write_to(io::stdout().lock(), format_args!("{text}"));
}

/// Writes the result of a command, such as `basalt crds`, to standard output.
///
/// # Errors
/// The result cannot be written. The command has failed in that case.
pub(crate) fn print_result(text: &str) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.context("cannot write to standard output")
}

/// An error and its causes on one line, as `{error:#}` prints it, but without causes that the text
/// already contains: many error types include their source in their own message.
pub(crate) fn error_chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The implementation of [`print_line`].
pub(crate) fn print(text: fmt::Arguments<'_>) {
    write_to(io::stdout().lock(), text);
}

/// The implementation of [`print_error_line`].
pub(crate) fn print_error(text: fmt::Arguments<'_>) {
    write_to(io::stderr().lock(), text);
}

fn write_to(mut output: impl Write, text: fmt::Arguments<'_>) {
    // There is no other place to report the failure.
    let _ = output.write_fmt(text).and_then(|()| output.flush());
}

/// Like `println!`, but a failure to write is ignored.
macro_rules! print_line {
    () => { $crate::output::print(format_args!("\n")) };
    ($($argument:tt)*) => {
        $crate::output::print(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Like `eprintln!`, but a failure to write is ignored.
macro_rules! print_error_line {
    ($($argument:tt)*) => {
        $crate::output::print_error(format_args!("{}\n", format_args!($($argument)*)))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open /data: {source}")]
    struct NamesItsSource {
        source: io::Error,
    }

    #[test]
    fn a_cause_that_the_error_names_is_not_printed_twice() {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = anyhow::Error::new(NamesItsSource { source }).context("the storage root");
        let expected = "the storage root: cannot open /data: permission denied";
        assert_eq!(error_chain(&error), expected);
        let error = anyhow::anyhow!("no such port").context("the web page").context("starting");
        assert_eq!(error_chain(&error), "starting: the web page: no such port");
    }

    #[test]
    fn an_output_that_is_full_is_ignored() {
        write_to(Full, format_args!("a line\n"));
    }
}
