//! `tls` of a service: how its instances are spoken to over TLS, and that all of them are or none.

use serde_json::{Value as Json, json};

use super::listener::located;
use crate::config::block::{Field, Place, Value, block};
use crate::config::model::{At, CertificateFiles, Protocol, ServiceTls, TlsVersion};
use crate::config::reader::Reader;
use crate::config::source::Span;
use crate::config::values::net::CertificateName;
use crate::config::values::{FilePath, choice, choice_schema};
use crate::config::yaml::{Kind, Node};

block! {
    /// Speak TLS with the service's instances, and check who they are.
    "the tls block of a service" ServiceTlsBlock => ServiceTls {
        /// A PEM file of certificates that are trusted, and no others. Default: those that the system trusts.
        trust: At<FilePath>,
        /// What an instance's certificate must be for, and what is asked for by SNI. Default: the host of the instance.
        server_name: CertificateName,
        /// What the gateway shows to an instance that asks for a certificate: a PEM file, its own first.
        certificate: At<FilePath>,
        /// The key of `certificate`.
        private_key: At<FilePath>,
        /// The oldest version to accept: "1.2" (the default) or "1.3".
        min_version: TlsVersion,
        /// `false`: whoever answers is trusted. Only where nobody else can be there.
        verify: At<bool>,
    }
}

impl ServiceTlsBlock {
    fn finish(self, place: Place, reader: &mut Reader<'_>) -> Option<ServiceTls> {
        let (trust, server_name) = (self.trust.optional::<At<FilePath>>(), self.server_name.optional());
        let client = client(self.certificate, self.private_key, reader);
        let min_version = self.min_version.or(TlsVersion::Tls12);
        let verify = self.verify.optional::<At<bool>>()?;
        let trust = trust?.map(located);
        if let Some(off) = verify.as_ref().filter(|verify| !verify.value) {
            if trust.is_some() {
                reader.error(
                    off.span,
                    "`verify: false` trusts everybody, and `trust` says whom to trust",
                    "remove `verify: false`",
                );
                return None;
            }
            reader.warning(
                off.span,
                "the certificates of instances are not checked: anybody on the way can read and change everything",
                "name the certificate of their issuer, or their own, with `trust`",
            );
        }
        Some(ServiceTls {
            at: At { value: (), span: place.span },
            trust,
            server_name: server_name?,
            client: client?,
            min_version: min_version?,
            verify: verify.is_none_or(|verify| verify.value),
        })
    }
}

/// Both files or none.
fn client(
    certificate: Field<At<FilePath>>,
    private_key: Field<At<FilePath>>,
    reader: &mut Reader<'_>,
) -> Option<Option<CertificateFiles>> {
    let (certificate, private_key) =
        (certificate.optional::<At<FilePath>>(), private_key.optional::<At<FilePath>>());
    match (certificate?, private_key?) {
        (None, None) => Some(None),
        (Some(certificate), Some(private_key)) => Some(Some(CertificateFiles {
            certificate: located(certificate),
            private_key: located(private_key),
            ocsp: None,
        })),
        (Some(alone), None) => {
            reader.error(alone.span, "a certificate is of no use without its key", "add `private_key`");
            None
        }
        (None, Some(alone)) => {
            reader.error(alone.span, "a key is of no use without its certificate", "add `certificate`");
            None
        }
    }
}

/// The block, or `true` for one in which everything is as usual.
pub(super) struct TlsOrTrue(pub ServiceTls);

impl Value for TlsOrTrue {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if !matches!(&node.kind, Kind::Scalar(scalar) if !scalar.text.is_empty()) {
            return ServiceTls::read(node, reader).map(TlsOrTrue);
        }
        if bool::read(node, reader)? {
            return Some(TlsOrTrue(ServiceTls::usual(node.span)));
        }
        let remedy = "remove `tls`: instances are spoken to in plain HTTP without it";
        reader.error(node.span, "there is no TLS to switch off", remedy);
        None
    }

    fn schema() -> Json {
        json!({ "anyOf": [ServiceTls::schema(), { "const": true }] })
    }
}

const PROTOCOLS: [(&str, Protocol); 3] =
    [("http1", Protocol::Http1), ("h2", Protocol::H2), ("auto", Protocol::Auto)];

impl Value for Protocol {
    fn read(node: &Node<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        choice(node, reader, "a protocol that instances can be spoken to in", &PROTOCOLS, &[])
    }

    fn schema() -> Json {
        choice_schema(&PROTOCOLS)
    }
}

/// What the URL of an instance says, and where.
#[derive(Clone, Copy)]
pub(super) struct Scheme {
    pub is_https: bool,
    pub span: Span,
}

/// TLS as the block and the URLs of static instances want it. Were some instances spoken to in the clear, what is kept
/// from others on the way to the rest would not be kept from them.
pub(super) fn agreed(
    tls: Option<ServiceTls>,
    schemes: &[Scheme],
    reader: &mut Reader<'_>,
) -> Option<Option<ServiceTls>> {
    let first_https = schemes.iter().find(|scheme| scheme.is_https);
    let first_http = schemes.iter().find(|scheme| !scheme.is_https);
    match (tls, first_https, first_http) {
        (Some(_), _, Some(http)) => {
            let message = "the service has `tls`, and this instance is plain http";
            reader.error(http.span, message, "write https://, or remove `tls`");
            None
        }
        (None, Some(_), Some(http)) => {
            let message = "other instances of the service are https, and this one is plain http";
            reader.error(http.span, message, "write https:// for all of them, or make two services of them");
            None
        }
        (Some(tls), _, None) => Some(Some(tls)),
        (None, Some(https), None) => Some(Some(ServiceTls::usual(https.span))),
        (None, None, _) => Some(None),
    }
}
