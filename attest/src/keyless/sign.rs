//! Signing without a key of one's own: an identity token becomes a certificate for a key that signs once.
//!
//! [`Instance`] is where: Sigstore's public services, or private ones out of a client trust configuration. [`Instance::sign`]
//! asks Fulcio for a certificate, signs, has a timestamp authority say when, and enters the signature into the log. A log
//! that is down does not stop it: with a timestamp the bundle is complete but for its entry, and [`Instance::enter`] makes
//! that later, when nobody has the key any more. What comes out was verified against the instance's trusted root.
//!
//! This file talks to the network and reads the clock; the rest of the room does neither.

use std::time::Duration;

use serde::Deserialize;
use sigstore_bundle::BundleV03;
use sigstore_fulcio::FulcioClient;
use sigstore_oidc::IdentityToken;
use sigstore_rekor::reqwest;
use sigstore_rekor::{
    DsseEntry, Error as RekorError, HashedRekordV2, RekorApiVersion, RekorClient, RekorV2Client,
    RekorV2KeyDetails,
};
use sigstore_trust_root::tuf::{TufConfig, fetch_trust_material};
use sigstore_trust_root::{ServiceEndpoint, SigningConfig, TrustedRoot};
use sigstore_tsa::TimestampClient;
use sigstore_verify::crypto::{KeyPair, parse_certificate_info, sha256};
use sigstore_verify::types::bundle::{SignatureContent, VerificationMaterialContent};
use sigstore_verify::types::{
    Bundle, DerCertificate, DsseEnvelope, DsseSignature, EntryUuid, KeyId, KindVersion,
    PayloadBytes, TimestampToken, TransparencyLogEntry,
};

use super::provider::use_ring;
use super::{Certified, KeylessError, Log, MAX_TRUSTED_ROOT_BYTES, read_root, verify_with};
use crate::dsse::pae;
use crate::received::MAX_RECEIVED_BYTES;
use crate::statement::PAYLOAD_TYPE;

/// How long a service may take to answer; a log of the second version answers when the entry is in, within 20 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest identity token; GitLab's have about 2 kB.
pub const MAX_TOKEN_BYTES: usize = 64 << 10;
/// The largest statement: its bundle, in Base64 and with the log's proof, must be readable again.
const MAX_STATEMENT_BYTES: usize = MAX_RECEIVED_BYTES / 2;
/// A log's answer names an equivalent entry by so many hex digits, with or without the tree's id before it.
const UUID_DIGITS: [usize; 2] = [80, 64];

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The token can't be used.
    #[error("the identity token: {0}")]
    Token(String),
    /// The trust configuration can't be used for signing.
    #[error("the trust configuration: {0}")]
    Config(String),
    /// The public instance's services can't be learned.
    #[error("the public instance's trust material can't be fetched: {0}")]
    Public(String),
    /// Fulcio gives no certificate.
    #[error("no certificate from {url}: {why}")]
    Certificate {
        /// Fulcio's address.
        url: String,
        /// Its answer.
        why: String,
    },
    /// The log refuses the entry; trying again would not help.
    #[error("the log {url} refuses the entry: {why}")]
    LogRefuses {
        /// The log's address.
        url: String,
        /// Its answer.
        why: String,
    },
    /// Neither log nor authority says when this was signed, and the certificate is over in minutes.
    #[error("nobody says when this was signed: {0}; sign again when one of them answers")]
    NoTime(String),
    /// What is to be entered is not a queued bundle.
    #[error("{0}")]
    Queued(String),
    /// The instance gave us something that does not verify with its own trusted root.
    #[error("what {0} made does not verify with its trusted root")]
    Unverified(String, #[source] KeylessError),
    /// Something before the first request failed.
    #[error("{0}")]
    Prepare(String),
}

/// An identity token, as GitLab puts it into `SIGSTORE_ID_TOKEN`. It is checked by Fulcio, not by us.
#[derive(Debug)]
pub struct Token(IdentityToken);

