//! Fields that tell browsers to be careful with a response: a preset, and changes to it.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};
use serde_json::{Value as Json, json};

use crate::config::block::{Field, Place, Value, block};
use crate::config::model::SecurityHeaders;
use crate::config::reader::{Form, Reader};
use crate::config::values::units::Age;
use crate::config::values::{choice, choice_schema};
use crate::config::yaml::{Kind, Node};

/// A preset, `true` for the basic one, `false` for none of it, or a block.
pub(super) struct Security(pub SecurityHeaders);

impl Value for Security {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match node.kind {
            Kind::Scalar(_) => {
                let preset = choice(node, reader, "a preset, true or false", &SHORT, &[])?;
                let headers = preset.map(|preset| Said::of(preset).fields(false));
                Some(Security(headers.unwrap_or_default()))
            }
            _ => SecurityBody::read(node, reader).map(|body| Security(body.0)),
        }
    }

    fn schema() -> Json {
        let short = json!({ "enum": [true, false, "true", "false", "basic", "strict"] });
        json!({ "anyOf": [short, { "type": "string", "pattern": "\\$\\{" }, SecurityBody::schema()] })
    }
}

const SHORT: [(&str, Option<Preset>); 4] = [
    ("true", Some(Preset::Basic)),
    ("false", None),
    ("basic", Some(Preset::Basic)),
    ("strict", Some(Preset::Strict)),
];

struct SecurityBody(SecurityHeaders);

block! {
    /// Fields that tell browsers to be careful. What the service says itself stays.
    "a security_headers block" SecurityBlock => SecurityBody {
        /// What the other keys are changes to: basic (the default), for any site, or strict, for APIs.
        preset: Preset,
        /// Strict-Transport-Security, over TLS only: what to say, or off. Default: a year.
        hsts: Or<Hsts>,
        /// X-Content-Type-Options: nosniff or off.
        content_type_options: Or<Sniffing>,
        /// X-Frame-Options, and frame-ancestors of the preset's policy: deny, sameorigin or off.
        frame_options: Or<Frames>,
        /// Content-Security-Policy: a policy, or off.
        content_security_policy: Or<Text>,
        /// Referrer-Policy: one of its words, or off.
        referrer_policy: Or<Referrer>,
        /// Permissions-Policy: a policy, or off.
        permissions_policy: Or<Text>,
        /// Cross-Origin-Opener-Policy: same-origin, same-origin-allow-popups, unsafe-none or off.
        cross_origin_opener_policy: Or<Opener>,
        /// Cross-Origin-Resource-Policy: same-origin, same-site, cross-origin or off.
        cross_origin_resource_policy: Or<Resource>,
        /// Whether they stand in the place of what the service says. Default false.
        replace: bool,
    }
}

impl SecurityBlock {
    fn finish(self, _: Place, _: &mut Reader<'_>) -> Option<SecurityBody> {
        let mut said = Said::of(self.preset.or(Preset::Basic)?);
        change(self.hsts, &mut said.hsts, |hsts| hsts)?;
        change(self.content_type_options, &mut said.sniffing, |_| ())?;
        change(self.frame_options, &mut said.frames, |frames| frames)?;
        let policy = self.content_security_policy.optional::<Or<Text>>()?;
        change(self.referrer_policy, &mut said.referrer, |Referrer(value)| HeaderValue::from_static(value))?;
        change(self.permissions_policy, &mut said.permissions, |Text(value)| value)?;
        change(self.cross_origin_opener_policy, &mut said.opener, |Opener(value)| value)?;
        change(self.cross_origin_resource_policy, &mut said.resource, |Resource(value)| value)?;
        if let Some(Or(policy)) = policy {
            said.policy = policy.map_or(Policy::Off, |Text(policy)| Policy::Own(policy));
        }
        Some(SecurityBody(said.fields(self.replace.or(false)?)))
    }
}

fn change<T, U>(field: Field<Or<T>>, said: &mut Option<U>, made: impl Fn(T) -> U) -> Option<()> {
    if let Some(Or(change)) = field.optional::<Or<T>>()? {
        *said = change.map(made);
    }
    Some(())
}

