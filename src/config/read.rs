//! A file → [`Source`], with a bound on its size.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::source::Source;

/// Bytes of a configuration file. 100,000 routes of usual size are about half of it.
pub const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// Why a configuration file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("there is no file {}: name one with `--config`, or write one (`gatehouse schema` lists the keys)", .0.display())]
    Missing(PathBuf),
    #[error("{} is a directory: name the file in it", .0.display())]
    Directory(PathBuf),
    #[error("{} has more than {} MiB, which is no configuration", .0.display(), MAX_FILE_BYTES >> 20)]
    TooLarge(PathBuf),
    #[error(
        "{}:{line}:{column}: the file is not UTF-8 text (byte {offset} of it): save it with that encoding", .path.display()
    )]
    NotUtf8 { path: PathBuf, offset: usize, line: usize, column: usize },
    #[error("{} can't be read", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Reads a configuration file. A byte-order mark at its beginning is left out.
///
/// # Errors
///
/// When the file isn't there, can't be read, is larger than [`MAX_FILE_BYTES`] (known before it is
/// read), or isn't UTF-8.
pub fn read_source(path: &Path) -> Result<Source, ReadError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(path.to_owned()),
        io::ErrorKind::IsADirectory => ReadError::Directory(path.to_owned()),
        _ => ReadError::Io { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if metadata.is_dir() {
        return Err(ReadError::Directory(path.to_owned()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    // What has no size beforehand (a pipe), or grows meanwhile, is bounded as well.
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..offset]).into_owned();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        ReadError::NotUtf8 { path: path.to_owned(), offset, line, column }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(Source { path: path.to_owned(), text: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Source, ReadError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gateway.yaml");
        std::fs::write(&path, bytes).unwrap();
        read_source(&path)
    }

    #[test]
    fn leaves_a_byte_order_mark_out() {
        assert_eq!(&*read(b"\xef\xbb\xbfa: 1\n").unwrap().text, "a: 1\n");
    }

    #[test]
    fn says_where_the_text_stops_being_utf8() {
        let error = read("a: 1\nü: \u{e9}x".as_bytes()).map(|_| ());
        assert!(error.is_ok());
        match read(b"a: 1\n\xc3\xbc: \xff") {
            Err(ReadError::NotUtf8 { offset, line, column, .. }) => {
                assert_eq!((offset, line, column), (9, 2, 4))
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refuses_a_large_file_without_reading_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large.yaml");
        // A hole in the file: 100 MB that take no space, and would take their time to read.
        File::create(&path).unwrap().set_len(100_000_000).unwrap();
        assert!(matches!(read_source(&path), Err(ReadError::TooLarge(_))));
    }

    #[test]
    fn tells_missing_files_and_directories_apart() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(read_source(directory.path()), Err(ReadError::Directory(_))));
        let missing = directory.path().join("none.yaml");
        assert!(matches!(read_source(&missing), Err(ReadError::Missing(_))));
    }
}
