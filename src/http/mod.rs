//! What HTTP itself says: paths, hop-by-hop fields, forwarding fields, bodies, problem documents.

pub mod alike;
pub mod body;
pub mod cookie;
pub mod date;
pub mod fetch;
pub mod field_lines;
pub mod fields;
pub mod forwarded;
mod hex;
pub mod hop_by_hop;
pub mod host;
pub mod interim;
pub mod interned;
pub mod key_hash;
pub mod notable;
pub mod path;
pub mod problem;
pub mod query;
mod random;
pub mod request_id;
pub mod response;
pub mod rewound;
pub mod small_server;
pub mod target;
pub mod template;
pub mod trace;
pub mod via;