#[derive(Clone, Copy)]
enum Preset {
    Basic,
    Strict,
}

/// What is said, before it is made into fields.
struct Said {
    preset: Preset,
    hsts: Option<Hsts>,
    sniffing: Option<()>,
    frames: Option<Frames>,
    policy: Policy,
    referrer: Option<HeaderValue>,
    permissions: Option<HeaderValue>,
    opener: Option<&'static str>,
    resource: Option<&'static str>,
}

enum Policy {
    OfPreset,
    Own(HeaderValue),
    Off,
}

/// What a page has no business with that is no page.
const NO_FEATURES: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), \
                           microphone=(), midi=(), payment=(), usb=()";

impl Said {
    fn of(preset: Preset) -> Said {
        let strict = matches!(preset, Preset::Strict);
        Said {
            preset,
            hsts: Some(Hsts { max_age: YEAR, include_subdomains: None, preload: false }),
            sniffing: Some(()),
            frames: Some(if strict { Frames::Deny } else { Frames::SameOrigin }),
            policy: Policy::OfPreset,
            referrer: Some(HeaderValue::from_static(match strict {
                true => "no-referrer",
                false => "strict-origin-when-cross-origin",
            })),
            permissions: strict.then(|| HeaderValue::from_static(NO_FEATURES)),
            opener: strict.then_some("same-origin"),
            resource: strict.then_some("same-origin"),
        }
    }

    fn fields(self, replace: bool) -> SecurityHeaders {
        let policy = self.policy();
        let fixed = HeaderValue::from_static;
        let fields = [
            (header::X_CONTENT_TYPE_OPTIONS, self.sniffing.map(|()| fixed("nosniff"))),
            (header::X_FRAME_OPTIONS, self.frames.map(|frames| fixed(frames.option()))),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::REFERRER_POLICY, self.referrer),
            (HeaderName::from_static("permissions-policy"), self.permissions),
            (HeaderName::from_static("cross-origin-opener-policy"), self.opener.map(fixed)),
            (HeaderName::from_static("cross-origin-resource-policy"), self.resource.map(fixed)),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        SecurityHeaders {
            fields: fields.collect(),
            hsts: self.hsts.map(|hsts| hsts.value(matches!(self.preset, Preset::Strict))),
            replace,
        }
    }

    /// That of the preset says about frames what `X-Frame-Options` says, which browsers that know both ignore.
    fn policy(&self) -> Option<HeaderValue> {
        let frames = self.frames.map(|frames| match frames {
            Frames::Deny => "frame-ancestors 'none'",
            Frames::SameOrigin => "frame-ancestors 'self'",
        });
        let sources = matches!(self.preset, Preset::Strict).then_some("default-src 'none'");
        match &self.policy {
            Policy::Off => None,
            Policy::Own(policy) => Some(policy.clone()),
            Policy::OfPreset => match (sources, frames) {
                (None, None) => None,
                (Some(one), None) | (None, Some(one)) => Some(HeaderValue::from_static(one)),
                (Some(_), Some(_)) => Some(HeaderValue::from_static(match self.frames {
                    Some(Frames::SameOrigin) => "default-src 'none'; frame-ancestors 'self'",
                    _ => "default-src 'none'; frame-ancestors 'none'",
                })),
            },
        }
    }
}

/// Something, or `off`.
struct Or<T>(Option<T>);

impl<T: Value> Value for Or<T> {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        match &node.kind {
            Kind::Scalar(scalar) if scalar.text == "off" => Some(Or(None)),
            _ => T::read(node, reader).map(|value| Or(Some(value))),
        }
    }

    fn schema() -> Json {
        json!({ "anyOf": [{ "enum": ["off", false] }, T::schema()] })
    }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

struct Hsts {
    max_age: Duration,
    /// `None`: as the preset has it.
    include_subdomains: Option<bool>,
    preload: bool,
}

