//! Who may call before anyone has said who they are: maintenance, address lists, the method that counts.

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::listener::located;
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{At, IpFilter, Maintenance, MethodOverride, NetworkSource};
use crate::config::reader::Reader;
use crate::config::values::http::{Direction, may_edit};
use crate::config::values::units::Wait;
use crate::config::values::{FilePath, NonEmpty};
use crate::config::yaml::{Kind, Node};

block! {
    /// Every request gets a 503 for as long as something is being done: while a file exists, or `enabled` says so.
    "a maintenance block" MaintenanceBlock => Maintenance {
        /// Whether it is on whatever files there are. Default: only while the file exists.
        enabled: bool,
        /// It is on while this file exists, whatever is in it.
        while_file_exists: At<FilePath>,
        /// What `Retry-After` says. Default 2m.
        retry_after: Wait,
        /// Networks whose clients are served all the same. Default: none.
        except: Vec<IpNet>,
    }
}

impl MaintenanceBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<Maintenance> {
        if self.enabled.is_absent() && self.while_file_exists.is_absent() && !place.strays {
            reader.error(
                place.span,
                "this doesn't say when maintenance is",
                "add `while_file_exists: __maintenance__` or `enabled: true`",
            );
            return None;
        }
        if let (Some(false), Some(file)) = (self.enabled.value(), self.while_file_exists.value()) {
            let message = "`enabled: false` switches maintenance off, so this file plays no part";
            reader.error(file.span, message, "remove one of them");
            return None;
        }
        let file = self.while_file_exists.optional::<At<FilePath>>();
        let retry_after = self.retry_after.or(Duration::from_secs(120));
        Some(Maintenance {
            enabled: self.enabled.or(false)?,
            while_file_exists: file?.map(located),
            retry_after: retry_after?,
            except: self.except.or(Vec::new())?,
        })
    }
}

/// An address filter, once more than nothing is in it.
pub(super) struct IpFilterBody(pub IpFilter);

block! {
    /// Which addresses may call. The longest prefix that an address is in decides, and `deny` where both have it.
    "an ip_filter block" IpFilterBlock => IpFilterBody {
        /// Networks, and files of them. With it, whoever is in neither list is refused.
        allow: Vec<NetworkSource>,
        /// Networks, and files of them, that are refused.
        deny: Vec<NetworkSource>,
    }
}

impl IpFilterBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<IpFilterBody> {
        let is_wrong = |list: &Field<_>| matches!(list, Field::Wrong);
        let has_none = |list: &Field<Vec<NetworkSource>>| list.value().is_none_or(Vec::is_empty);
        let wrong = is_wrong(&self.allow) || is_wrong(&self.deny);
        if has_none(&self.allow) && has_none(&self.deny) && !wrong && !place.strays {
            let remedy = "write `allow: [10.0.0.0/8]` or `deny: [{ file: deny.txt }]`";
            reader.error(place.span, "an address filter without a network lets everyone in", remedy);
            return None;
        }
        Some(IpFilterBody(IpFilter { allow: self.allow.or(Vec::new())?, deny: self.deny.or(Vec::new())? }))
    }
}

impl Value for NetworkSource {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.kind {
            Kind::Map(_) => NetworkFile::read(node, reader).map(|file| NetworkSource::File(file.0)),
            _ => IpNet::read(node, reader).map(NetworkSource::Network),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [IpNet::schema(), NetworkFile::schema()] })
    }
}

struct NetworkFile(At<PathBuf>);

block! {
    /// A file of networks.
    "a file of networks" NetworkFileBlock => NetworkFile {
        /// One network or address a line, `#` before a comment. Read again when it changes.
        file: At<FilePath> ["deny.txt"],
    }
}

impl NetworkFileBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<NetworkFile> {
        self.file.required().map(located).map(NetworkFile)
    }
}

block! {
    /// A field by which a POST asks to be taken for another method. The gateway decides by that one, and sends it on.
    "a method_override block" MethodOverrideBlock => MethodOverride {
        /// The field that names the method. Default x-http-method-override.
        header: At<HeaderName>,
        /// The methods that may be asked for.
        allow: NonEmpty<At<Method>> ["[PUT, PATCH, DELETE]"],
    }
}

impl MethodOverrideBlock {
    fn finish(self, _: Place, reader: &mut Reader<'_>) -> Option<MethodOverride> {
        let header = self.header.optional::<At<HeaderName>>()?;
        if let Some(header) = &header
            && !may_edit(&header.value, Direction::Request, header.span, reader)
        {
            return None;
        }
        let mut right = true;
        let allow: Vec<At<Method>> = self.allow.required()?;
        for method in &allow {
            // What a connection or a preflight has understood already can't become something else afterwards.
            if matches!(method.as_str(), "GET" | "HEAD" | "POST" | "OPTIONS" | "TRACE") {
                let message = format!("a POST can't be taken for {}", method.value);
                reader.error(method.span, message, "write methods such as PUT, PATCH and DELETE");
                right = false;
            }
        }
        right.then(|| MethodOverride {
            header: header.map_or(OVERRIDE, |header| header.value),
            allow: allow.into_iter().map(|method| method.value).collect(),
        })
    }
}

const OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
