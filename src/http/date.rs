//! The `Date` of a response (RFC 9110 §6.6.1), made anew once a second.

use std::cell::RefCell;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;

use crate::clock;

thread_local! {
    static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// The present second in the form that HTTP asks for.
pub fn now() -> HeaderValue {
    with_value(HeaderValue::clone)
}

/// Calls `use_it` with the text of [`now`].
pub fn with_now<T>(use_it: impl FnOnce(&[u8]) -> T) -> T {
    with_value(|value| use_it(value.as_bytes()))
}

fn with_value<T>(use_it: impl FnOnce(&HeaderValue) -> T) -> T {
    let second = clock::recent_since_epoch().as_secs();
    LAST.with_borrow_mut(|(at, value)| {
        if *at != second {
            *at = second;
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
            *value = HeaderValue::from_str(&date).expect("a date is visible ASCII");
        }
        use_it(value)
    })
}