block! {
    /// Strict-Transport-Security (RFC 6797).
    "an hsts block" HstsBlock => Hsts {
        /// How long a browser insists on TLS. Default 8760h.
        max_age: Age,
        /// Whether the subdomains are meant, too. Default: with the strict preset.
        include_subdomains: bool,
        /// Whether the name may be built into browsers. It can hardly be taken back. Default false.
        preload: bool,
    }
}

impl HstsBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<Hsts> {
        let max_age: Duration = self.max_age.or(YEAR)?;
        let include_subdomains = self.include_subdomains.optional::<bool>()?;
        let preload = self.preload.or(false)?;
        // What https://hstspreload.org asks of whom it lists.
        if preload && (max_age < YEAR || include_subdomains != Some(true)) {
            let remedy =
                "add `include_subdomains: true`, and a `max_age` of 8760h or more; or remove `preload`";
            reader.error(place.span, "no browser takes this for its preload list", remedy);
            return None;
        }
        Some(Hsts { max_age, include_subdomains, preload })
    }
}

impl Hsts {
    fn value(&self, with_subdomains: bool) -> HeaderValue {
        let mut text = format!("max-age={}", self.max_age.as_secs());
        if self.include_subdomains.unwrap_or(with_subdomains) {
            text += "; includeSubDomains";
        }
        if self.preload {
            text += "; preload";
        }
        HeaderValue::try_from(text).expect("digits and constants are visible ASCII")
    }
}

/// The value of a field, as it is to be sent.
struct Text(HeaderValue);

impl Value for Text {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let form = Form { name: "a policy", remedy: "write it as the field has it, in quotes; or off" };
        let value = reader.parse(node, &form, |text| match text.is_empty() {
            true => Err(None),
            false => HeaderValue::from_str(text).map_err(|_| None),
        })?;
        Some(Text(value))
    }

    fn schema() -> Json {
        json!({ "type": "string", "minLength": 1 })
    }
}

#[derive(Clone, Copy)]
enum Frames {
    Deny,
    SameOrigin,
}

impl Frames {
    fn option(self) -> &'static str {
        match self {
            Frames::Deny => "DENY",
            Frames::SameOrigin => "SAMEORIGIN",
        }
    }
}

#[derive(Clone, Copy)]
struct Sniffing;

#[derive(Clone, Copy)]
struct Opener(&'static str);

#[derive(Clone, Copy)]
struct Resource(&'static str);

macro_rules! words {
    ($($type:ty, $what:literal: [$($word:literal => $value:expr),* $(,)?];)*) => { $(
        impl Value for $type {
            fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
                choice(node, reader, $what, &[$(($word, $value)),*], &[])
            }

            fn schema() -> Json {
                choice_schema(&[$(($word, $value)),*])
            }
        }
    )* };
}

words! {
    Preset, "a preset": ["basic" => Preset::Basic, "strict" => Preset::Strict];
    Sniffing, "what to say about guessing types": ["nosniff" => Sniffing];
    Frames, "what to say about frames": ["deny" => Frames::Deny, "sameorigin" => Frames::SameOrigin];
    Opener, "what to say about opening pages": [
        "same-origin" => Opener("same-origin"),
        "same-origin-allow-popups" => Opener("same-origin-allow-popups"),
        "unsafe-none" => Opener("unsafe-none"),
    ];
    Resource, "who may load it": [
        "same-origin" => Resource("same-origin"),
        "same-site" => Resource("same-site"),
        "cross-origin" => Resource("cross-origin"),
    ];
}

#[derive(Clone, Copy)]
struct Referrer(&'static str);

/// The words of the Referrer Policy standard, §3.
const REFERRER: [&str; 8] = [
    "no-referrer",
    "no-referrer-when-downgrade",
    "same-origin",
    "origin",
    "strict-origin",
    "origin-when-cross-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
];

impl Value for Referrer {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "a referrer policy", &REFERRER.map(|word| (word, Referrer(word))), &[])
    }

    fn schema() -> Json {
        choice_schema(&REFERRER.map(|word| (word, ())))
    }
}
