//! Any bytes as a token: refused with a reason, or taken apart into what they are, and of a form that has no other
//! spelling.

use gatehouse::policy::authenticate::token::{MAX_TOKEN_BYTES, parse};
use gatehouse::reason::Reason;

pub fn jwt(input: &[u8]) {
    match parse(input) {
        Ok(token) => {
            assert!(input.len() <= MAX_TOKEN_BYTES);
            assert_eq!(format!("{}.{}", token.signed, token.signature).as_bytes(), input);
            assert!(!token.signature.is_empty() && token.signed.matches('.').count() == 1);
            assert!(token.kid.is_none_or(|kid| kid.len() <= 512));
            assert!(input.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte)));
        }
        Err(fault) => {
            assert!(matches!(fault.reason, Reason::TokenMalformed | Reason::TokenAlgorithm));
            // It is shown to whoever sent the token, and repeats nothing of it.
            assert!(matches!(fault.detail, std::borrow::Cow::Borrowed(_)));
        }
    }
}
