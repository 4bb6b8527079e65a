//! API servers that speak TLS, and ask who a replica is.

#![allow(clippy::unwrap_used)] // In a test an unwrap is an assertion.

mod fake;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyserve_client::{Tls, TlsPem};
use anyserve_core::{Code, Error, Expects, Query, Reply, Request, Upgrades, Uplink};
use anyserve_uplink::{Link, LinkConfig};
use fake::{Fake, Heard, Inside, config, within};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// An authority, and somebody whom it has signed, as PEM: certificate and key.
struct Signed {
    authority: String,
    certificate: String,
    key: String,
}

impl Signed {
    fn new() -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Self { authority: pem, certificate: own.pem(), key: key.serialize_pem() }
    }

    /// Whoever is this one and believes those of `authority`.
    fn believing(&self, authority: &Self) -> Tls {
        let identity = (self.certificate.clone().into_bytes(), self.key.clone().into_bytes());
        TlsPem { ca: Some(authority.authority.clone().into_bytes()), identity: Some(identity) }.into()
    }

    /// Somebody without a certificate who believes those of `authority`.
    fn nobody_believing(authority: &Self) -> Tls {
        TlsPem { ca: Some(authority.authority.clone().into_bytes()), identity: None }.into()
    }
}

/// An API server that has this certificate and takes only who has one of the same authority.
fn asking(own: &Signed) -> Fake {
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&own.certificate, &own.key))
        .client_ca_root(Certificate::from_pem(&own.authority));
    Fake::start_with("127.0.0.1:0".parse().unwrap(), Some(tls))
}

fn secure(address: SocketAddr, tls: Tls) -> LinkConfig {
    let endpoint = format!("https://localhost:{}", address.port());
    LinkConfig { api_servers: vec![endpoint.parse().unwrap()], tls, ..config(&[address]) }
}

fn request() -> Request {
    Request {
        id: "7".into(),
        model: "any".into(),
        version: String::new(),
        query: Query::parse("type=decode").unwrap(),
        inputs: vec![],
        outputs: vec![],
        destinations: vec![],
        parameters: vec![],
        headers: vec![],
        deadline: Some(Instant::now() + Duration::from_mins(1)),
        expects: Expects::One,
    }
}

#[tokio::test]
async fn a_replica_with_a_certificate_is_heard_and_has_its_requests_served() {
    let own = Signed::new();
    let mut server = asking(&own);
    let link = Link::try_new(secure(server.address, own.believing(&own))).unwrap();
    let _running = link.start(&Inside::of(&["a"])).unwrap();
    assert!(matches!(server.heard().await, Heard::Register(..)));
    let answer = within(link.delegate(request(), &Upgrades::default())).await.unwrap();
    assert!(matches!(answer, Reply::One(response) if response.id == "7"));
}

#[tokio::test]
async fn a_replica_that_is_not_believed_or_does_not_believe_is_told_why() {
    let (own, other) = (Signed::new(), Signed::new());
    let server = asking(&own);
    let refused = async |tls: Tls| -> Error {
        let link = Link::try_new(secure(server.address, tls)).unwrap();
        within(link.delegate(request(), &Upgrades::default())).await.unwrap_err()
    };
    let stranger = refused(other.believing(&own)).await;
    let nobody = refused(Signed::nobody_believing(&own)).await;
    let unbelieving = refused(own.believing(&other)).await;
    for error in [&stranger, &nobody, &unbelieving] {
        assert_eq!(error.code, Code::Unavailable, "{error:?}");
        assert!(error.message.contains("https://localhost:"), "{error:?}");
    }
    assert!(unbelieving.message.contains("nobody who is trusted here has signed its certificate"), "{unbelieving:?}");
}
