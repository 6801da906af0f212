//! Text for messages: quoted, cut, and free of control characters.

/// `"value"`, no longer than a message can bear and safe to print on a terminal. The user and
/// password of a URL are covered.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 60;
    let text = &*super::mask::without_userinfo(text);
    let mut shown = String::with_capacity(text.len().min(MOST) + 2);
    shown.push('"');
    for (count, c) in text.chars().enumerate() {
        if count == MOST {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown.push('"');
    shown
}

/// `"a", "b" or "c"`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// `1 error`, `2 errors`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
