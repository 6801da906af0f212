//! `zone`, `priority` and `failover`: which instances are preferred, and when requests go over to the others.

use serde_json::{Value as Json, json};

use crate::config::block::{Place, Value, block};
use crate::config::model::Failover;
use crate::config::reader::{Form, Reader, has_variables, shown};
use crate::config::values::{text_schema, text_value};
use crate::config::yaml::Node;

/// As in instance files and registries.
const MAX_ZONE_BYTES: usize = 64;

/// The zone of an instance.
pub(super) struct ZoneName(pub String);

impl Value for ZoneName {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let OwnZone(name) = OwnZone::read(node, reader)?;
        if name.is_none() {
            reader.error(node.span, "this zone is empty", "write its name, or remove the key");
        }
        name.map(ZoneName)
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1 })
    }
}

/// The zone of the gateway; an empty one is none, so that `${ZONE:-}` can be written.
pub(super) struct OwnZone(pub Option<String>);

impl Value for OwnZone {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let name = text_value(node, reader)?;
        if name.len() > MAX_ZONE_BYTES || name.chars().any(char::is_control) {
            let message = format!("a zone is text of 1 to {MAX_ZONE_BYTES} bytes");
            reader.error(node.span, message, "write the name that the instances have: a, or eu-west-1a");
            return None;
        }
        Some(OwnZone(Some(name).filter(|name| !name.is_empty())))
    }

    fn schema() -> Json {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

block! {
    /// How requests go over to other zones and priorities.
    "a failover block" FailoverBlock => FailoverGiven {
        /// How much of its usual part of the requests the rest of a zone, or of a priority, is expected to take. Default 140%.
        overprovisioning: Overprovisioning,
        /// Prefer the instances of the gateway's own zone. Default true.
        prefer_zone: bool,
    }
}

/// What is written of [`Failover`].
pub(super) struct FailoverGiven {
    overprovisioning: u16,
    prefer_zone: bool,
}

impl FailoverBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<FailoverGiven> {
        let usual = FailoverGiven::default();
        Some(FailoverGiven {
            overprovisioning: self.overprovisioning.or(Overprovisioning(usual.overprovisioning))?.0,
            prefer_zone: self.prefer_zone.or(usual.prefer_zone)?,
        })
    }
}

impl Default for FailoverGiven {
    fn default() -> Self {
        FailoverGiven { overprovisioning: Failover::default().overprovisioning, prefer_zone: true }
    }
}

impl FailoverGiven {
    /// For a gateway in this zone.
    pub fn seen_from(self, zone: Option<&String>) -> Failover {
        let local_zone = zone.filter(|_| self.prefer_zone).cloned();
        Failover { overprovisioning: self.overprovisioning, local_zone }
    }
}

/// A percentage of 100 or more.
struct Overprovisioning(u16);

const MOST: u16 = 1000;

impl Value for Overprovisioning {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a percentage", remedy: "write a percentage of 100 or more: 140%" };
        let percent = reader.parse(node, &form, |text| match text.strip_suffix('%') {
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(digits.parse::<u16>().unwrap_or(u16::MAX))
            }
            None => Err(text
                .parse::<f64>()
                .ok()
                .filter(|n| (1.0..=10.0).contains(n))
                .map(|n| format!("write {:.0}%", n * 100.0))),
            _ => Err(None),
        })?;
        if !(100..=MOST).contains(&percent) {
            let found = if has_variables(node) { "this".to_owned() } else { shown(node) };
            let message = format!("{found} is outside 100% to {MOST}%");
            reader.error(
                node.span,
                message,
                "100% goes over with the first instance that fails, 140% is usual",
            );
            return None;
        }
        Some(Overprovisioning(percent))
    }

    fn schema() -> Json {
        text_schema("[0-9]+%")
    }
}
