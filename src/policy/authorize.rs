//! Authorisation: what a route asks of the claims of a token that has been accepted.
//!
//! Every rule must hold. There is no identity without a verified token, so a request without one holds
//! no rule.

use http::HeaderValue;
use serde_json::Value;

use crate::config;
use crate::identity::{Identity, Refusal, scalar_text};
use crate::reason::Reason;

/// A route's `authorize` block, compiled.
#[derive(Debug)]
pub struct Authorization {
    rules: Box<[Rule]>,
}

#[derive(Debug)]
struct Rule {
    claim: Box<str>,
    values: Vec<Box<str>>,
    denial: Refusal,
}

impl Authorization {
    /// `None` when the route asks for nothing.
    pub fn compile(rules: &[config::ClaimRule]) -> Option<Authorization> {
        let rules: Box<[Rule]> = rules.iter().map(Rule::compile).collect();
        (!rules.is_empty()).then_some(Authorization { rules })
    }

    /// Whether every rule holds; the first that does not is the one reported.
    pub fn check(&self, identity: Option<&Identity>) -> Result<(), Refusal> {
        match self.rules.iter().find(|rule| !identity.is_some_and(|identity| rule.holds(identity))) {
            None => Ok(()),
            Some(rule) => Err(rule.denial.clone()),
        }
    }
}

impl Rule {
    fn compile(rule: &config::ClaimRule) -> Rule {
        let values: Vec<Box<str>> = rule.values.iter().map(|value| value.as_str().into()).collect();
        let detail = format!("the token's claim {:?} does not have a value that this needs", rule.claim);
        let challenge = is_scope(&rule.claim).then(|| insufficient_scope(&values));
        let denial = Refusal { reason: Reason::NotAuthorized, detail: detail.into(), challenge };
        Rule { claim: rule.claim.as_str().into(), values, denial }
    }

    fn holds(&self, identity: &Identity) -> bool {
        match identity.claim(&self.claim) {
            None => false,
            Some(Value::String(scopes)) if is_scope(&self.claim) => {
                self.wants(scopes) || scopes.split(' ').any(|scope| self.wants(scope))
            }
            Some(Value::Array(elements)) => elements.iter().any(|element| self.is_met_by(element)),
            Some(single) => self.is_met_by(single),
        }
    }

    fn is_met_by(&self, value: &Value) -> bool {
        scalar_text(value).is_some_and(|text| self.wants(&text))
    }

    fn wants(&self, text: &str) -> bool {
        self.values.iter().any(|value| **value == *text)
    }
}

/// Claims whose text is a list with spaces (RFC 8693 §4.2; `scp` is what some issuers call it).
fn is_scope(claim: &str) -> bool {
    matches!(claim, "scope" | "scp")
}

/// RFC 6750 §3.1. The `scope` attribute is left out where a value has characters that it cannot hold.
fn insufficient_scope(scopes: &[Box<str>]) -> HeaderValue {
    let scope_token = |c: char| matches!(c, '!'..='~') && c != '"' && c != '\\';
    let plain = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
    if scopes.iter().any(|scope| scope.is_empty() || !scope.chars().all(scope_token)) {
        return plain;
    }
    let listed = scopes.join(" ");
    HeaderValue::try_from(format!("Bearer error=\"insufficient_scope\", scope=\"{listed}\"")).unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;

    fn identity(claims: Value) -> Identity {
        Identity {
            authenticator: "shop".into(),
            subject: None,
            claims: claims.as_object().expect("a test passes an object").clone(),
            headers: Vec::new(),
            expires_at: UNIX_EPOCH,
        }
    }

    fn rules(rules: &[(&str, &[&str])]) -> Authorization {
        let rules: Vec<config::ClaimRule> = rules
            .iter()
            .map(|(claim, values)| config::ClaimRule {
                claim: (*claim).into(),
                values: values.iter().map(|v| (*v).into()).collect(),
            })
            .collect();
        Authorization::compile(&rules).expect("there is a rule")
    }

    #[test]
    fn a_claim_may_have_many_forms() {
        let role = rules(&[("role", &["admin", "7", "true"])]);
        for (claims, holds) in [
            (json!({ "role": "admin" }), true),
            (json!({ "role": ["x", "admin"] }), true),
            (json!({ "role": 7 }), true),
            (json!({ "role": [1, 7] }), true),
            (json!({ "role": true }), true),
            (json!({ "role": "Admin" }), false),
            (json!({ "role": "x admin" }), false),
            (json!({ "role": "admin " }), false),
            (json!({ "role": [["admin"]] }), false),
            (json!({ "role": { "admin": true } }), false),
            (json!({ "role": null }), false),
            (json!({ "role": [] }), false),
            (json!({}), false),
        ] {
            assert_eq!(role.check(Some(&identity(claims.clone()))).is_ok(), holds, "{claims}");
        }
        assert!(role.check(None).is_err(), "nobody holds no rule");
    }

    #[test]
    fn scopes_are_split_at_spaces() {
        for claim in ["scope", "scp"] {
            let write = rules(&[(claim, &["write"])]);
            assert!(write.check(Some(&identity(json!({ claim: "read write" })))).is_ok());
            assert!(write.check(Some(&identity(json!({ claim: ["read", "write"] })))).is_ok());
            assert!(write.check(Some(&identity(json!({ claim: "read overwrite" })))).is_err());
            assert!(write.check(Some(&identity(json!({ claim: "read,write" })))).is_err());
        }
    }

    #[test]
    fn every_rule_must_hold_and_paths_go_inside() {
        let both = rules(&[("realm_access.roles", &["editor"]), ("tenant", &["a", "b"])]);
        let nested = json!({ "realm_access": { "roles": ["user", "editor"] }, "tenant": "b" });
        assert!(both.check(Some(&identity(nested))).is_ok());
        let half = identity(json!({ "realm_access": { "roles": ["editor"] } }));
        let denial = both.check(Some(&half)).expect_err("tenant is missing");
        assert_eq!(denial.reason, Reason::NotAuthorized);
        assert!(denial.detail.contains("tenant"), "{}", denial.detail);
        assert_eq!(denial.challenge, None);
    }

    #[test]
    fn only_scopes_are_challenged_for() {
        let challenge = |claim: &str, values: &[&str]| {
            let denial = rules(&[(claim, values)]).check(None).expect_err("nobody");
            denial.challenge.map(|value| value.to_str().expect("ASCII").to_owned())
        };
        assert_eq!(
            challenge("scope", &["read", "write"]).as_deref(),
            Some("Bearer error=\"insufficient_scope\", scope=\"read write\"")
        );
        assert_eq!(challenge("scp", &["a\"b"]).as_deref(), Some("Bearer error=\"insufficient_scope\""));
        assert_eq!(challenge("role", &["admin"]), None);
    }

    #[test]
    fn no_rules_are_no_policy() {
        assert!(Authorization::compile(&[]).is_none());
    }
}
