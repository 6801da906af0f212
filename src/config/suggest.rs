//! "Did you mean": the nearest of the words that would have been right here.

/// Comparisons that one file may cost, so that a large file full of mistakes stays quick to refuse.
const MAX_COMPARISONS: usize = 200_000;

pub(super) struct Suggestions {
    left: usize,
}

impl Default for Suggestions {
    fn default() -> Self {
        Suggestions { left: MAX_COMPARISONS }
    }
}

impl Suggestions {
    /// The candidate that `typed` most probably meant, if any is near enough.
    pub fn nearest<'c>(
        &mut self,
        typed: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Option<&'c str> {
        if typed.len() > 64 {
            return None;
        }
        let plain = normal(typed);
        let mut best: Option<(usize, &str)> = None;
        for candidate in candidates {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            if candidate.len().abs_diff(typed.len()) > 4 {
                continue;
            }
            let distance = strsim::damerau_levenshtein(&plain, &normal(candidate));
            let most = candidate.len().min(typed.len()) / 3 + usize::from(candidate.len() < 3);
            if distance <= most.min(3) && best.is_none_or(|(nearest, _)| distance < nearest) {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, candidate)| candidate)
    }
}

/// `maxBody` and `max-body` are as near to `max_body` as can be.
fn normal(word: &str) -> String {
    let letters = word.chars().filter(|c| !matches!(c, '_' | '-'));
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_other_spellings() {
        let keys = ["retries", "timeouts", "max_body", "name", "on"];
        let nearest = |typed: &str| Suggestions::default().nearest(typed, keys);
        assert_eq!(nearest("retrys"), Some("retries"));
        assert_eq!(nearest("maxBody"), Some("max_body"));
        assert_eq!(nearest("nmae"), Some("name"));
        assert_eq!(nearest("timeout"), Some("timeouts"));
        assert_eq!(nearest("kubernetes"), None);
        assert_eq!(nearest("x"), None);
    }

    #[test]
    fn stops_comparing_at_the_bound() {
        let mut suggestions = Suggestions { left: 1 };
        assert_eq!(suggestions.nearest("b", ["zzz", "b"]), None);
    }
}