impl Token {
    /// Reads a token; one that is over already is refused here, since Fulcio's answer would not say so.
    pub fn parse(text: &str) -> Result<Self, SignError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(SignError::Token(format!(
                "it has more than {MAX_TOKEN_BYTES} bytes"
            )));
        }
        let token = IdentityToken::from_jwt(text).map_err(|e| SignError::Token(e.to_string()))?;
        if token.is_expired() {
            return Err(SignError::Token(format!(
                "it was good until {}",
                token.expiration()
            )));
        }
        Ok(Self(token))
    }

    /// Who vouches for the identity.
    pub fn issuer(&self) -> &str {
        self.0.issuer()
    }

    /// Whose it is.
    pub fn subject(&self) -> &str {
        self.0.subject()
    }
}

/// A bundle, verified.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The bundle, as JSON.
    pub bundle: Vec<u8>,
    /// Whom it is from.
    pub by: Certified,
    /// Why there is no log entry yet, where there is none: hand the bundle to [`Instance::enter`] later.
    pub queued: Option<String>,
    /// What did not work and does not matter.
    pub notes: Vec<String>,
}

/// Where to sign: a certificate authority, a log, and perhaps a timestamp authority.
#[derive(Debug, Clone)]
pub struct Instance {
    root: TrustedRoot,
    fulcio: String,
    log: String,
    log_version: RekorApiVersion,
    timestamps: Option<String>,
    http: reqwest::Client,
}

/// How the log's answer ends.
enum LogFailure {
    /// It is down, or something that is no log answers in its place.
    Outage(String),
    Refused(String),
}

impl From<RekorError> for LogFailure {
    fn from(error: RekorError) -> Self {
        /// The client's fault, and not a moment's: all of 4xx but a time-out and too many requests.
        const PASSING: [u16; 2] = [408, 429];
        match &error {
            RekorError::Status { status, .. }
                if (400..500).contains(status) && !PASSING.contains(status) =>
            {
                Self::Refused(error.to_string())
            }
            _ => Self::Outage(error.to_string()),
        }
    }
}

impl Instance {
    /// Sigstore's public instance, by its current trust material, which TUF brings and checks.
    pub async fn public() -> Result<Self, SignError> {
        let http = http()?;
        let config = TufConfig::production().with_http_client(http.clone());
        let (root, services) = fetch_trust_material(config)
            .await
            .map_err(|e| SignError::Public(e.to_string()))?;
        Self::new(root, &services, http)
    }

