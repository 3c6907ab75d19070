//! Writes data whose reader may stop early, as `head` does.

use std::io::{self, ErrorKind, Write};

/// Writes all data and flushes. A reader that has closed its end of the pipe, as `head` does, is not an error.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// qus_core::output::write_data(&mut std::io::stdout().lock(), "x86_64\n")
/// # }
/// ```
///
/// # Errors
/// The data cannot be written, as on a full disk.
pub fn write_data(to: &mut impl Write, data: impl AsRef<[u8]>) -> io::Result<()> {
    match to.write_all(data.as_ref()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        assert!(write_data(&mut Failing(ErrorKind::BrokenPipe), "data").is_ok());
        assert!(write_data(&mut Failing(ErrorKind::StorageFull), "data").is_err());
        let mut written = Vec::new();
        write_data(&mut written, b"data").unwrap();
        assert_eq!(written, b"data");
    }
}
