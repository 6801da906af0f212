//! A segment of a path as a node keeps it.

/// The longest text that is kept in the node itself.
const SHORT: usize = 22;

/// A text that lies within its owner while it is short, so that comparing it fetches no other cache line.
#[derive(Debug)]
pub(super) enum Label {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(Box<[u8]>),
}

impl Label {
    pub(super) fn new(text: &str) -> Self {
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(text.as_bytes());
                Label::Short { length, bytes }
            }
            _ => Label::Long(text.as_bytes().into()),
        }
    }

    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Label::Short { length, bytes } => bytes.get(..usize::from(*length)) == Some(text.as_bytes()),
            Label::Long(bytes) => **bytes == *text.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_its_text_and_no_other_whatever_its_length() {
        let text = "a".repeat(300);
        for length in (0..40).chain([255, 256, 257, 300]) {
            let label = Label::new(&text[..length]);
            for other in (0..40).chain([255, 256, 257, 300]) {
                assert_eq!(label.is(&text[..other]), length == other, "{length} {other}");
            }
            assert!(!label.is(&"b".repeat(length)) || length == 0);
        }
    }
}
