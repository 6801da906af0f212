//! What HTTP itself says: paths, hop-by-hop fields, forwarding fields, bodies, problem documents.

pub mod small_server;
