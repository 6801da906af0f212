//! Names of things defined elsewhere in the file, checked where they are written.

use serde_json::Value as Json;

use crate::config::block::Value;
use crate::config::model::{At, Ref};
use crate::config::reader::{NameTable, Names, Reader, has_variables};
use crate::config::values::{Name, undefined};
use crate::config::yaml::Node;

macro_rules! reference {
    ($(#[doc = $doc:literal])* $reference:ident, $table:ident, $kind:literal) => {
        $(#[doc = $doc])*
        pub(super) struct $reference(pub Ref);

        impl Value for $reference {
            fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                refer(node, reader, $kind, stringify!($table), |names| &mut names.$table).map($reference)
            }

            fn schema() -> Json {
                Name::schema()
            }
        }

        impl From<$reference> for Ref {
            fn from(reference: $reference) -> Ref {
                reference.0
            }
        }
    };
}

reference!(
    /// The name of a service.
    ServiceRef, services, "service"
);
reference!(
    /// The name of an authenticator.
    AuthenticatorRef, authenticators, "authenticator"
);
reference!(
    /// The name of a rate limit.
    RateLimitRef, rate_limits, "rate limit"
);

fn refer(
    node: &Node<'_>,
    reader: &mut Reader<'_>,
    kind: &str,
    block: &str,
    table: impl Fn(&mut Names) -> &mut NameTable,
) -> Option<Ref> {
    let Name(name) = Name::read(node, reader)?;
    let names = table(&mut reader.names);
    if names.contains(&name) {
        names.used.insert(name.clone());
        return Some(At { value: name, span: node.span });
    }
    // A name that came out of a variable isn't shown.
    if has_variables(node) {
        reader.error(
            node.span,
            format!("there is no {kind} of that name"),
            format!("define it under `{block}:`"),
        );
        return None;
    }
    let defined = std::mem::take(&mut table(&mut reader.names).defined);
    undefined(reader, node.span, &name, kind, block, &defined);
    table(&mut reader.names).defined = defined;
    None
}