    /// A private instance, by its client trust configuration: trusted root and signing configuration in one document.
    pub fn from_trust_config(bytes: &[u8]) -> Result<Self, SignError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Config {
            signing_config: Option<serde_json::Value>,
        }
        if bytes.len() > MAX_TRUSTED_ROOT_BYTES {
            return Err(SignError::Config(format!(
                "it has more than {MAX_TRUSTED_ROOT_BYTES} bytes"
            )));
        }
        let config: Config =
            serde_json::from_slice(bytes).map_err(|e| SignError::Config(e.to_string()))?;
        let services = config.signing_config.ok_or_else(|| {
            let why = "it has no `signingConfig`, which says where to sign; a trusted root alone is for verifying";
            SignError::Config(why.into())
        })?;
        let services = SigningConfig::from_json(&services.to_string())
            .map_err(|e| SignError::Config(e.to_string()))?;
        let root = read_root(bytes).map_err(|e| SignError::Config(e.to_string()))?;
        Self::new(root, &services, http()?)
    }

    fn new(
        root: TrustedRoot,
        services: &SigningConfig,
        http: reqwest::Client,
    ) -> Result<Self, SignError> {
        let missing = |what: &str| SignError::Config(format!("it names no {what} that is in use"));
        let url = |endpoint: &ServiceEndpoint| endpoint.url.clone();
        let log = services
            .rekor_url(None)
            .ok_or_else(|| missing("transparency log"))?;
        let instance = Self {
            root,
            fulcio: services
                .fulcio_url()
                .map(url)
                .ok_or_else(|| missing("certificate authority"))?,
            log: url(log),
            log_version: RekorApiVersion::from_major(log.major_api_version)
                .ok_or_else(|| missing("transparency log of a version that we speak"))?,
            timestamps: services.tsa_url().map(url),
            http,
        };
        if instance.log_version == RekorApiVersion::V2 && instance.timestamps.is_none() {
            let why = "a log of version 2 says no time, so a timestamp authority must be named";
            return Err(SignError::Config(why.into()));
        }
        Ok(instance)
    }

    /// Signs a statement for whoever the token says. A log that is down leaves the bundle queued; without a log and
    /// without a timestamp there is none.
    pub async fn sign(&self, statement: &[u8], token: &Token) -> Result<Signed, SignError> {
        let prepare = |e: &dyn std::fmt::Display| SignError::Prepare(e.to_string());
        if statement.len() > MAX_STATEMENT_BYTES {
            return Err(prepare(&format_args!(
                "the statement has more than {MAX_STATEMENT_BYTES} bytes"
            )));
        }
        let key = KeyPair::generate_ecdsa_p256().map_err(|e| prepare(&e))?;
        let certificate = self.certificate(&key, token).await?;
        let signature = key
            .sign(&pae(PAYLOAD_TYPE, statement))
            .map_err(|e| prepare(&e))?;
        let envelope = DsseEnvelope::new(
            PAYLOAD_TYPE.to_owned(),
            PayloadBytes::new(statement.to_vec()),
            DsseSignature::new(signature, KeyId::default()),
        );
        let timestamp = self.timestamp(&envelope).await;
        let entry = self.entry(&envelope, &certificate).await;

        let mut notes = Vec::new();
        let mut bundle = BundleV03::with_certificate_and_dsse(certificate, envelope);
        let no_time = match timestamp {
            Ok(Some(token)) => {
                bundle = bundle.with_rfc3161_timestamp(token);
                None
            }
            Ok(None) => Some("no timestamp authority is named".to_owned()),
            Err(why) => {
                notes.push(why.clone());
                Some(why)
            }
        };
        let queued = match (entry, no_time) {
            (Err(LogFailure::Refused(why)), _) => return Err(self.log_refuses(why)),
            (Err(LogFailure::Outage(why)), None) => Some(why),
            (Err(LogFailure::Outage(log)), Some(authority)) => {
                return Err(SignError::NoTime(format!("{log}; {authority}")));
            }
            (Ok(_), Some(authority)) if self.log_version == RekorApiVersion::V2 => {
                return Err(SignError::NoTime(authority));
            }
            (Ok(entry), _) => {
                bundle = bundle.with_tlog_entry(entry);
                None
            }
        };
        let log = if queued.is_some() {
            Log::Queued
        } else {
            Log::Required
        };
        let (bundle, by) = self.verified(&bundle.into_bundle(), log)?;
        Ok(Signed {
            bundle,
            by,
            queued,
            notes,
        })
    }

    /// Enters a queued bundle into the log and gives it complete, and verified. The time of its signature stays the
    /// timestamp authority's: what the log says about when is left out if the certificate was over by then.
    pub async fn enter(&self, queued: &[u8]) -> Result<Signed, SignError> {
        let refuse = |e: &dyn std::fmt::Display| SignError::Queued(e.to_string());
        if queued.len() > MAX_RECEIVED_BYTES {
            return Err(refuse(&format_args!(
                "it has more than {MAX_RECEIVED_BYTES} bytes"
            )));
        }
        let text = std::str::from_utf8(queued).map_err(|e| refuse(&e))?;
        let mut bundle = Bundle::from_json(text).map_err(|e| refuse(&e))?;
        let material = &bundle.verification_material;
        let (
            VerificationMaterialContent::Certificate(certificate),
            SignatureContent::DsseEnvelope(envelope),
        ) = (&material.content, &bundle.content)
        else {
            return Err(refuse(&"it is no keyless bundle with a statement"));
        };
        if !material.tlog_entries.is_empty() {
            return Err(refuse(&"it has a log entry already"));
        }
        // Nothing that would not verify goes into a public log.
        self.verified(&bundle, Log::Queued)?;
        let validity = parse_certificate_info(&certificate.raw_bytes).map_err(|e| refuse(&e))?;
        let entry = self.entry(envelope, &certificate.raw_bytes).await;
        let mut entry = match entry {
            Ok(entry) => entry,
            Err(LogFailure::Refused(why)) => return Err(self.log_refuses(why)),
            Err(LogFailure::Outage(why)) => {
                let by = self.verified(&bundle, Log::Queued)?.1;
                return Ok(Signed {
                    bundle: queued.to_vec(),
                    by,
                    queued: Some(why),
                    notes: Vec::new(),
                });
            }
        };
        let while_valid = validity.not_before..=validity.not_after;
        if entry
            .integrated_time
            .is_some_and(|t| !while_valid.contains(&t))
        {
            entry.inclusion_promise = None;
        }
        bundle.verification_material.tlog_entries.push(entry);
        let (bundle, by) = self.verified(&bundle, Log::Required)?;
        Ok(Signed {
            bundle,
            by,
            queued: None,
            notes: Vec::new(),
        })
    }

    fn log_refuses(&self, why: String) -> SignError {
        SignError::LogRefuses {
            url: self.log.clone(),
            why,
        }
    }

    fn verified(&self, bundle: &Bundle, log: Log) -> Result<(Vec<u8>, Certified), SignError> {
        let json = bundle
            .to_json()
            .map_err(|e| SignError::Prepare(e.to_string()))?;
        let by = verify_with(json.as_bytes(), &self.root, log)
            .map_err(|e| SignError::Unverified(self.fulcio.clone(), e))?;
        Ok((json.into_bytes(), by))
    }

    async fn certificate(&self, key: &KeyPair, token: &Token) -> Result<DerCertificate, SignError> {
        let refuse = |why: String| SignError::Certificate {
            url: self.fulcio.clone(),
            why,
        };
        let client = FulcioClient::builder(&self.fulcio)
            .with_http_client(self.http.clone())
            .build()
            .map_err(|e| refuse(e.to_string()))?;
        let answer = client.create_signing_certificate(&token.0, key).await;
        let answer = answer.map_err(|e| refuse(e.to_string()))?;
        Ok(answer.leaf_certificate().clone())
    }

    /// The authority's word on when the envelope was signed; its failure is for the caller to weigh.
    async fn timestamp(&self, envelope: &DsseEnvelope) -> Result<Option<TimestampToken>, String> {
        let Some(url) = &self.timestamps else {
            return Ok(None);
        };
        let client = TimestampClient::builder(url)
            .with_http_client(self.http.clone())
            .build()
            .map_err(|e| e.to_string())?;
        let answer = client.timestamp_signature(&envelope.signature.sig).await;
        answer
            .map(Some)
            .map_err(|e| format!("no timestamp from {url}: {e}"))
    }

    async fn entry(
        &self,
        envelope: &DsseEnvelope,
        certificate: &DerCertificate,
    ) -> Result<TransparencyLogEntry, LogFailure> {
        if self.log_version == RekorApiVersion::V2 {
            let hash = sha256(&pae(&envelope.payload_type, envelope.payload.as_bytes()));
            let request = HashedRekordV2::new_with_certificate(
                &hash,
                &envelope.signature.sig,
                certificate,
                RekorV2KeyDetails::PkixEcdsaP256Sha256,
            );
            let client = RekorV2Client::builder(&self.log)
                .with_http_client(self.http.clone())
                .build()?;
            return Ok(client.create_entry(request).await?);
        }
        let client = RekorClient::builder(&self.log)
            .with_http_client(self.http.clone())
            .build()?;
        let made = client
            .create_dsse_entry(DsseEntry::new(envelope, certificate)?)
            .await;
        let entry = match made {
            // Made by an attempt whose answer was lost: it is the same entry.
            Err(RekorError::Status {
                status: 409,
                message,
            }) => match existing(&message) {
                Some(uuid) => client.get_entry_by_uuid(&uuid).await?,
                None => return Err(LogFailure::Refused(message)),
            },
            other => other?,
        };
        entry
            .to_bundle_entry(KindVersion::DsseV001)
            .map_err(|e| LogFailure::Outage(e.to_string()))
    }
}

/// The entry that a log says is there already.
fn existing(message: &str) -> Option<EntryUuid> {
    message
        .split(|c: char| !c.is_ascii_hexdigit())
        .find(|word| UUID_DIGITS.contains(&word.len()))
        .map(EntryUuid::new)
}

fn http() -> Result<reqwest::Client, SignError> {
    use_ring();
    // Fails where this process has chosen before, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .timeout(ANSWER_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        // The token is in the request's body: it goes where the configuration says, and nowhere else.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("instar/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| SignError::Prepare(e.to_string()))
}
